"""XES 2.0 (IEEE 1849) of the log's events: one trace a flow, one event an event, in order.

A trace is written when its flow ends, or at the end of the reading, so memory holds the events of the flows that live.
Characters that XML cannot hold become U+FFFD. Attribute names have no colon except those of the standard extensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Final
from xml.sax.saxutils import quoteattr  # writes only

from engine.runtime.records import timestamp
from projections import history
from projections.copying import Unstorable
from replay.activities import Value, activity, attributes, members, status_of, transition
from replay.export import Exported
from replay.selection import Taken
from schemas import messages as m

_ILLEGAL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD: Final = """<?xml version="1.0" encoding="UTF-8"?>
<log xes.version="2.0" xes.features="nested-attributes" xmlns="http://www.xes-standard.org/">
<extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
<extension name="Lifecycle" prefix="lifecycle" uri="http://www.xes-standard.org/lifecycle.xesext"/>
<extension name="Time" prefix="time" uri="http://www.xes-standard.org/time.xesext"/>
<extension name="Organizational" prefix="org" uri="http://www.xes-standard.org/org.xesext"/>
<global scope="trace"><string key="concept:name" value=""/></global>
<global scope="event">
<string key="concept:name" value=""/>
<string key="lifecycle:transition" value="unknown"/>
<string key="org:resource" value=""/>
<date key="time:timestamp" value="1970-01-01T00:00:00.000+00:00"/>
<string key="kind" value=""/>
</global>
<classifier name="Activity" keys="concept:name"/>
<classifier name="Activity and step" keys="concept:name lifecycle:transition"/>
<string key="lifecycle:model" value="standard"/>
"""
_INTEGER_MAX: Final = 2**63 - 1


class Xes:
    def __init__(self, out: IO[bytes], name: str) -> None:
        self._out = out
        self._open: dict[str, list[m.Event]] = {}
        self._out.write((_HEAD + _attribute("concept:name", name) + "\n").encode())

    def take(self, taken: Taken) -> None:
        event = taken.logged
        if not isinstance(event, m.Event):
            return
        self._open.setdefault(event.flow_id, []).append(event)
        if status_of(event) is not None:
            self._write(self._open.pop(event.flow_id))

    def finish(self, report: Exported) -> None:
        for flow_id in list(self._open):
            self._write(self._open.pop(flow_id))
        self._out.write(b"</log>\n")

    def _write(self, events: list[m.Event]) -> None:
        self._out.write(b"<trace>\n")
        for name, value in _trace(events):
            self._out.write((_attribute(name, value) + "\n").encode())
        for event in events:
            self._out.write(_event(event).encode())
        self._out.write(b"</trace>\n")


def _trace(events: list[m.Event]) -> Iterator[tuple[str, Value]]:
    first, last = events[0], events[-1]
    yield "concept:name", first.flow_id
    yield "definition", first.definition
    yield "definition_hash", first.definition_hash.hex()
    yield "status", status_of(last) or "live"
    started = next((event.body for event in events if isinstance(event.body, m.FlowStarted)), None)
    if started is None:
        return
    if started.parent is not None:
        yield "parent", started.parent.flow_id
    for name, value in members(started.input).items():
        yield f"input.{name}".replace(":", "."), value


def _event(event: m.Event) -> str:
    shown = attributes(event)
    del shown["actor"]
    try:
        body = history.body_json(event.body).decode("utf-8", "replace")
    except Unstorable as problem:
        body = str(problem)
    lines = [
        "<event>",
        _attribute("concept:name", activity(event)),
        _attribute("lifecycle:transition", transition(event)),
        f'<date key="time:timestamp" value="{timestamp(event.time)}"/>',
        _attribute("org:resource", event.actor.id or event.actor.kind),
        *(_attribute(name, value) for name, value in shown.items()),
        _attribute("body", body),
        "</event>\n",
    ]
    return "".join(lines)


def _attribute(name: str, value: Value) -> str:
    kind, text = "string", str(value)
    if isinstance(value, bool):
        kind, text = "boolean", text.lower()
    elif isinstance(value, int) and abs(value) <= _INTEGER_MAX:
        kind = "int"
    elif isinstance(value, float):
        kind = "float"
    return f"<{kind} key={_quoted(name)} value={_quoted(text)}/>"


def _quoted(text: str) -> str:
    return quoteattr(_ILLEGAL.sub("\ufffd", text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
