"""The hand-written writers give fastavro's bytes, for every record and body."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from hypothesis import given, settings

from schemas import messages as m
from schemas import writing
from schemas.registry import NAMESPACE, newest
from tests.unit.test_codec import event, of, snapshot

_RECORDS = (*m.EVENT_BODIES, m.LiveFlow, m.EndedFlow, m.Position, m.Entity)


_PAYLOADS = {
    "input",
    "transformed",
    "output",
    "arguments",
    "result",
    "context",
    "items",
    "progress",
    "event",
    "explanation",
}
_SNAPSHOTS = (m.LiveFlow, m.EndedFlow, m.Position, m.Entity, m.ActiveTask, m.Compensation)


def plain(value: Any, field: str = "", owner: type | None = None) -> Any:
    """A struct as fastavro takes it, by the schema's conventions and none of the codec's code."""
    if isinstance(value, m.Claim):
        return {
            "json": (f"{NAMESPACE}.Claim", {"uri": value.uri, "sha256": value.sha256, "size": value.size})
        }
    if isinstance(value, bytes) and owner is m.Restore and field == "data":
        return {"json": value}
    if isinstance(value, bytes) and owner not in _SNAPSHOTS and field in _PAYLOADS:
        return {"json": value}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__struct_fields__"):
        record = {name: plain(getattr(value, name), name, type(value)) for name in value.__struct_fields__}
        if isinstance(value, m.LiveFlow):
            for name in ("data", "context"):
                record[name] = None if record[name] == value.input else record[name]
            for active in record["active"]:
                active["raw_input"] = None if active["raw_input"] == value.input else active["raw_input"]
        if isinstance(value, m.ActiveTask):
            record["input"] = None if value.input == value.raw_input else value.input
            record["data"] = None if value.data == value.input else value.data
        if isinstance(value, m.Event):
            record["event_id"] = value.event_id
        return (f"{NAMESPACE}.{type(value).__name__}", record) if isinstance(value, _RECORDS) else record
    return value


def reference(kind: str, record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, newest(kind).parsed, record)
    return out.getvalue()


@given(event)
@settings(max_examples=400)
def test_events_are_written_as_fastavro_writes_them(value: m.Event) -> None:
    assert writing.event(value) == reference("event", plain(value))


@given(snapshot)
def test_snapshots_are_written_as_fastavro_writes_them(value: m.Snapshot) -> None:
    assert writing.snapshot(value) == reference("snapshot", {"body": plain(value)})


@given(of(m.Task))
def test_tasks_are_written_as_fastavro_writes_them(value: m.Task) -> None:
    assert writing.task(value) == reference("task", plain(value))


def test_branches_are_numbered_as_in_the_schema() -> None:
    fields = {field["name"]: field for field in newest("event").parsed["fields"]}
    names = [branch["name"] for branch in fields["body"]["type"]]
    assert names == [f"{NAMESPACE}.{body.__name__}" for body in m.EVENT_BODIES]
