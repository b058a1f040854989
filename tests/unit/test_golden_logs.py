"""Logs written by released versions, kept for ever: each still folds, and deciding it again gives its very bytes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from engine.core.redecide import Stored, verify_flow
from engine.dsl.compile import compile_definition
from projections import flows, history, tasks
from projections.logged import Logged
from schemas import messages as m
from schemas.codec import decode_event

LOGS = sorted((Path(__file__).parent.parent / "golden").glob("event-*.jsonl"))


def test_there_is_a_golden_log_of_every_released_event_schema() -> None:
    from schemas.registry import released

    assert {path.stem for path in LOGS} == {f"event-v{s.version}" for s in released() if s.kind == "event"}


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_released_log_verifies(path: Path) -> None:
    head, *lines = map(json.loads, path.read_text().splitlines())
    compiled = [compile_definition(document) for document in head["definitions"]]
    definitions = {definition.id: definition for definition in compiled}
    logs: dict[str, list[Stored]] = defaultdict(list)
    for line in lines:
        value = bytes.fromhex(line["value"])
        logs[line["flow"]].append(Stored(decode_event(value), value))
    assert len(logs) >= 4
    ends = set()
    for log in logs.values():
        state, differences = verify_flow(definitions.get, log)
        assert differences == []
        ends.add("live" if isinstance(state, m.LiveFlow) else state.status if state else "none")
    assert ends == {"live", "completed", "faulted", "cancelled"}


def test_rows_of_the_first_version_are_what_its_log_still_folds_to() -> None:
    """A read model that was migrated holds these lines with nothing in the columns that came later."""
    _, *lines = map(json.loads, (LOGS[0].parent / "event-v1.jsonl").read_text().splitlines())
    stored = json.loads((LOGS[0].parent / "rows-v1.json").read_text())
    flow_rows: dict[str, flows.FlowRow] = {}
    task_rows: dict[tasks.Key, tasks.TaskRow] = {}
    found: dict[str, list[str]] = {"history": []}
    for offset, line in enumerate(lines):
        value = bytes.fromhex(line["value"])
        event = decode_event(value)
        logged = Logged(event, value, 0, offset)
        found["history"].append(history.line(logged))
        flow_rows[event.flow_id] = flows.fold(flow_rows.get(event.flow_id), logged)
        for key in tasks.keys_of(event):
            task_rows[key] = tasks.fold(task_rows.get(key), logged, key)
    found["flows"] = [flows.line(row) for row in flow_rows.values()]
    found["tasks"] = [tasks.line(row) for row in task_rows.values()]
    assert found["history"] == stored["history"]
    for table in ("flows", "tasks"):
        for now, then in zip(found[table], stored[table], strict=True):
            old = then.rstrip("\n").split("\t")
            columns = now.rstrip("\n").split("\t")
            assert columns[: len(old)] == old
            assert set(columns[len(old) :]) == {"\\N"}
