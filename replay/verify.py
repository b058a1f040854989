"""`replay verify`: the whole log, or one flow, proved from Kafka alone, then compared with the read model.

The log is bounded by its ends at the start. For one flow every partition is read, skipping other keys: a record of it
that lies astray is found, and so is what an index would not name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import parent_process
from typing import Any

from engine.core.decide import FLOW_ID
from engine.errors import InputError
from engine.logs import configure
from engine.runtime.definitions import DefinitionLog, read_definitions
from engine.runtime.topics import DEFINITIONS, EVENTS, partition_of
from engine.tasks.sandbox import ProcessSandbox
from replay.findings import LogReport, ReadModelReport, Report, RowFinding
from replay.flow import read_flow
from replay.log import Span, Spans, read_spans, scan
from replay.processes import run, share
from replay.proof import Proof
from replay.readmodel import Comparison, Cut, Snapshot, answering, rows_without_flow, wait_for_projection

Progress = Callable[[int, int], None]
"""Told how many records were read, of how many offsets."""

Found = tuple[LogReport, ReadModelReport | None]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is verified and how, by `processes` at the most. `postgres` None: the read model is not compared."""

    kafka: str
    prefix: str
    postgres: str | None
    processes: int = 2
    records_per_process: int = 20_000  # fewer are read faster than a process starts
    grace_s: float = 10.0
    expression_deadline_ms: int = 1000
    expression_memory_bytes: int = 256 * 1024 * 1024
    log_level: str = "warning"

    @property
    def topic(self) -> str:
        return self.prefix + EVENTS


@dataclass
class PartitionJob:
    """Verifies whole partitions; made in one process, used in others.

    `due` was the log when the read model was asked; `spans` are what is read, up to ends seen after the snapshot, so
    that they hold everything folded there. Only ends of transactions bound them: a decision is never cut in two.
    """

    scope: Scope
    spans: dict[int, Span]
    due: dict[int, Span]
    cut: Cut | None
    _definitions: DefinitionLog | None = field(default=None, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_definitions": None}

    def verify(self, partition: int, passed: Callable[[int], None]) -> Found:
        if self._definitions is None:
            if parent_process() is not None:
                configure(self.scope.log_level, "replay")
            self._definitions = definitions_of(self.scope)
        with answering(), ExitStack() as stack:
            comparison = None
            if self.cut is not None:
                assert self.scope.postgres is not None
                due = self.due[partition][1]
                comparison = Comparison(self.scope.postgres, self.cut, partition, due)
                stack.callback(comparison.close)
            proof = Proof(self._definitions, len(self.spans), comparison)
            span = {partition: self.spans[partition]}
            for record in scan(self.scope.kafka, self.scope.topic, span, passed=passed):
                proof.take(record)
            proof.finish()
            report = proof.prove_claims(partial(read_flow, self.scope.kafka, self.scope.prefix))
            return report, None if comparison is None else comparison.finish(proof.different)


def definitions_of(scope: Scope) -> DefinitionLog:
    """Every definition published so far. Raises AwayError."""
    sandbox = ProcessSandbox(scope.expression_deadline_ms, scope.expression_memory_bytes)
    read_spans(scope.kafka, scope.prefix + DEFINITIONS)  # a missing topic is said, not taken for an empty one
    return read_definitions(scope.kafka, scope.prefix, sandbox)


def verify_all(scope: Scope, progress: Progress | None = None) -> Report:
    """Verifies the whole log, up to its ends as they are now."""
    began = time.monotonic()
    spans = due = read_spans(scope.kafka, scope.topic)
    passed = _counting(spans, progress)
    log, model = LogReport(), None if scope.postgres is None else ReadModelReport()
    with answering(), ExitStack() as stack:
        cut = None
        if scope.postgres is not None:
            wait_for_projection(scope.kafka, scope.postgres, scope.topic, spans, None, scope.grace_s)
            cut = stack.enter_context(Snapshot(scope.postgres, scope.topic)).cut
            due, spans = spans, read_spans(scope.kafka, scope.topic)
        sizes = {p: end - first for p, (first, end) in spans.items()}
        shares = share(sizes, min(scope.processes, sum(sizes.values()) // scope.records_per_process))
        for part, rows in run(PartitionJob(scope, spans, due, cut), shares, passed):
            log.merge(part)
            if model is not None and rows is not None:
                model.merge(rows)
    if scope.postgres is not None and model is not None and cut is not None:
        _add_strangers(scope.postgres, model, cut, len(spans))
    return _report(log, model, began, len(shares))


def verify_one(scope: Scope, flow_id: str, progress: Progress | None = None) -> Report:
    """Verifies one flow. Raises InputError when neither the log nor the read model has it."""
    if not FLOW_ID.fullmatch(flow_id):
        raise InputError(f"Expected a flow id matching {FLOW_ID.pattern} but found {flow_id[:200]!r}")
    began = time.monotonic()
    spans = read_spans(scope.kafka, scope.topic)
    home, key = partition_of(flow_id, len(spans)), flow_id.encode()
    passed = _counting(spans, progress)
    with answering(), ExitStack() as stack:
        comparison = None
        if scope.postgres is not None:
            own = {home: spans[home]}
            wait_for_projection(scope.kafka, scope.postgres, scope.topic, own, key, scope.grace_s)
            cut = stack.enter_context(Snapshot(scope.postgres, scope.topic)).cut
            due, spans = spans[home][1], read_spans(scope.kafka, scope.topic)
            comparison = Comparison(scope.postgres, cut, home, due, flow_id)
            stack.callback(comparison.close)
        proof = Proof(definitions_of(scope), len(spans), comparison)
        for record in scan(scope.kafka, scope.topic, spans, key=key, passed=passed):
            proof.take(record)
        proof.finish()
        log = proof.prove_claims(partial(read_flow, scope.kafka, scope.prefix))
        if comparison is not None and log.flows == 0:
            comparison.flow(flow_id, [])
        model = None if comparison is None else comparison.finish(proof.different)
    if not (log.flows or log.rejections or log.different or (model is not None and model.different)):
        raise InputError(f"Expected flow {flow_id} to be in the log but {scope.topic} has no record of it")
    return _report(log, model, began, 1)


def _counting(spans: Spans, progress: Progress | None) -> Callable[[int], None]:
    total, read = sum(end - first for first, end in spans.values()), 0

    def passed(records: int) -> None:
        nonlocal read
        read += records
        if progress is not None:
            progress(min(read, total), total)

    return passed


def _add_strangers(postgres: str, model: ReadModelReport, cut: Cut, partitions: int) -> None:
    """Rows that belong to no partition of the log, or to no flow."""
    for partition, rows in sorted(cut.flows.items()):
        if not 0 <= partition < partitions:
            text = f"Expected a partition below {partitions} but found {rows} rows"
            model.add(RowFinding("", "flows", f"partition {partition}", text))
    for finding in rows_without_flow(postgres):
        model.add(finding)


def _report(log: LogReport, model: ReadModelReport | None, began: float, processes: int) -> Report:
    seconds = time.monotonic() - began
    return Report(
        flows=log.flows,
        events=log.events,
        rejections=log.rejections,
        verified=log.verified,
        different_count=log.different_count,
        different=log.different,
        read_model=model,
        seconds=round(seconds, 3),
        events_per_second=round(log.events / seconds, 1),
        processes=processes,
    )
