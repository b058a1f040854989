"""call: asyncapi: which server and address a document means, messages over HTTP, how a subscription ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flowtrail.errors import TaskError

from engine.settings import read_settings
from engine.tasks import configured, fetching, problems
from engine.tasks.asyncapi import call
from engine.tasks.asyncapi_documents import correlation_of, place_of
from tests.local_http import Answer, LocalHttp, Request, as_json, local_http

V3: dict[str, Any] = {
    "asyncapi": "3.0.0",
    "servers": {
        "queue": {"host": "broker.example", "protocol": "amqp"},
        "web": {
            "host": "{where}.example:8080",
            "pathname": "/v1",
            "protocol": "https",
            "variables": {"where": {"default": "eu", "enum": ["eu", "us"]}},
        },
        "log": {
            "host": "k1:9092,k2:9092",
            "protocol": "kafka-secure",
            "security": [{"$ref": "#/components/securitySchemes/scram"}],
        },
    },
    "channels": {
        "chat": {
            "address": "rooms/chat",
            "bindings": {"kafka": {"topic": "chat-topic"}},
            "messages": {"said": {"correlationId": {"location": "$message.payload#/meta/id"}}},
        },
        "logged": {"address": "logged", "servers": [{"$ref": "#/servers/log"}]},
        "parted": {"address": "rooms/{room}"},
        "plain/er": {},
    },
    "operations": {
        "say": {
            "action": "send",
            "channel": {"$ref": "#/channels/chat"},
            "bindings": {"http": {"method": "PUT"}},
        },
        "log": {
            "action": "receive",
            "channel": {"$ref": "#/channels/logged"},
            "bindings": {"kafka": {"groupId": {"type": "string", "enum": ["g1"]}}},
        },
        "part": {"action": "send", "channel": {"$ref": "#/channels/parted"}},
        "plain": {"action": "send", "channel": {"$ref": "#/channels/plain~1er"}},
    },
    "components": {"securitySchemes": {"scram": {"type": "scramSha512"}}},
}
V2: dict[str, Any] = {
    "asyncapi": "2.6.0",
    "servers": {
        "one": {"url": "amqp://a.example", "protocol": "amqp"},
        "two": {
            "url": "https://{env}.example/api/",
            "protocol": "https",
            "variables": {"env": {"default": "test"}},
        },
    },
    "channels": {
        "greetings": {"publish": {"bindings": {"http": {"method": "PATCH"}}}, "servers": ["one", "two"]},
        "news": {"subscribe": {}, "servers": ["one"]},
    },
}
MESSAGE: dict[str, Any] = {"message": {"payload": {}}}


def refused(function: Callable[[], Any]) -> TaskError:
    with pytest.raises(TaskError) as found:
        function()
    assert str(found.value.detail).startswith("Expected ")
    return found.value


# -- documents --------------------------------------------------------------------------------------------------------


def test_an_operation_leads_to_the_first_server_that_is_spoken() -> None:
    place = place_of(V3, {"operation": "say", **MESSAGE}, "http://x")
    assert (place.protocol, place.host, place.path, place.address) == (
        "https",
        "eu.example:8080",
        "/v1",
        "rooms/chat",
    )
    assert place.binding(place.operation, "method") == "PUT"
    assert place.correlation == "$message.payload#/meta/id"


def test_the_servers_of_the_channel_go_before_the_others() -> None:
    place = place_of(V3, {"operation": "log", "subscription": {}}, "http://x")
    assert (place.protocol, place.host, place.secure) == ("kafka-secure", "k1:9092,k2:9092", True)
    assert place.binding(place.operation, "groupId") == "g1"
    assert place.schemes == {"scramSha512"}


def test_a_protocol_or_a_server_can_be_chosen() -> None:
    kafka = place_of(V3, {"operation": "say", "protocol": "kafka", **MESSAGE}, "http://x")
    assert kafka.binding(kafka.channel, "topic") == "chat-topic"
    named = {"operation": "say", "server": {"name": "web", "variables": {"where": "us"}}, **MESSAGE}
    assert place_of(V3, named, "http://x").host == "us.example:8080"
    assert place_of(V3, {"operation": "plain", **MESSAGE}, "http://x").address == "plain/er"


def test_a_channel_of_version_2_leads_to_its_servers() -> None:
    place = place_of(V2, {"channel": "greetings", **MESSAGE}, "http://x")
    assert (place.host, place.path, place.address) == ("test.example", "/api", "greetings")
    assert place.binding(place.operation, "method") == "PATCH"


@pytest.mark.parametrize(
    ("document", "arguments"),
    [
        (V3, {"operation": "absent", **MESSAGE}),
        (V3, {"operation": "part", **MESSAGE}),
        (V3, {"operation": "say", "protocol": "amqp", **MESSAGE}),
        (V3, {"operation": "say", "server": {"name": "absent"}, **MESSAGE}),
        (V3, {"operation": "say", "server": {"name": "queue"}, **MESSAGE}),
        (V3, {"operation": "say", "server": {"name": "web", "variables": {"where": "mars"}}, **MESSAGE}),
        (V2, {"channel": "absent", **MESSAGE}),
        (V2, {"channel": "news", "subscription": {}}),
        (V2, {"channel": "news", **MESSAGE}),
        ({"asyncapi": "1.2.0"}, {"channel": "x", **MESSAGE}),
        ({}, {}),
    ],
)
def test_what_a_document_does_not_have_is_a_configuration_error(
    document: dict[str, Any], arguments: dict[str, Any]
) -> None:
    error = refused(lambda: place_of(document, arguments, "http://x"))
    assert (error.type, error.status) == (problems.CONFIGURATION, 400)


def test_a_correlation_id_is_where_the_document_says() -> None:
    assert correlation_of("$message.header#/a~1b", {"a/b": 5}, None) == "5"
    assert correlation_of("$message.payload#/x/y", {}, {"x": {"y": "z"}}) == "z"
    assert correlation_of("$message.payload#/x/y", {}, [1]) is None


# -- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    configured.configure(read_settings({"FLOWTRAIL_HTTP_RESPONSE_BYTES_MAX": "2000"}))
    fetching.forget()
    yield
    configured.configure(None)


@contextmanager
def chat(folder: Path, answer: Callable[[Request], Answer]) -> Iterator[tuple[LocalHttp, dict[str, Any]]]:
    """A server, and the arguments that every call of it has."""
    with local_http(answer) as server:
        host = server.url.removeprefix("http://")
        document = V3 | {
            "servers": {"here": {"host": host, "protocol": "http", "pathname": "/base"}},
            "operations": {"chat": {"action": "send", "channel": {"$ref": "#/channels/chat"}}},
        }
        (folder / "chat.json").write_text(json.dumps(document))
        yield server, {"document": {"endpoint": f"file://{folder}/chat.json"}, "operation": "chat"}


def events(*payloads: Any) -> Answer:
    lines = [f"id: {number}\ndata: {json.dumps(payload)}\n\n" for number, payload in enumerate(payloads, 1)]
    return 200, {"content-type": "text/event-stream"}, "".join(lines).encode()


def consumed(
    folder: Path, answer: Callable[[Request], Answer], more: dict[str, Any], **subscription: Any
) -> Any:
    with chat(folder, answer) as (_, arguments):
        return asyncio.run(call({**arguments, **more, "subscription": subscription}))


def test_a_message_is_published(tmp_path: Path) -> None:
    with chat(tmp_path, lambda _: (202, {}, b"")) as (server, arguments):
        message = {"payload": {"text": "hé"}, "headers": {"foo": "bar", "n": 1}}
        policy = {"bearer": {"token": "t"}}
        assert asyncio.run(call({**arguments, "message": message, "authentication": policy})) is None
    [request] = server.requests
    assert (request.method, request.path, request.json()) == ("POST", "/base/rooms/chat", {"text": "hé"})
    assert (request.headers["foo"], request.headers["n"]) == ("bar", "1")
    assert request.headers["authorization"] == "Bearer t"


def test_a_message_that_is_not_accepted_is_a_communication_error(tmp_path: Path) -> None:
    with chat(tmp_path, lambda _: (429, {}, b"")) as (_, arguments):
        error = refused(lambda: asyncio.run(call({**arguments, **MESSAGE})))
    assert (error.type, error.status) == (problems.COMMUNICATION, 429)


def test_an_amount_of_filtered_messages_is_consumed(tmp_path: Path) -> None:
    told = consumed(
        tmp_path,
        lambda _: events(*[{"n": n, "meta": {"id": f"c{n}"}} for n in range(6)]),
        {"__arguments__": {"input": {"least": 2}}},
        filter="${ .payload.n >= $input.least }",
        consume={"amount": 2},
    )
    assert [message["payload"]["n"] for message in told] == [2, 3]
    assert told[0]["correlationId"] == "c2"
    assert told[0]["headers"] == {"event": "message", "id": "3"}


@pytest.mark.parametrize(
    "consume", [{"until": "${ .payload == 3 }"}, {"while": "${ .payload < 3 }"}], ids=["until", "while"]
)
def test_a_condition_ends_the_consumption_with_its_message(tmp_path: Path, consume: dict[str, Any]) -> None:
    told = consumed(tmp_path, lambda _: events(1, 2, 3, 4), {}, consume=consume)
    assert [message["payload"] for message in told] == [1, 2, 3]


def test_conditions_may_be_of_cel(tmp_path: Path) -> None:
    more = {"__language__": "cel", "__arguments__": {"input": {"most": 2}}}
    told = consumed(
        tmp_path, lambda _: events(1, 2, 3), more, consume={"until": "${ data.payload == input.most }"}
    )
    assert [message["payload"] for message in told] == [1, 2]


def test_time_ends_the_consumption_with_what_there_is(tmp_path: Path) -> None:
    told = consumed(tmp_path, lambda _: events(1), {}, consume={"amount": 5, "for": {"milliseconds": 300}})
    assert [message["payload"] for message in told] == [1]


def test_a_stream_that_ends_is_continued_from_its_last_event(tmp_path: Path) -> None:
    asked: list[str | None] = []

    def answer(request: Request) -> Answer:
        asked.append(request.headers.get("last-event-id"))
        return events("a", "b")

    told = consumed(tmp_path, answer, {}, consume={"amount": 3})
    assert [message["payload"] for message in told] == ["a", "b", "a"]
    assert asked == [None, "2"]


@pytest.mark.parametrize(
    ("kind", "body", "payloads"),
    [
        ("application/x-ndjson", b'{"a":1}\n\n[2]\n"x"', [{"a": 1}, [2], "x"]),
        ("application/json", b"[1, 2, 3]", [1, 2, 3]),
    ],
)
def test_lines_and_lists_are_messages(tmp_path: Path, kind: str, body: bytes, payloads: list[Any]) -> None:
    told = consumed(
        tmp_path, lambda _: (200, {"content-type": kind, "set-cookie": "s"}, body), {}, consume={"amount": 3}
    )
    assert [message["payload"] for message in told] == payloads
    assert "set-cookie" not in told[0]["headers"]


@pytest.mark.parametrize("body", [b'{"a": NaN}', b'"\\ud800"', b"[" * 1900])
def test_what_is_almost_json_is_text(tmp_path: Path, body: bytes) -> None:
    answer = (200, {"content-type": "application/x-ndjson"}, body)
    told = consumed(tmp_path, lambda _: answer, {}, consume={"amount": 1})
    assert told[0]["payload"] == body.decode()


@pytest.mark.parametrize("method", ["BAD METHOD", ["GET"]])
def test_a_method_that_is_none_is_a_configuration_error(tmp_path: Path, method: Any) -> None:
    document = {
        "asyncapi": "3.0.0",
        "servers": {"here": {"host": "127.0.0.1:1", "protocol": "http"}},
        "operations": {
            "o": {"channel": {"address": "x"}, "bindings": {"http": {"method": method}}},
        },
    }
    (tmp_path / "x.json").write_text(json.dumps(document))
    arguments = {"document": {"endpoint": f"file://{tmp_path}/x.json"}, "operation": "o"}
    for more in (MESSAGE, {"subscription": {"consume": {"amount": 1}}}):
        error = refused(lambda more=more: asyncio.run(call({**arguments, **more})))  # type: ignore[misc]
        assert error.type == problems.CONFIGURATION
        assert "method" in str(error.detail)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((500, {}, b""), problems.COMMUNICATION),
        (events("x" * 3000), problems.COMMUNICATION),
        (events(*["x" * 500] * 5), problems.COMMUNICATION),
        ((200, {"content-type": "application/x-ndjson"}, b"1" * 5000), problems.COMMUNICATION),
        (as_json(["x" * 3000]), problems.COMMUNICATION),
    ],
)
def test_what_cannot_be_consumed_is_an_error(tmp_path: Path, answer: Answer, kind: str) -> None:
    error = refused(lambda: consumed(tmp_path, lambda _: answer, {}, consume={"amount": 9}))
    assert error.type == kind


def test_a_filter_that_fails_is_an_expression_error(tmp_path: Path) -> None:
    error = refused(
        lambda: consumed(
            tmp_path, lambda _: events("x"), {}, filter="${ .payload.a.b }", consume={"amount": 1}
        )
    )
    assert error.type == problems.EXPRESSION


def test_a_cancelled_subscription_ends_at_once(tmp_path: Path) -> None:
    asked = threading.Event()

    def answer(_: Request) -> Answer:
        asked.set()
        return events()

    async def begun_and_cancelled(arguments: dict[str, Any]) -> None:
        task = asyncio.create_task(call({**arguments, "subscription": {"consume": {"amount": 1}}}))
        assert await asyncio.to_thread(asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)

    with chat(tmp_path, answer) as (_, arguments):
        asyncio.run(begun_and_cancelled(arguments))
