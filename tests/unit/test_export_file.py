"""The file of a raw export: both forms hold the same, and what was cut, changed or is something else is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, get_args

import fastavro
import orjson
import pytest

from engine.errors import InputError
from replay.export import kept, parse_format, schema_text
from replay.exported import Entry, ExportWriter, Head, Kept, SchemaText, Tail, read_export
from replay.files import partial, whole_file
from replay.imports import check
from replay.selection import Selection, parse_selection
from schemas import messages as m
from schemas.codec import encode_definition
from schemas.registry import newest
from tests.unit.export_records import messages
from tests.unit.replay_logs import ORDER, order, records, rejection, with_body

Form = Literal["jsonl", "avro"]
FORMS = get_args(Form)
HEAD = Head(1, "flowtrail.events", 4, {"0": (0, 9)}, {"flow": "f-1"}, "2026-01-01T00:00:00Z")


def definition_record(hashed: bytes = ORDER.hash, content: object = ORDER.document) -> Kept:
    document = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    published = m.PublishedDefinition(ORDER.id, hashed, document, "", "application/yaml", 1, "test")
    headers = (("schema", newest("definition").fingerprint),)
    return Kept("definitions", 0, 0, 1, ORDER.id.encode(), encode_definition(published), headers)


def entries_of(*flows: str) -> list[SchemaText | Kept]:
    found = [kept("events", message) for flow in flows for message in messages(records(order(flow)))]
    found += [kept("events", message) for message in messages([rejection(flows[0])])]
    return [schema_text(newest("event")), *found, definition_record()]


def written(path: Path, entries: list[SchemaText | Kept], form: Form = "jsonl") -> Tail:
    with path.open("wb") as out:
        writer = ExportWriter(out, form, HEAD)
        for entry in entries:
            writer.write(entry)
        return writer.finish()


def read(path: Path) -> list[Entry]:
    return [entry for _, entry in read_export(path)]


def test_both_forms_hold_the_same_entries_and_give_the_same_digest(tmp_path: Path) -> None:
    entries = entries_of("f-1", "f-2")
    entries.append(Kept("events", 3, 7, -1, None, None, (("empty", None), ("b", b"\xff\0"))))
    tails = {form: written(tmp_path / form, entries, form) for form in FORMS}
    assert tails["jsonl"] == tails["avro"]
    assert read(tmp_path / "jsonl") == read(tmp_path / "avro") == [HEAD, *entries, tails["avro"]]
    assert (tails["avro"].records, tails["avro"].definitions) == (18, 1)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "cut"
    written(path, entries_of("f-1"), form)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="Expected"):
            read(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_byte_of_an_entry_is_found(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "changed"
    entries = entries_of("f-1")
    tail = written(path, entries, form)
    other = [schema_text(newest("rejection")), *entries[1:]]
    with path.open("wb") as out:
        writer = ExportWriter(out, form, HEAD)
        for entry in other:
            writer.write(entry)
        writer._form.write(tail, b'{"entry":"end"}' if form == "avro" else _line(tail))
        writer._form.finish()
    with pytest.raises(InputError, match=r"SHA-256 .* but it was changed"):
        read(path)


def _line(tail: Tail) -> bytes:
    import msgspec

    return msgspec.json.encode(tail)


def test_what_is_no_export_is_refused_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("do: [{a: {set: {x: 1}}}]\n")
    with pytest.raises(InputError, match="Expected an export of Flowtrail"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="its end is missing"):
        read(path)
    with path.open("wb") as out:
        fastavro.writer(out, {"type": "record", "name": "R", "fields": []}, [{}])
    with pytest.raises(InputError, match=r"its metadata lack flowtrail\.export"):
        read(path)
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "absent")
    written(path, entries_of("f-1"))
    path.write_bytes(path.read_bytes() + path.read_bytes())
    with pytest.raises(InputError, match="Expected the export to end but line"):
        read(path)


def test_a_whole_export_is_checked_flow_by_flow(tmp_path: Path) -> None:
    path = tmp_path / "file"
    written(path, entries_of("f-1", "f-2"))
    found = check(path)
    assert {name: (flow.sequence, flow.ended) for name, flow in found.flows.items()} == {
        "f-1": (8, True),
        "f-2": (8, True),
    }
    assert (set(found.definitions), found.scheduled) == ({ORDER.id}, [])


def test_an_export_whose_records_are_no_history_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    right = entries_of("f-1")

    def refused(entries: list[SchemaText | Kept], words: str) -> None:
        written(path, entries)
        with pytest.raises(InputError, match=words):
            check(path)

    refused([*right[:3], *right[4:]], r"Expected event 3 of f-1 but line 5 of .* is event 4")
    altered = with_body(order("f-1"), 3, m.TaskCompleted(output=b"{}"))
    one = right[3]
    assert isinstance(one, Kept)
    changed = Kept(one.topic, one.partition, one.offset, one.time, one.key, altered, one.headers)
    refused([*right[:3], changed, *right[4:]], "Expected event 4 of f-1 to continue the chain of hashes")
    garbage = Kept(one.topic, one.partition, one.offset, one.time, one.key, b"\0\1", one.headers)
    refused([*right[:3], garbage], "is unreadable")
    refused([Kept("events", 0, 0, 0, b"f-2", one.value, one.headers)], "Expected the key to be the flow's id")
    refused([Kept("events", 0, 0, 0, b"f-1", None, ())], "has no value")
    refused([definition_record(b"\0" * 32)], "to have the hash its record names")
    refused(
        [SchemaText("event", 9, "00" * 8, "{}")], "a schema this version knows but line 2 of .* version 9"
    )


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(ZeroDivisionError):
        _break_off(path)
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as out:
        out.write(b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(InputError, match="is a folder"), whole_file(tmp_path):
        pass
    with pytest.raises(InputError, match="Expected to write"), whole_file(tmp_path / "no" / "file"):
        pass


def _break_off(path: Path) -> None:
    with whole_file(path) as out:
        out.write(b"half")
        assert partial(path).exists()
        raise ZeroDivisionError


def test_a_selection_is_one_flow_or_all_or_a_range_of_times() -> None:
    assert parse_selection("f-1", False, None, None) == Selection(flow_id="f-1")
    assert parse_selection(None, True, None, None) == Selection()
    found = parse_selection(None, False, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert found.since is not None
    assert found.until is not None
    assert (found.includes(found.since), found.includes(found.until)) == (True, False)
    for given, words in (
        ((None, False, None, None), "but found none"),
        (("f-1", True, None, None), "but found --flow and --all"),
        (("f 1", False, None, None), "Expected a flow id"),
        ((None, False, "12", None), "Expected --since to be a time but found the sequence number 12"),
        ((None, False, "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"), "Expected --since to be before"),
    ):
        with pytest.raises(InputError, match=words):
            parse_selection(*given)


def test_a_format_is_given_or_follows_from_the_file_s_name() -> None:
    assert parse_format(None, Path("a/b.AVRO")) == "avro"
    assert parse_format("ocel", Path("b.json")) == "ocel"
    with pytest.raises(
        InputError, match=r"Expected --format to be one of jsonl, .* but found a file b\.json"
    ):
        parse_format(None, Path("b.json"))
    with pytest.raises(InputError, match="but found 'csv'"):
        parse_format("csv", Path("b.xes"))


def test_parquet_without_pyarrow_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from replay.parquet import pyarrow

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match="Expected pyarrow to be installed") as raised:
        pyarrow()
    assert raised.value.exit_code == 2


def test_a_table_of_events_and_rejections_reads_back(tmp_path: Path) -> None:
    from pyarrow import parquet as arrow

    from replay.parquet import Events
    from tests.unit.export_records import filled

    out = io.BytesIO()
    log = [*records(order("f-1")), rejection("f-1")]
    path = tmp_path / "t.parquet"
    path.write_bytes(filled(Events(out), out, log))
    rows = arrow.read_table(path).to_pylist()
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8, None]
    assert [row["value"] for row in rows] == [record.value for record in log]
