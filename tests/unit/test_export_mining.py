"""XES and OCEL: whole, well-formed, every event of every flow in it, every reference an object; pm4py loads them."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.core.redecide import Stored
from projections.logged import Record
from replay.activities import activity
from replay.ocel import Ocel
from replay.xes import Xes
from schemas import messages as m
from tests.flows import Run, definition
from tests.unit.export_records import filled
from tests.unit.replay_logs import event, order, records, rejection

NAMESPACE = "{http://www.xes-standard.org/}"
NESTED = definition(
    """
do:
- each:
    for: {each: one, in: .items}
    do:
    - pay: {set: {paid: "${ $one }"}}
- ask: {call: ask}
- sub: {run: {workflow: {namespace: test, name: order, version: '1.0.0', input: "${ . }"}}}
""",
    name="nested",
)


def nested(flow_id: str) -> list[Record]:
    run = Run(NESTED, flow_id)
    run.start({"items": [1, 2], "who": 'a<b>&"ü"\t\x08\uffff', "gold": True, "rate": 1.5, "deep": {"x": 1}})
    run.complete("/do/1/ask", {"ok": True})
    return [event(stored.value, run.flow_id) for stored in run.log]


def child(flow_id: str, parent: str) -> list[Record]:
    run = order(flow_id)
    first = run.log[0].event
    body = first.body
    assert isinstance(body, m.FlowStarted)
    from msgspec.structs import replace

    from schemas.codec import encode_event

    changed = replace(first, body=replace(body, parent=m.Parent(parent, "/do/2/sub", 1, True)))
    run.log[0] = Stored(changed, encode_event(changed))
    return [event(stored.value, run.flow_id) for stored in run.log]


def mingled(*flows: list[Record]) -> list[Record]:
    return [flow[n] for n in range(max(map(len, flows))) for flow in flows if n < len(flow)]


LOG = mingled(
    nested("n-1"), records(order("f-1")), records(order("f-2", end=False)), child("f-3", "elsewhere")
)
LOG.append(rejection("f-1"))


def xes() -> bytes:
    out = io.BytesIO()
    return filled(Xes(out, "flowtrail.events"), out, LOG)


def ocel() -> bytes:
    out = io.BytesIO()
    return filled(Ocel(out), out, LOG)


def values(element: ElementTree.Element) -> dict[str, str]:
    return {a.get("key", ""): a.get("value", "") for a in element if a.get("key") is not None}


def test_an_activity_is_named_as_a_person_reads_it() -> None:
    run = order("f-1")
    first = run.log[0].event
    from msgspec.structs import replace

    found = {
        task: activity(replace(first, task=task))
        for task in (
            "/do/1/charge",
            "/do/0/try/try/do/1/pay",
            "/do/0/par/fork/branches/1/b",
            "/do/1/charge/metadata/compensate",
            "/do/0/a~1b",
        )
    }
    assert list(found.values()) == ["charge", "try/pay", "par/b", "charge/compensate", "a/b"]
    assert activity(replace(first, task=None)) == "FlowStarted"


def test_xes_holds_one_trace_a_flow_and_one_event_an_event_in_order() -> None:
    root = ElementTree.fromstring(xes())
    assert root.tag == f"{NAMESPACE}log"
    assert {e.get("prefix") for e in root.iter(f"{NAMESPACE}extension")} == {
        "concept",
        "lifecycle",
        "time",
        "org",
    }
    traces = {values(t)["concept:name"]: t for t in root.iter(f"{NAMESPACE}trace")}
    assert set(traces) == {"n-1", "f-1", "f-2", "f-3"}
    for name, trace in traces.items():
        events = [values(e) for e in trace.iter(f"{NAMESPACE}event")]
        own = [record for record in LOG if record.key == name.encode() and record is not LOG[-1]]
        assert [int(e["sequence"]) for e in events] == list(range(1, len(own) + 1))
        times = [datetime.fromisoformat(e["time:timestamp"]) for e in events]
        assert times == sorted(times)
        assert all(e["concept:name"] and e["lifecycle:transition"] for e in events)
        assert all(isinstance(json.loads(e["body"]), dict) for e in events)
    shown = values(traces["n-1"])
    assert (shown["status"], shown["definition"]) == ("live", NESTED.id)
    assert shown["input.who"] == 'a<b>&"ü"\t\ufffd\ufffd'  # XML has no such characters
    kinds = {a.get("key"): a.tag.removeprefix(NAMESPACE) for a in traces["n-1"]}
    assert (kinds["input.gold"], kinds["input.rate"]) == ("boolean", "float")
    assert "input.deep" not in kinds
    assert values(traces["f-1"])["status"] == "completed"
    assert values(traces["f-3"])["parent"] == "elsewhere"


def test_ocel_references_only_what_it_holds_and_uses_only_declared_types() -> None:
    log = json.loads(ocel())
    assert set(log) == {"events", "objects", "objectTypes", "eventTypes"}
    objects = {o["id"]: o for o in log["objects"]}
    assert len(objects) == len(log["objects"])
    assert len({e["id"] for e in log["events"]}) == len(log["events"]) == len(LOG) - 1
    for part, types in (("objects", "objectTypes"), ("events", "eventTypes")):
        declared = {t["name"]: {a["name"] for a in t["attributes"]} for t in log[types]}
        for one in log[part]:
            assert {a["name"] for a in one["attributes"]} <= declared[one["type"]]
            assert {r["objectId"] for r in one["relationships"]} <= set(objects)
    events: list[dict[str, Any]] = [e for e in log["events"] if e["id"].startswith("f-1/")]
    assert [e["type"] for e in events[:2]] == ["FlowStarted", "TaskCompleted"]
    assert {r["objectId"] for r in events[1]["relationships"]} >= {"flow:f-1", "run:f-1:/do/0/prepare:1"}
    statuses = [a["value"] for a in objects["flow:f-1"]["attributes"] if a["name"] == "status"]
    assert statuses == ["live", "completed"]
    assert {"objectId": "flow:elsewhere", "qualifier": "sub-flow of"} in objects["flow:f-3"]["relationships"]
    assert [a["value"] for a in objects["flow:elsewhere"]["attributes"]] == ["not exported"]
    assert {r["objectId"] for e in log["events"] for r in e["relationships"]} == set(objects)


def test_pm4py_loads_both_and_finds_every_event(tmp_path: Path) -> None:
    import pm4py
    from pm4py.util import constants

    constants.SHOW_INTERNAL_WARNINGS = False
    (tmp_path / "log.xes").write_bytes(xes())
    (tmp_path / "log.json").write_bytes(ocel())
    frame = pm4py.convert_to_dataframe(pm4py.read_xes(str(tmp_path / "log.xes")))
    assert (len(frame), frame["case:concept:name"].nunique()) == (len(LOG) - 1, 4)
    log = pm4py.read_ocel2_json(str(tmp_path / "log.json"))
    assert len(log.events) == len(LOG) - 1
    assert set(log.objects["ocel:oid"]) == {o["id"] for o in json.loads(ocel())["objects"]}
    assert set(log.objects["ocel:type"]) == {"flow", "task run", "definition", "actor"}
    related = sum(len(e["relationships"]) for e in json.loads(ocel())["events"])
    assert len(log.relations) == related
    net = pm4py.discover_dfg(frame)
    assert ("charge", "ship") in net[0]
