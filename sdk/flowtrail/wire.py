"""Task records to Python and outcomes to command records, with the schemas the API handed over.

Confluent framing: one zero byte, the four-byte schema id, the Avro datum; the header `schema` carries the
CRC-64-AVRO fingerprint and wins. The SDK ships no schema: a server that writes a newer one is understood as long as
its registry hands it out (`learn`). Unions are written as (name, record) because fastavro then skips guessing.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from flowtrail.errors import FlowtrailError
from flowtrail.functions import Failure

SCHEMA_HEADER: Final = "schema"


class Unreadable(ValueError):
    """A record that is no task of this contract."""


class Task(msgspec.Struct, frozen=True, gc=False):
    """One attempt of one run of a task. `arguments` is JSON, or None when it is kept elsewhere (a claim)."""

    flow_id: str
    definition: str
    task: str
    run: int
    attempt: int
    function: str
    arguments: bytes | None
    time: int
    trace: str | None
    deadline: int = 0
    heartbeat: int = 0
    reply: bool = True


class Cancellation(msgspec.Struct, frozen=True, gc=False):
    """A task nobody waits for any more."""

    flow_id: str
    task: str
    run: int
    attempt: int
    queue: str


class Written(msgspec.Struct, frozen=True, gc=False):
    """A command ready to be produced."""

    key: str
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


class Wire:
    """The contract as one bootstrap answer describes it."""

    def __init__(self, bootstrap: Mapping[str, Any], learn: Callable[[int], str] | None = None) -> None:
        """`learn` fetches a schema's text by its id when a record names one that is not in `bootstrap`."""
        try:
            schemas = bootstrap["schemas"]
            command, task = schemas["command"], schemas["task"]
            self.kafka = str(bootstrap["kafka"])
            self.commands_topic = str(bootstrap["topics"]["commands"])
            self.cancellations_topic: str | None = bootstrap["topics"].get("cancellations")
            command_schema: Any = fastavro.parse_schema(_parsed(command["schema"]))
            self._command = command_schema
            self._command_id = int(command["id"])
            self._fingerprint = bytes.fromhex(command["fingerprint"])
            known = fastavro.parse_schema(_parsed(task["schema"]))
            self._by_id: dict[int, Any] = {int(task["id"]): known}
            self._by_fingerprint: dict[bytes, Any] = {bytes.fromhex(task["fingerprint"]): known}
            for other in (schemas[kind] for kind in ("cancellation",) if kind in schemas):
                parsed = fastavro.parse_schema(_parsed(other["schema"]))
                self._by_id[int(other["id"])] = parsed
                self._by_fingerprint[bytes.fromhex(other["fingerprint"])] = parsed
        except (KeyError, TypeError, ValueError) as problem:
            raise FlowtrailError(
                f"Expected the API's bootstrap to describe commands and tasks but {type(problem).__name__}: {problem}"
            ) from None
        self._frame = b"\0" + self._command_id.to_bytes(4, "big")
        self._namespace = str(command_schema["name"]).rpartition(".")[0]
        self._completed = self._name("CompleteTask")
        self._failed = self._name("FailTask")
        self._alive = self._name("HeartbeatTask")
        self._payload = self._name("Payload")
        self._learn = learn

    def _name(self, record: str) -> str:
        return f"{self._namespace}.{record}" if self._namespace else record

    # -- reading ------------------------------------------------------------------------------------------------

    def read_task(self, value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> Task:
        """Raises Unreadable; errors of `learn` (the API away) pass through."""
        try:
            record = self._record(value, headers)
            arguments = record["arguments"]["json"]
            return Task(
                record["flow_id"],
                record["definition"],
                record["task"],
                record["run"],
                record["attempt"],
                record["function"],
                arguments if isinstance(arguments, bytes) else None,
                record["time"],
                record["trace"],
                record.get("deadline", 0),
                record.get("heartbeat", 0),
                record.get("reply", True),
            )
        except (KeyError, TypeError) as problem:
            raise Unreadable(f"Expected a task but found another record ({problem})") from None

    def read_cancellation(
        self, value: bytes | None, headers: list[tuple[str, bytes]] | None = None
    ) -> Cancellation:
        """Raises as `read_task`."""
        try:
            record = self._record(value, headers)
            return Cancellation(**{name: record[name] for name in Cancellation.__struct_fields__})
        except (KeyError, TypeError) as problem:
            raise Unreadable(f"Expected a cancellation but found another record ({problem})") from None

    def _record(self, value: bytes | None, headers: list[tuple[str, bytes]] | None) -> dict[str, Any]:
        schema = self._schema_of(value or b"", headers)
        data = io.BytesIO(value or b"")
        data.seek(5)
        try:
            record: Any = fastavro.schemaless_reader(data, schema, None)
        except Exception as problem:  # fastavro raises whatever it stumbles over
            raise Unreadable(
                f"Expected a record of this contract but its bytes do not decode: {type(problem).__name__}"
            ) from None
        if not isinstance(record, dict):
            raise Unreadable(f"Expected a record but found {type(record).__name__}")
        return record

    def _schema_of(self, value: bytes, headers: list[tuple[str, bytes]] | None) -> Any:
        if len(value) < 5 or value[0] != 0:
            found = value[:8].hex() or "nothing"
            raise Unreadable(f"Expected Confluent framing (00 and a schema id) but found {found}")
        for name, mark in headers or ():
            if name == SCHEMA_HEADER and (schema := self._by_fingerprint.get(mark)) is not None:
                return schema
        number = int.from_bytes(value[1:5], "big")
        schema = self._by_id.get(number)
        return self._fetched(number) if schema is None else schema

    def _fetched(self, number: int) -> Any:
        if self._learn is None:
            raise Unreadable(f"Expected a schema id of this contract but found {number}")
        parsed = _parsed(self._learn(number))
        schema = fastavro.parse_schema(parsed)
        self._by_id[number] = schema
        mark = fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO")
        self._by_fingerprint[bytes.fromhex(mark)] = schema
        return schema

    # -- writing ------------------------------------------------------------------------------------------------

    def write_outcome(self, task: Task, outcome: bytes | Failure, actor: str) -> Written:
        """CompleteTask or FailTask. The command id is derived, so that a task performed twice reports once."""
        place: dict[str, Any] = {"task": task.task, "run": task.run, "attempt": task.attempt}
        attempt = f"{task.flow_id}{task.task}#{task.run}.{task.attempt}"
        if isinstance(outcome, Failure):
            name, suffix = self._failed, "failed"
            place["error"] = {
                "type": outcome.type,
                "status": outcome.status,
                "title": outcome.title,
                "detail": outcome.detail,
                "instance": task.task,
            }
            place["incident"] = outcome.incident
        else:
            name, suffix = self._completed, "completed"
            place["output"] = {"json": outcome}
        return self._write(f"{attempt}:{suffix}", task.flow_id, actor, task.trace, (name, place))

    def write_heartbeat(self, task: Task, progress: bytes | None, actor: str) -> Written:
        """HeartbeatTask. Each is a command of its own: the id holds the time."""
        body = {
            "task": task.task,
            "run": task.run,
            "attempt": task.attempt,
            "progress": None if progress is None else (self._payload, {"json": progress}),
        }
        command_id = f"{task.flow_id}{task.task}#{task.run}.{task.attempt}:alive-{time.time_ns() // 1000}"
        return self._write(command_id, task.flow_id, actor, task.trace, (self._alive, body))

    def _write(
        self, command_id: str, flow_id: str, actor: str, trace: str | None, body: tuple[str, dict[str, Any]]
    ) -> Written:
        out = io.BytesIO()
        out.write(self._frame)
        command = {
            "command_id": command_id,
            "flow_id": flow_id,
            "time": time.time_ns() // 1000,
            "actor": {"kind": "worker", "id": actor},
            "trace": trace,
            "body": body,
        }
        fastavro.schemaless_writer(out, self._command, command)
        headers: list[tuple[str, str | bytes | None]] = [(SCHEMA_HEADER, self._fingerprint)]
        if trace is not None:
            headers.append(("traceparent", trace.encode()))
        return Written(flow_id, out.getvalue(), headers)


def _parsed(schema: Any) -> Any:
    return json.loads(schema) if isinstance(schema, str) else schema
