"""A cut of the log: every flow's state equals what rebuilding it alone gives, and what does not fold is named."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from engine.errors import InputError
from projections.logged import Logged, Record
from replay.flow import Log, rebuilt_at
from replay.moment import Moment
from replay.snapshot import Cut, document, fold, parse_cut
from schemas import messages as m
from schemas.codec import decode_event
from tests.unit.replay_logs import PARTITIONS, event, order, placed, records, rejection, with_body
from tests.unit.test_export_mining import mingled

FLOWS = {name: records(order(name, end=name != "f-2")) for name in ("f-1", "f-2", "f-3")}


def cut_of(log: Iterable[Record], at: Moment | None = None) -> tuple[dict[str, dict[str, object]], Cut]:
    cut = Cut(file="", format="jsonl", at=None, spans={})
    found = list(fold(iter(placed(log)), at, cut, PARTITIONS))
    assert len({one.live.flow_id for one in found}) == len(found)
    return {one.live.flow_id: document(one) for one in found}, cut


def alone(flow: list[Record], at: Moment | None) -> dict[str, object]:
    logged = [
        Logged(decode_event(r.value or b"", r.fingerprint), r.value or b"", r.partition, r.offset)
        for r in flow
    ]
    log = Log(
        flow_id=logged[0].event.flow_id,
        logged=logged,
        rejections=[],
        way="scan",
        why="",
        partition=logged[0].partition,
        records_read=0,
    )
    return document(rebuilt_at(log, at))


def test_every_flow_of_a_cut_is_as_it_is_when_rebuilt_alone() -> None:
    log = [*mingled(*FLOWS.values()), rejection("f-1")]
    times = sorted({decode_event(r.value or b"", r.fingerprint).time for r in FLOWS["f-1"]})
    for at in (None, *(Moment(time=time + extra) for time in times for extra in (0, 1))):
        found, cut = cut_of(log, at)
        assert cut.right
        assert found == {name: alone(flow, at) for name, flow in FLOWS.items()}
    assert cut_of(log, Moment(time=times[0] - 1)) == ({}, Cut(file="", format="jsonl", at=None, spans={}))


def test_what_does_not_fold_has_no_row_and_is_named() -> None:
    gap = records(order("gap"))
    del gap[3]
    altered = records(order("altered"))
    altered[2] = event(with_body(order("altered"), 3, m.TaskCompleted(output=b"{}")), "altered")
    astray = records(order("astray"))
    astray = [event(r.value or b"", "astray", (r.partition + 1) % PARTITIONS) for r in astray]
    damaged = [*FLOWS["f-2"], event(b"\0\1", "f-2")]
    found, cut = cut_of([*gap, *altered, *astray, *damaged, *FLOWS["f-1"]])
    assert set(found) == {"f-1", "f-2"}
    told = "\n".join(cut.problems)
    assert "gap: the chain of hashes breaks at event 5 (partition" in told
    assert "altered: " in told
    assert "astray: event 1 lies in partition" in told
    assert "f-2: partition" in told
    assert not cut.right


def test_a_cut_is_a_time_or_now() -> None:
    assert parse_cut("now") is None
    assert parse_cut("2026-01-01T00:00:00Z") == Moment(time=1_767_225_600_000_000)
    with pytest.raises(InputError, match="Expected --at to be a time or now but found the sequence number 7"):
        parse_cut("7")
