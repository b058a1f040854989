"""The demo's reader of event logs, its independent count, and the generator that stands in for the real log."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest
from flowtrail import InputError

from examples.permit.expected import branch_of, count_branches
from examples.permit.generate import write_log
from examples.permit.xes import read_cases

TRACE = """
<trace>
  <date key="startdate" value="2011-10-11T13:42:22.688+02:00"/>
  <string key="responsible" value="Resource21"/>
  <date key="enddate_planned" value="2011-12-06T13:41:31.788+01:00"/>
  <string key="department" value="General"/>
  <string key="concept:name" value="case-1"/>
  <date key="deadline" value="2011-12-06T13:41:31.788+01:00"/>
  <string key="channel" value="Internet"/>
  <event><string key="concept:name" value="Confirmation of receipt"><string key="channel" value="nested"/></string></event>
  <event><string key="org:resource" value="R"/><string key="concept:name" value="T02"/></event>
</trace>"""
LOG = f'<log xmlns="http://www.xes-standard.org/"><string key="channel" value="outside"/>{TRACE}</log>'


def written(folder: Path, text: str | bytes, name: str = "log.xes") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(read_cases(path))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_trace_becomes_one_input_with_times_in_utc(tmp_path: Path) -> None:
    assert list(read_cases(written(tmp_path, LOG))) == [
        {
            "case": "case-1",
            "responsible": "Resource21",
            "department": "General",
            "group": None,
            "channel": "Internet",
            "startdate": "2011-10-11T11:42:22.688Z",
            "deadline": "2011-12-06T12:41:31.788Z",
            "enddate_planned": "2011-12-06T12:41:31.788Z",
            "enddate": None,
            "events": 2,
            "first_activity": "Confirmation of receipt",
            "last_activity": "T02",
        }
    ]


def test_gzip_is_recognised_by_its_content_not_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(LOG.encode()), "log.data")
    assert len(list(read_cases(path))) == 1
    assert count_branches(path) == {"pending": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Expected well-formed XML in"),
        (LOG[:-20], "unclosed token at line 11, column 88"),
        ("<html></html>", "its root is <html>"),
        ("<log></log>", "Expected at least one trace in"),
        (LOG.replace("channel", "canal"), "Expected attribute channel but it is missing in case-1, trace 1 of"),
        (LOG.replace('"General"', '""'), "Expected attribute department but it is empty in case-1, trace 1 of"),
        (LOG.replace("2011-10-11T13:42:22.688+02:00", "yesterday"), "found 'yesterday' in case-1, trace 1"),
        (LOG.replace("2011-10-11T13:42:22.688+02:00", "2011-10-11T13:42:22"), "a time with its zone"),
        (LOG.replace("2011-10-11T13:42:22.688+02:00", "0001-01-01T00:00:00+10:00"), "a time with its zone"),
        (LOG.replace("case-1", "case 1"), "found 'case 1'"),
        (LOG.replace("<event>", "<other>").replace("</event>", "</other>"), "at least one event"),
        (LOG.replace('<string key="concept:name" value="T02"/>', ""), "Expected concept:name in every event"),
        (LOG.replace("</log>", f"{TRACE}</log>"), "Expected every case once"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(written(tmp_path, text))


def test_a_gzip_file_cut_short_or_damaged_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(LOG.encode())
    assert "Expected a whole gzip file" in refusal(written(tmp_path, whole[:-30]))
    damaged = whole[:40] + b"\xff\xff\xff\xff" + whole[44:]
    assert refusal(written(tmp_path, damaged)).startswith("Expected")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.xes")
    assert "Expected an event log" in refusal(tmp_path)


def test_entities_that_would_grow_without_end_are_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE log [<!ENTITY e0 "{"x" * 1000}">{entities}]><log>&e11;</log>'
    assert "Expected well-formed XML" in refusal(written(tmp_path, bomb))


def test_reading_keeps_one_trace_in_memory_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log.xes.gz"
    write_log(path, 4000)
    tracemalloc.start()
    count = sum(1 for _ in read_cases(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000
    assert peak < 4 * 2**20


def test_the_generated_log_is_the_same_each_time_and_looks_like_the_real_one(tmp_path: Path) -> None:
    first, second = tmp_path / "a.gz", tmp_path / "b.gz"
    write_log(first)
    write_log(second)
    assert first.read_bytes() == second.read_bytes()
    cases = list(read_cases(first))
    assert len(cases) == 1434
    counts = count_branches(first)
    assert set(counts) == {"regular", "overdue", "counter", "pending", "specialist"}
    assert 700 < counts["regular"] < 900
    assert sum(counts.values()) == 1434


def test_another_seed_gives_another_log(tmp_path: Path) -> None:
    write_log(tmp_path / "a", 10, seed=1)
    write_log(tmp_path / "b", 10, seed=2)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_the_real_log_has_the_branches_counted_by_hand(shared: Path) -> None:
    path = shared / "data/receipt.xes.gz"
    assert count_branches(path) == {
        "regular": 801,
        "overdue": 308,
        "counter": 179,
        "pending": 102,
        "specialist": 44,
    }
    assert sum(1 for _ in read_cases(path)) == 1434


def test_lateness_is_judged_by_moments_not_by_how_they_are_written() -> None:
    case = {"department": "General", "channel": "Internet", "deadline": "2011-10-30T02:30:00+02:00"}
    assert branch_of(case | {"enddate": "2011-10-30T02:10:00+01:00"}) == "overdue"
    assert branch_of(case | {"enddate": "2011-10-30T02:30:00+02:00"}) == "regular"
