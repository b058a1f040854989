"""The SDK's codec against the server's: the same bytes, from nothing but what the API hands out."""

from __future__ import annotations

import json

import msgspec
import pytest
from flowtrail.errors import FlowtrailError
from flowtrail.functions import Failure
from flowtrail.wire import SCHEMA_HEADER, Cancellation, Unreadable, Wire

from schemas import messages as m
from schemas.codec import decode_command, encode_cancellation, encode_command, encode_task
from schemas.registry import newest, released
from tests.sdk_api import bootstrap

TASK = m.Task(
    "flow-1",
    "demo/order@1.0.0",
    "/do/0/charge",
    2,
    3,
    "charge",
    b'{"a":"\xc3\xa9"}',
    1_700_000_000_000_000,
    None,
)


def wire() -> Wire:
    return Wire(bootstrap("127.0.0.1:9092", "flowtrail."))


def test_a_task_written_by_the_engine_is_read() -> None:
    fingerprint = [(SCHEMA_HEADER, newest("task").fingerprint)]
    for headers in (fingerprint, [], None, [("other", b"x")]):
        task = wire().read_task(encode_task(TASK), headers)
        assert (task.flow_id, task.definition, task.task, task.run, task.attempt) == (
            "flow-1", "demo/order@1.0.0", "/do/0/charge", 2, 3,
        )  # fmt: skip
        assert (task.function, task.arguments, task.time, task.trace) == (
            "charge",
            TASK.arguments,
            TASK.time,
            None,
        )


def test_arguments_kept_elsewhere_are_noticed() -> None:
    claimed = m.Task("f", "a/b@1.0.0", "/do/0/x", 1, 1, "x", m.Claim("s3://b/k", b"\1" * 32, 10), 1)
    assert wire().read_task(encode_task(claimed)).arguments is None


@pytest.mark.parametrize(
    "outcome",
    [b'{"ok":true}', b"null", Failure("urn:x", 402, "Declined", "no money"), Failure("urn:y", 500, "E")],
)
@pytest.mark.parametrize("trace", [None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
def test_an_outcome_is_byte_for_byte_the_command_the_server_would_write(
    outcome: bytes | Failure, trace: str | None
) -> None:
    codec = wire()
    value = encode_task(msgspec.structs.replace(TASK, trace=trace))
    written = codec.write_outcome(codec.read_task(value), outcome, "w1")
    command = decode_command(written.value, newest("command").fingerprint)
    assert encode_command(command) == written.value
    assert written.key == command.flow_id == "flow-1"
    assert command.actor == m.Actor("worker", "w1")
    assert command.trace == trace
    body = command.body
    assert isinstance(body, m.CompleteTask | m.FailTask)
    assert (body.task, body.run, body.attempt) == ("/do/0/charge", 2, 3)
    if isinstance(outcome, Failure):
        assert isinstance(body, m.FailTask)
        assert body.error == m.Error(
            outcome.type, outcome.status, outcome.title, outcome.detail, "/do/0/charge"
        )
        assert command.command_id == "flow-1/do/0/charge#2.3:failed"
    else:
        assert isinstance(body, m.CompleteTask)
        assert body.output == outcome
        assert command.command_id == "flow-1/do/0/charge#2.3:completed"
    headers = dict(written.headers)
    assert headers[SCHEMA_HEADER] == newest("command").fingerprint
    assert headers.get("traceparent") == (None if trace is None else trace.encode())


def test_an_incident_is_marked() -> None:
    codec = wire()
    written = codec.write_outcome(
        codec.read_task(encode_task(TASK)), Failure("urn:x", 500, "E", incident=True), "w1"
    )
    body = decode_command(written.value).body
    assert isinstance(body, m.FailTask)
    assert body.incident


def test_what_a_task_says_of_time_and_reply_is_read() -> None:
    given = msgspec.structs.replace(TASK, deadline=5, heartbeat=3_000_000, priority="high", reply=False)
    task = wire().read_task(encode_task(given))
    assert (task.deadline, task.heartbeat, task.reply) == (5, 3_000_000, False)
    plain = wire().read_task(encode_task(TASK))
    assert (plain.deadline, plain.heartbeat, plain.reply) == (0, 0, True)


@pytest.mark.parametrize("progress", [None, b'{"done":0.5}'])
def test_a_heartbeat_is_byte_for_byte_the_command_the_server_would_write(progress: bytes | None) -> None:
    codec = wire()
    written = codec.write_heartbeat(codec.read_task(encode_task(TASK)), progress, "w1")
    command = decode_command(written.value, newest("command").fingerprint)
    assert encode_command(command) == written.value
    assert command.body == m.HeartbeatTask("/do/0/charge", 2, 3, progress)
    assert command.command_id.startswith("flow-1/do/0/charge#2.3:alive-")


def test_a_cancellation_is_read_by_its_fingerprint_or_its_id() -> None:
    value = encode_cancellation(m.Cancellation("f", "/do/0/x", 2, 3, "q", 1))
    for headers in ([(SCHEMA_HEADER, newest("cancellation").fingerprint)], None):
        assert wire().read_cancellation(value, headers) == Cancellation("f", "/do/0/x", 2, 3, "q")
    with pytest.raises(Unreadable, match="Expected a task but found another record"):
        wire().read_task(value)
    with pytest.raises(Unreadable, match="Expected a cancellation but found another record"):
        wire().read_cancellation(encode_task(TASK))


@pytest.mark.parametrize(
    "value", [None, b"", b"\0\0\0", b"{}", b"\1" * 20, encode_task(TASK)[:12], b"\0\0\0\0\1abc"]
)
def test_what_is_no_task_is_refused(value: bytes | None) -> None:
    with pytest.raises(Unreadable, match=r"^Expected .* but"):
        wire().read_task(value)


def test_a_schema_the_bootstrap_did_not_name_is_fetched_once() -> None:
    asked: list[int] = []

    def learn(number: int) -> str:
        asked.append(number)
        return next(s.text for s in released() if s.id == number)

    described = bootstrap("127.0.0.1:9092", "flowtrail.")
    described["schemas"]["task"] = described["schemas"]["command"]
    codec = Wire(described, learn)
    for _ in range(2):
        assert codec.read_task(encode_task(TASK)).function == "charge"
    assert asked == [newest("task").id]


@pytest.mark.parametrize("missing", ["schemas", "kafka", "topics"])
def test_a_bootstrap_that_misses_something_says_so(missing: str) -> None:
    described = bootstrap("127.0.0.1:9092", "flowtrail.")
    del described[missing]
    with pytest.raises(FlowtrailError, match=f"Expected the API's bootstrap .*{missing}"):
        Wire(described)


def test_the_bootstrap_may_hold_schemas_as_objects() -> None:
    described = bootstrap("127.0.0.1:9092", "flowtrail.")
    for schema in described["schemas"].values():
        schema["schema"] = json.loads(schema["schema"])
    assert Wire(described).read_task(encode_task(TASK)).function == "charge"
