"""OCEL 2.0 (JSON) of the log's events: flows, task runs, definitions and actors are the objects.

Events are written as they come. Objects need what comes later (a flow's end), so they are spooled beside and joined at
the end; memory holds the live flows, and the names of definitions, actors and flows that are referred to. Invariant:
every id that a relationship names is an object of the file (a parent that was not exported says so), and every object
takes part in an event, because tools drop those that do not.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import IO, Any, Final

import msgspec
import orjson

from engine.runtime.records import timestamp
from projections import history
from projections.copying import Unstorable
from replay.activities import activity, attributes, members, status_of, transition
from replay.export import Exported
from replay.selection import Taken
from schemas import messages as m

_EVENT_ATTRIBUTES: Final = {
    "activity": "string",
    "transition": "string",
    "kind": "string",
    "sequence": "integer",
    "actor": "string",
    "actor_kind": "string",
    "command_id": "string",
    "task": "string",
    "run": "integer",
    "attempt": "integer",
    "body": "string",
}
_OBJECTS: Final[dict[str, dict[str, str]]] = {
    "flow": {"definition_hash": "string", "status": "string", "input": "string"},
    "task run": {"task": "string", "run": "integer", "activity": "string"},
    "definition": {"name": "string"},
    "actor": {"kind": "string"},
}
_SPOOL_BYTES: Final = 8 << 20


class _Live(msgspec.Struct):
    """What is known of a flow that has not ended."""

    attributes: list[dict[str, Any]]
    relationships: list[dict[str, str]]
    runs: set[str]
    seen: bool = False


class Ocel:
    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._objects = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - lives as long as this
        self._separators = {"events": b"", "objects": b""}
        self._live: dict[str, _Live] = {}
        self._flows: set[str] = set()
        self._parents: set[str] = set()
        self._others: dict[str, tuple[str, str]] = {}
        self._kinds: dict[str, str] = {}
        out.write(b'{"events":[')

    def take(self, taken: Taken) -> None:
        event = taken.logged
        if not isinstance(event, m.Event):
            return
        flow = self._live.get(event.flow_id)
        if flow is None:
            flow = self._live[event.flow_id] = self._begin(event)
        relationships = [_to(f"flow:{event.flow_id}", "event of")]
        if not flow.seen:
            flow.seen = True
            relationships.append(_to(f"definition:{event.definition}", "run of"))
        if isinstance(event.body, m.FlowStarted):
            relationships += self._started(flow, event, event.body)
        if event.task is not None:
            relationships.append(_to(self._task_run(flow, event), "of run"))
        relationships.append(_to(self._actor(event.actor), "caused by"))
        self._write_event(event, relationships)
        if (status := status_of(event)) is not None:
            flow.attributes.append(_at("status", status, event.time))
            self._write_flow(event.flow_id, self._live.pop(event.flow_id))

    def finish(self, report: Exported) -> None:
        for flow_id in list(self._live):
            self._write_flow(flow_id, self._live.pop(flow_id))
        for flow_id in sorted(self._parents - self._flows):
            self._write_object(f"flow:{flow_id}", "flow", [_at("status", "not exported", 0)], [])
        for name, (kind, text) in sorted(self._others.items()):
            self._write_object(name, kind, [_at("name" if kind == "definition" else "kind", text, 0)], [])
        self._out.write(b'],\n"objects":[')
        self._objects.seek(0)
        shutil.copyfileobj(self._objects, self._out)
        self._objects.close()
        self._out.write(b'],\n"objectTypes":')
        self._out.write(orjson.dumps([_type(name, found) for name, found in _OBJECTS.items()]))
        self._out.write(b',\n"eventTypes":')
        self._out.write(orjson.dumps([_type(kind, _EVENT_ATTRIBUTES) for kind in sorted(self._kinds)]))
        self._out.write(b"}\n")

    # -- objects ----------------------------------------------------------------------------------------------------

    def _begin(self, event: m.Event) -> _Live:
        definition = f"definition:{event.definition}"
        self._others[definition] = ("definition", event.definition)
        shown = [_at("definition_hash", event.definition_hash.hex(), event.time)]
        shown.append(_at("status", "live", event.time))
        return _Live(shown, [_to(definition, "run of")], set())

    def _started(self, flow: _Live, event: m.Event, body: m.FlowStarted) -> list[dict[str, str]]:
        """The parent, if there is one."""
        plain = orjson.dumps(members(body.input)).decode()
        flow.attributes.append(_at("input", plain, event.time))
        if body.parent is None:
            return []
        self._parents.add(body.parent.flow_id)
        parent = _to(f"flow:{body.parent.flow_id}", "sub-flow of")
        flow.relationships.append(parent)
        return [parent]

    def _task_run(self, flow: _Live, event: m.Event) -> str:
        found = f"run:{event.flow_id}:{event.task}:{event.run}"
        if found not in flow.runs:
            flow.runs.add(found)
            values = {"task": event.task, "run": event.run, "activity": activity(event)}
            shown = [_at(name, value, event.time) for name, value in values.items()]
            self._write_object(found, "task run", shown, [_to(f"flow:{event.flow_id}", "part of")])
        return found

    def _actor(self, actor: m.Actor) -> str:
        found = f"actor:{actor.kind}:{actor.id}"
        self._others[found] = ("actor", actor.kind)
        return found

    def _write_flow(self, flow_id: str, flow: _Live) -> None:
        self._flows.add(flow_id)
        self._write_object(f"flow:{flow_id}", "flow", flow.attributes, flow.relationships)

    def _write_object(
        self, name: str, kind: str, shown: list[dict[str, Any]], relationships: list[dict[str, str]]
    ) -> None:
        found = {"id": name, "type": kind, "attributes": shown, "relationships": relationships}
        self._write(self._objects, "objects", found)

    # -- events -----------------------------------------------------------------------------------------------------

    def _write_event(self, event: m.Event, relationships: list[dict[str, str]]) -> None:
        try:
            body = history.body_json(event.body).decode("utf-8", "replace")
        except Unstorable as problem:
            body = str(problem)
        shown = {
            "activity": activity(event),
            "transition": transition(event),
            **attributes(event),
            "body": body,
        }
        self._kinds[event.kind] = ""
        found = {
            "id": event.event_id,
            "type": event.kind,
            "time": timestamp(event.time),
            "attributes": [{"name": name, "value": value} for name, value in shown.items()],
            "relationships": relationships,
        }
        self._write(self._out, "events", found)

    def _write(self, out: Any, part: str, found: dict[str, Any]) -> None:
        out.write(self._separators[part] + orjson.dumps(found))
        self._separators[part] = b",\n"


def _at(name: str, value: Any, time: int) -> dict[str, Any]:
    return {"name": name, "time": timestamp(time), "value": value}


def _to(name: str, qualifier: str) -> dict[str, str]:
    return {"objectId": name, "qualifier": qualifier}


def _type(name: str, found: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "attributes": [{"name": n, "type": kind} for n, kind in found.items()]}
