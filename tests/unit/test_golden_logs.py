"""Logs written by released versions, kept for ever: each still folds, and deciding it again gives its very bytes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from engine.core.redecide import Stored, verify_flow
from engine.dsl.compile import compile_definition
from schemas import messages as m
from schemas.codec import decode_event

LOGS = sorted((Path(__file__).parent.parent / "golden").glob("event-*.jsonl"))


def test_there_is_a_golden_log_of_every_released_event_schema() -> None:
    from schemas.registry import released

    assert {path.stem for path in LOGS} == {f"event-v{s.version}" for s in released() if s.kind == "event"}


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_released_log_verifies(path: Path) -> None:
    head, *lines = map(json.loads, path.read_text().splitlines())
    definitions = {d["document"]["name"]: compile_definition(d) for d in head["definitions"]}
    flows: dict[str, list[Stored]] = defaultdict(list)
    for line in lines:
        value = bytes.fromhex(line["value"])
        flows[line["flow"]].append(Stored(decode_event(value), value))
    assert len(flows) >= 4
    ends = set()
    for log in flows.values():
        name = log[0].event.definition.split("/")[1].split("@")[0]
        state, differences = verify_flow(definitions[name], log)
        assert differences == []
        ends.add("live" if isinstance(state, m.LiveFlow) else state.status if state else "none")
    assert ends == {"live", "completed", "faulted", "cancelled"}
