"""call: a2a, against agents made with the protocol's own SDK: versions 0.3 and 1.0, JSON-RPC and HTTP+JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, Role
from flowtrail.errors import TaskError
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse

from engine.settings import read_settings
from engine.tasks import configured, fetching, problems
from engine.tasks.a2a_calls import call
from tests.local_asgi import local_asgi
from tests.local_http import Answer, Request, as_json, local_http

TOKENS: list[str | None] = []


class Agent(AgentExecutor):
    """Says hello at once, or works on a task that stays open until it is cancelled."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        if "work" not in context.get_user_input():
            text = f"hello {context.get_user_input()} ({Role.Name(context.message.role)})"
            await event_queue.enqueue_event(new_text_message(text))
            return
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        await updater.add_artifact([new_text_part("report")])
        if "open" in context.get_user_input():
            await updater.requires_input()
        else:
            await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None
        assert context.context_id is not None
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def application(base: str) -> Starlette:
    card = AgentCard(
        name="notes",
        description="keeps notes",
        version="1.2.3",
        capabilities=AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        supported_interfaces=[
            AgentInterface(protocol_binding="JSONRPC", protocol_version="1.0", url=f"{base}/rpc"),
            AgentInterface(protocol_binding="HTTP+JSON", protocol_version="1.0", url=f"{base}/rest"),
        ],
    )
    extended = AgentCard()
    extended.CopyFrom(card)
    extended.description = "keeps notes, and more for you"
    extended.supported_interfaces.append(
        AgentInterface(protocol_binding="JSONRPC", protocol_version="0.3", url=f"{base}/rpc")
    )
    handler = DefaultRequestHandlerV2(
        Agent(),
        InMemoryTaskStore(),
        card,
        push_config_store=InMemoryPushNotificationConfigStore(),
        extended_agent_card=extended,
    )

    async def rest_card(_: Asked) -> JSONResponse:
        return JSONResponse(
            {
                "name": "notes",
                "capabilities": {"streaming": True, "pushNotifications": True, "extendedAgentCard": True},
                "supportedInterfaces": [
                    {"protocolBinding": "GRPC", "protocolVersion": "1.0", "url": "127.0.0.1:1"},
                    {"protocolBinding": "HTTP+JSON", "protocolVersion": "1.0", "url": f"{base}/rest"},
                ],
            }
        )

    made = Starlette(
        routes=[
            *create_agent_card_routes(card),
            *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
            *create_rest_routes(handler, path_prefix="/rest"),
        ]
    )
    made.add_route("/rest-card.json", rest_card)
    return made


class Told:
    """Notes which credentials come; the application is made when its address is known."""

    def __init__(self) -> None:
        self.inner: Starlette | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"])[b"host"].decode()
            TOKENS.append(dict(scope["headers"]).get(b"authorization", b"").decode() or None)
            self.inner = self.inner or application(f"http://{host}")
            await self.inner(scope, receive, send)


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    configured.configure(read_settings({}))
    fetching.forget()
    TOKENS.clear()
    yield
    configured.configure(None)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with local_asgi(Told()) as url:
        yield url


@pytest.fixture(params=["0.3 by server", "1.0 by card", "HTTP+JSON by card"])
def agent(request: pytest.FixtureRequest, base: str) -> dict[str, Any]:
    match request.param:
        case "0.3 by server":
            return {"server": f"{base}/rpc"}
        case "1.0 by card":
            return {"agentCard": {"endpoint": f"{base}/.well-known/agent-card.json"}}
    return {"agentCard": {"endpoint": {"uri": f"{base}/rest-card.json"}}}


def asked(agent: dict[str, Any], method: str, parameters: Any = None) -> Any:
    arguments = {"method": method, **agent}
    return asyncio.run(call(arguments if parameters is None else {**arguments, "parameters": parameters}))


def refused(agent: dict[str, Any], method: str, parameters: Any = None) -> TaskError:
    with pytest.raises(TaskError) as found:
        asked(agent, method, parameters)
    assert str(found.value.detail).startswith("Expected ")
    return found.value


def always(answer: Answer) -> Callable[[Request], Answer]:
    return lambda _: answer


def said(text: str) -> dict[str, Any]:
    return {"message": {"parts": [{"kind": "text", "text": text}]}}


def test_a_message_needs_neither_an_id_nor_a_role(agent: dict[str, Any]) -> None:
    answer = asked(agent, "message/send", said("Ada"))
    assert (answer["kind"], answer["role"]) == ("message", "agent")
    assert answer["parts"] == [{"kind": "text", "text": "hello Ada (ROLE_USER)"}]


def test_whole_numbers_stay_whole() -> None:
    data = {"n": 3, "share": 0.5, "big": 2**53, "deep": [1, None, {"a": True}]}

    def answer(request: Request) -> Answer:
        message = {
            "kind": "message",
            "messageId": "1",
            "role": "agent",
            "parts": [{"kind": "data", "data": data}],
        }
        return as_json({"jsonrpc": "2.0", "id": request.json()["id"], "result": message})

    with local_http(answer) as other:
        told = asked({"server": other.url}, "message/send", said("Ada"))
        [request] = other.requests
    assert repr(told["parts"][0]["data"]["n"]) == "3"
    assert told["parts"][0]["data"] == data
    assert request.headers["user-agent"] == "flowtrail"


def test_a_stream_is_the_list_of_its_results(agent: dict[str, Any]) -> None:
    events = asked(agent, "message/stream", said("work"))
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "task"
    assert "artifact-update" in kinds
    assert events[-1]["status"]["state"] == "completed"


def test_tasks_are_got_and_cancelled(agent: dict[str, Any]) -> None:
    task = asked(agent, "message/send", said("work, open"))
    assert (task["kind"], task["status"]["state"]) == ("task", "input-required")
    got = asked(agent, "tasks/get", {"id": task["id"], "historyLength": 1})
    assert got["id"] == task["id"]
    assert got["artifacts"][0]["parts"] == [{"kind": "text", "text": "report"}]
    cancelled = asked(agent, "tasks/cancel", {"id": task["id"]})
    assert cancelled["status"]["state"] == "canceled"


def test_push_notifications_are_configured(agent: dict[str, Any]) -> None:
    task = asked(agent, "message/send", said("work, open"))["id"]
    config = {"id": "c1", "url": "https://example.com/hook"}
    made = asked(
        agent, "tasks/pushNotificationConfig/set", {"taskId": task, "pushNotificationConfig": config}
    )
    assert made["pushNotificationConfig"]["url"] == config["url"]
    got = asked(agent, "tasks/pushNotificationConfig/get", {"id": task, "pushNotificationConfigId": "c1"})
    assert got["taskId"] == task
    assert len(asked(agent, "tasks/pushNotificationConfig/list", {"id": task})) == 1
    deleted = {"id": task, "pushNotificationConfigId": "c1"}
    assert asked(agent, "tasks/pushNotificationConfig/delete", deleted) is None
    assert asked(agent, "tasks/pushNotificationConfig/list", {"id": task}) == []


def test_the_extended_card_is_given(agent: dict[str, Any]) -> None:
    assert asked(agent, "agent/getAuthenticatedExtendedCard")["description"].endswith("more for you")


def test_tasks_are_listed_where_the_protocol_can(base: str) -> None:
    card = {"agentCard": {"endpoint": f"{base}/.well-known/agent-card.json"}}
    task = asked(card, "message/send", said("work"))
    listed = asked(card, "tasks/list", {"contextId": task["contextId"]})
    assert [one["id"] for one in listed["tasks"]] == [task["id"]]
    problem = refused({"server": f"{base}/rpc"}, "tasks/list", {})
    assert (problem.type, problem.status) == (problems.RUNTIME, 500)


def test_an_agents_error_is_a_runtime_error_that_tells_its_number_or_status(agent: dict[str, Any]) -> None:
    problem = refused(agent, "tasks/get", {"id": "nobody"})
    assert (problem.type, problem.status) == (problems.RUNTIME, 500)
    assert str(problem.detail).endswith(("its error is -32001 (TaskNotFoundError)", "the status is 404"))


def test_credentials_go_to_the_cards_own_origin(base: str) -> None:
    policy = {"bearer": {"token": "geheim"}}
    card = {"endpoint": {"uri": f"{base}/.well-known/agent-card.json", "authentication": policy}}
    asked({"agentCard": card}, "message/send", said("Ada"))
    assert TOKENS == ["Bearer geheim", "Bearer geheim"]

    def elsewhere(_: Request) -> Answer:
        return as_json({"name": "x", "url": f"{base}/rpc", "preferredTransport": "JSONRPC"})

    TOKENS.clear()
    with local_http(elsewhere) as other:
        endpoint = {"uri": f"{other.url}/card.json", "authentication": policy}
        asked({"agentCard": {"endpoint": endpoint}}, "message/send", said("Ada"))
    assert TOKENS == [None]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"method": "tasks/eat", "server": "http://x"}, "Expected a method of A2A"),
        ({"method": "tasks/get", "parameters": {"id": "1"}}, "Expected an endpoint's URI"),
        (
            {"method": "message/send", "server": "http://x", "parameters": {}},
            "params.message: Field required",
        ),
        (
            {"method": "tasks/get", "server": "http://x", "parameters": "id"},
            "Expected an object as parameters",
        ),
        ({"method": "tasks/list", "server": "http://x", "parameters": {"nothing": 1}}, "tasks/list"),
        ({"method": "tasks/get", "server": "ftp://x", "parameters": {"id": "1"}}, "http or https"),
    ],
)
def test_wrong_arguments_are_configuration_errors(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskError) as found:
        asyncio.run(call(arguments))
    assert found.value.type == problems.CONFIGURATION
    assert told in str(found.value.detail)


def test_a_card_that_is_none_is_a_configuration_error() -> None:
    cards: list[Any] = [
        {"supportedInterfaces": 7},
        ["no"],
        {"name": "x", "url": "x", "preferredTransport": "GRPC"},
    ]
    for card in cards:
        fetching.forget()
        with local_http(always(as_json(card))) as other:
            problem = refused({"agentCard": {"endpoint": f"{other.url}/card"}}, "tasks/get", {"id": "1"})
        assert problem.type == problems.CONFIGURATION


def test_an_agent_that_fails_or_talks_nonsense_is_a_runtime_error() -> None:
    for answer in (
        (503, {}, b"geheim"),
        as_json({"jsonrpc": "2.0", "id": 1, "result": {"x": "geheim"}}),
    ):
        with local_http(always(answer)) as other:
            problem = refused({"server": other.url}, "tasks/get", {"id": "1"})
        assert problem.type == problems.RUNTIME
        assert "geheim" not in str(problem.detail)
    gone = refused({"server": "http://127.0.0.1:9"}, "tasks/get", {"id": "1"})
    assert gone.type == problems.RUNTIME
