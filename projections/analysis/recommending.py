"""What to do about a process, with the evidence: rules over the answers of asks.py. Pure.

A recommendation names what it rests on, in numbers that the other answers show as well. Thresholds are constants here, so that
everyone can see what they are; a rule says nothing on fewer than `LEAST` runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from projections.analysis.asks import Cases, Queue, Rework, StepTimes
from projections.analysis.histogram import Histogram

LEAST: Final = 30
WAITING_SHARE: Final = 0.3
BUSY: Final = 0.8
IDLE: Final = 0.3
FAILED_SHARE: Final = 0.05
REWORK_SHARE: Final = 0.2
SLOWER: Final = 1.25


class Recommendation(msgspec.Struct):
    """`kind`: concurrency, waiting, failing, rework, slower. `share` orders them: how much of the flows' time, or how many."""

    kind: str
    subject: str
    text: str
    share: float
    evidence: dict[str, Any]


def recommend(
    steps: Sequence[StepTimes],
    queues: Sequence[Queue],
    rework: Sequence[Rework],
    now: Cases,
    before: Cases | None = None,
) -> list[Recommendation]:
    """The weightiest first."""
    found: list[Recommendation] = [
        *_waits(steps, queues),
        *_failing(steps),
        *_rework(rework),
        *_slower(now, before),
    ]
    return sorted(found, key=lambda one: (-one.share, one.kind, one.subject))


def _waits(steps: Sequence[StepTimes], queues: Sequence[Queue]) -> Iterator[Recommendation]:
    total = sum(one.waiting.total + one.working.total for one in steps)
    of_step = {step: queue for queue in queues for step in queue.steps}
    for one in steps:
        share = one.waiting.total / total if total else 0.0
        if share < WAITING_SHARE or one.count < LEAST:
            continue
        waits = f"step {one.step} waits {share:.0%} of all flow time"
        evidence: dict[str, Any] = {
            "runs": one.count,
            "waiting_p95_s": round(one.waiting.percentile(0.95), 3),
        }
        queue = of_step.get(one.step)
        if queue is None:
            text = f"{waits}: nobody works at it then; look at what it waits for"
            yield Recommendation("waiting", one.step, text, share, evidence)
            continue
        evidence |= {"queue": queue.queue, "workers": queue.workers, "busy": queue.busy}
        waits += f" for queue {queue.queue}, whose {queue.workers} workers are busy {queue.busy:.0%}"
        if queue.busy >= BUSY:
            text = f"{waits}: raise their number or concurrency from {queue.workers}"
            yield Recommendation("concurrency", one.step, text, share, evidence)
        elif queue.busy <= IDLE:
            text = f"{waits}: it is not load; look at limits, priorities, and whether workers are there all the time"
            yield Recommendation("waiting", one.step, text, share, evidence)
        else:
            text = f"{waits}: work comes in bursts; more workers help only then"
            yield Recommendation("waiting", one.step, text, share, evidence)


def _failing(steps: Iterable[StepTimes]) -> Iterator[Recommendation]:
    for one in steps:
        share = one.failed / one.count if one.count else 0.0
        if share >= FAILED_SHARE and one.count >= LEAST:
            text = f"step {one.step} fails in {share:.0%} of its {one.count} runs: catch it, or mend what it calls"
            yield Recommendation("failing", one.step, text, share, {"runs": one.count, "failed": one.failed})


def _rework(rework: Iterable[Rework]) -> Iterator[Recommendation]:
    for one in rework:
        share = one.repeated / one.cases if one.cases else 0.0
        if share >= REWORK_SHARE and one.cases >= LEAST:
            text = f"step {one.step} is done again in {share:.0%} of the flows that have it, up to {one.most} times"
            evidence = {"flows": one.cases, "repeated": one.repeated, "again": one.again, "most": one.most}
            yield Recommendation("rework", one.step, text, share, evidence)


def _slower(now: Cases, before: Cases | None) -> Iterator[Recommendation]:
    if before is None or min(now.ended, before.ended) < LEAST or not now.p95 or not before.p95:
        return
    times = now.p95 / before.p95
    if times >= SLOWER:
        text = f"flows take {times:.2f} times as long (p95) as in the period before"
        evidence = {"p95_s": now.p95, "before_p95_s": before.p95, "flows": now.ended, "before": before.ended}
        yield Recommendation("slower", "flows", text, 1 - 1 / times, evidence)


def together(histograms: Iterable[Histogram]) -> Histogram:
    """All of them as one."""
    found = Histogram({})
    for histogram in histograms:
        found = found.merged(histogram)
    return found
