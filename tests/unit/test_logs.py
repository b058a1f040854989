"""Other people's event logs, read as cases and told as a trail's pieces."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from flowtrail.errors import InputError
from flowtrail.logs import Mapping, import_log, pieces_of, read_cases
from flowtrail.logs.cases import microseconds
from flowtrail.logs.pieces import flow_id_of
from flowtrail.transport import Api

from tests.local_http import Answer, Request, as_json, local_http

XES = """<?xml version="1.0" encoding="UTF-8"?>
<log xmlns="http://www.xes-standard.org/">
  <extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
  <trace>
    <string key="concept:name" value="Case 1"/><int key="amount" value="7"/>
    <event><string key="concept:name" value="work"/><string key="lifecycle:transition" value="start"/>
      <date key="time:timestamp" value="2020-01-01T10:00:00.000+01:00"/></event>
    <event><string key="concept:name" value="note"/><date key="time:timestamp" value="2020-01-01T09:30:00Z"/></event>
    <event><string key="concept:name" value="work"/><string key="lifecycle:transition" value="complete"/>
      <date key="time:timestamp" value="2020-01-01T10:00:00Z"/><boolean key="ok" value="true"/></event>
    <event><string key="concept:name" value="rest"/><string key="lifecycle:transition" value="start"/>
      <date key="time:timestamp" value="2020-01-01T10:05:00Z"/></event>
  </trace>
  <trace><string key="concept:name" value="empty"/></trace>
</log>
"""
OCEL = {
    "objectTypes": [],
    "eventTypes": [],
    "objects": [
        {"id": "o1", "type": "order", "attributes": [
            {"name": "total", "time": "2020-01-02T00:00:00Z", "value": 2},
            {"name": "total", "time": "2020-01-01T00:00:00Z", "value": 1}]},
        {"id": "o2", "type": "order"},
        {"id": "i1", "type": "item"},
    ],
    "events": [
        {"id": "e2", "type": "ship", "time": "2020-01-03T00:00:00Z",
         "relationships": [{"objectId": "o1", "qualifier": ""}, {"objectId": "o2", "qualifier": ""}]},
        {"id": "e1", "type": "pick", "time": "2020-01-02T00:00:00Z", "attributes": [{"name": "by", "value": "ada"}],
         "relationships": [{"objectId": "o1", "qualifier": ""}, {"objectId": "i1", "qualifier": ""}]},
    ],
}  # fmt: skip
CSV = "case,activity,time,ended,who\nb,one,2020-01-01T00:00:01Z,2020-01-01T00:00:03Z,ada\na,one,2020-01-01 00:00:00,,\nb,zero,2020-01-01T00:00:00Z,,\n"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, Any], Path]:
    def write(name: str, content: Any) -> Path:
        place = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        place.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return place

    return write


def test_a_trace_is_a_case_and_a_start_with_its_complete_one_entry(file: Callable[[str, Any], Path]) -> None:
    for name in ("log.xes", "log.xes.gz"):
        case, empty = read_cases(file(name, XES))
        assert (case.id, case.attributes, empty.entries) == ("Case 1", {"amount": 7}, [])
        work, note, rest = case.entries
        assert (work.activity, work.ended) == ("work", work.time + 3_600_000_000)
        assert work.attributes["ok"] is True
        assert (note.activity, note.ended, note.is_open) == ("note", None, False)
        assert rest.is_open


def test_objects_of_one_type_are_cases(file: Callable[[str, Any], Path]) -> None:
    place = file("log.json", json.dumps(OCEL))
    first, second = read_cases(place, object_type="order")
    assert first.attributes == {"total": 2}
    assert [entry.activity for entry in first.entries] == ["pick", "ship"]
    assert first.entries[0].attributes == {"by": "ada", "item": ["i1"], "event": "e1"}
    assert [entry.activity for entry in second.entries] == ["ship"]
    with pytest.raises(InputError, match=r"one of item \(1\), order \(2\), but found None"):
        list(read_cases(place))


def test_rows_are_entries_in_the_order_of_time(file: Callable[[str, Any], Path]) -> None:
    b, a = read_cases(file("log.csv", CSV), mapping=Mapping(ended="ended"))
    assert [(entry.activity, entry.attributes) for entry in b.entries] == [
        ("zero", {}),
        ("one", {"who": "ada"}),
    ]
    assert b.entries[1].ended == b.entries[1].time + 2_000_000
    assert (a.id, a.entries[0].time) == ("a", microseconds("2020-01-01T00:00:00+00:00", ""))
    lines = '{"id":"x","what":"one","at":"2020-01-01T00:00:00Z","n":1}\n\n{"id":"x","what":"two","at":"2020-01-01"}\n'
    [case] = read_cases(file("log.jsonl", lines), mapping=Mapping(case="id", activity="what", time="at"))
    assert [entry.attributes for entry in case.entries] == [{"n": 1}, {}]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("log.xes", "<log><trace></log>", "well-formed XML"),
        ("log.xes", "<html/>", "its root is <html>"),
        ("log.xes", "<log><trace><event/></trace></log>", "Expected concept:name in every event"),
        ("log.xes", XES.replace('value="7"', 'value="x"'), "amount to be a int but found 'x' in trace 1"),
        (
            "log.xes.gz",
            b"\x1f\x8bnothing",
            "Expected well-formed|Expected a whole gzip|Expected an event log",
        ),
        ("log.json", "{", "Expected JSON in"),
        ("log.json", "{}", "Expected an OCEL 2.0 log"),
        ("log.csv", "a,b\n1,2\n", "Expected a column for the case"),
        ("log.csv", "case,activity,time\n1,x,yesterday\n", "found 'yesterday' in line 2"),
        ("log.csv", "case,activity,time\n1,,2020-01-01\n", "Expected a case, an activity and a time"),
        ("log.csv", b"case,activity,time\n\xff,x,2020-01-01\n", "Expected UTF-8"),
        ("log.jsonl", "[]\n", "Expected an object"),
        ("log.txt", "", "Expected a format, one of xes"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(
    file: Callable[[str, Any], Path], name: str, content: Any, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        list(read_cases(file(name, content)))


def test_a_case_is_told_as_a_recorder_would(file: Callable[[str, Any], Path]) -> None:
    case, _ = read_cases(file("log.xes", XES))
    pieces = list(pieces_of(case, "permits"))
    assert [piece["number"] for piece in pieces] == list(range(1, len(pieces) + 1))
    assert [piece["kind"] for piece in pieces] == [
        "flow-started", "step-started", "step-ended", "step-started", "step-ended", "step-started", "flow-ended",
    ]  # fmt: skip
    assert pieces[0]["attributes"] == {"amount": 7, "case": "Case 1"}
    assert {piece["flow"] for piece in pieces} == {flow_id_of("Case 1")}
    assert flow_id_of("Case 1").startswith("Case-1-")
    assert flow_id_of("case-10", "permit.") == "permit.case-10"


def test_a_log_is_sent_once_in_batches_and_goes_on_where_it_was_cut(
    file: Callable[[str, Any], Path], tmp_path: Path
) -> None:
    rows = "".join(
        f"{number // 3},step {number % 3},2020-01-01T00:00:{number % 60:02d}Z\n" for number in range(1800)
    )
    place = file("orders.csv", "case,activity,time\n" + rows)
    got: list[dict[str, Any]] = []
    broken = {"after": 2}

    def answer(request: Request) -> Answer:
        if len(got) == broken["after"]:
            return as_json({"type": "about:blank", "title": "no", "status": 409}, 409)
        body = orjson.loads(gzip.decompress(request.body))
        got.append(body)
        return as_json({"accepted": len(body["pieces"]), "duplicates": 0}, 202)

    with local_http(answer) as server, Api(server.url, "k", retry_s=0) as api:
        with pytest.raises(Exception, match="no"):
            import_log(api, place, state=tmp_path / "state")
        broken["after"] = -1
        imported = import_log(api, place, state=tmp_path / "state")
        assert (imported.flows, imported.events) == (600, 1800)
        sent = [(piece["flow"], piece["number"]) for body in got for piece in body["pieces"]]
        assert len(sent) == len(set(sent)) == 600 * 8
        assert all(len(body["pieces"]) <= 1000 for body in got)
        assert len({body["producer"] for body in got}) == 1
        again = import_log(api, place, state=tmp_path / "state")
        assert (again.sent, again.flows, again.events) == (0, 600, 1800)
