"""One run of a worker against Kafka: take, perform, report, commit.

At least once: a task's offset is committed only after the broker acknowledged its result, and only as part of an
unbroken run (offsets.py). All consumer calls happen in the thread that calls `serve`; functions run in the crew.
A revoked partition's running tasks still report (the engine takes one result for each task's run and attempt), but
their offsets are no longer ours to commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from flowtrail import metrics
from flowtrail.crew import Crew
from flowtrail.errors import CONFIGURATION, ApiError, FlowtrailError, Unreachable
from flowtrail.functions import Failure, Function, Outcome, TaskContext
from flowtrail.kafka import consumer_of, producer_of
from flowtrail.offsets import Offsets
from flowtrail.wire import Task, Unreadable, Wire

log: Final = logging.getLogger("flowtrail.worker")

_DRAIN_MAX: Final = 500
_POLL_S: Final = 0.1
_COMMIT_EVERY_S: Final = 0.2
_PAUSE_AFTER_S: Final = 0.2
_FLUSH_S: Final = 15.0
_BUFFER_LEAST: Final = 2000
_UNKNOWN: Final = "unknown"


class Job:
    """A task in hand and where it came from."""

    __slots__ = ("function", "offset", "offsets", "task")

    def __init__(self, task: Task, function: Function | None, offsets: Offsets, offset: int) -> None:
        self.task = task
        self.function = function
        self.offsets = offsets
        self.offset = offset

    @property
    def is_async(self) -> bool:
        return self.function is not None and self.function.is_async

    @property
    def dropped(self) -> bool:
        return self.offsets.dropped


class Session:
    """`topic` exists; `stop` ends `serve` gracefully."""

    def __init__(
        self,
        wire: Wire,
        queue: str,
        topic: str,
        functions: Mapping[str, Function],
        *,
        concurrency: int,
        instance: str | None,
        actor: str,
        stop: threading.Event,
    ) -> None:
        self._wire = wire
        self._queue = queue
        self._topic = topic
        self._functions = functions
        self._actor = actor
        self._stop = stop
        self._instance = instance
        self._buffer_max = max(_BUFFER_LEAST, 4 * concurrency)
        self._assigned: dict[int, Offsets] = {}
        self._highest: dict[int, int] = {}
        self._broken: str | None = None
        self._paused = False
        self._full_since: float | None = None
        self._commit_at = 0.0
        self._crew: Crew[Job] = Crew(concurrency, self._perform, self._perform_async)
        self._producer: Producer = producer_of(wire.kafka)
        self._consumer: Consumer = consumer_of(wire.kafka, f"flowtrail-worker-{queue}", instance, _on_commit)

    # -- the polling thread -------------------------------------------------------------------------------------

    def serve(self, grace_s: float) -> None:
        """Until `stop` is set. Raises FlowtrailError when results cannot be reported or the instance was taken over."""
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop.is_set() and self._broken is None:
                self._turn()
        finally:
            self._finish(grace_s)
        if self._broken is not None:
            raise FlowtrailError(self._broken)

    def _turn(self) -> None:
        waiting = self._make_room()
        first = self._consumer.poll(0 if waiting else _POLL_S)
        if first is not None:
            # consume(n, t) waits out t even when something arrived: poll for the first, then drain without waiting
            jobs = [job for m in (first, *self._consumer.consume(_DRAIN_MAX, 0)) if (job := self._job_of(m))]
            self._crew.submit(jobs)
        self._producer.poll(0)
        self._commit_what_is_over()
        metrics.IN_FLIGHT.labels(self._queue).set(self._crew.running)
        metrics.BUFFERED.labels(self._queue).set(self._in_hand())

    def _in_hand(self) -> int:
        return sum(map(len, self._assigned.values()))

    def _make_room(self) -> bool:
        """Waits a little while the buffer is full. True when it stays full: then the partitions are paused and polling
        goes on only to keep the membership alive. A pause throws away what was fetched, so it is not done at once."""
        began = time.monotonic()
        while self._in_hand() >= (self._buffer_max // 2 if self._paused else self._buffer_max):
            self._producer.poll(0.02)
            for offsets in self._assigned.values():
                offsets.advance()
            if self._paused or time.monotonic() - began > _PAUSE_AFTER_S:
                self._pause(True)
                return True
        self._pause(False)
        return False

    def _pause(self, pause: bool) -> None:
        if pause == self._paused:
            return
        here = [TopicPartition(self._topic, p) for p in self._assigned]
        try:
            (self._consumer.pause if pause else self._consumer.resume)(here)
            self._paused = pause
        except KafkaException as problem:  # a partition that was just revoked; the next turn knows better
            log.debug("pause=%s failed: %s", pause, problem)

    def _job_of(self, message: Message) -> Job | None:
        if (problem := message.error()) is not None:
            self._heed(problem)
            return None
        partition, offset = message.partition() or 0, message.offset() or 0
        offsets = self._assigned.get(partition)
        if offsets is None:
            return None  # revoked between fetch and here; its new owner gets it
        try:
            task = self._wire.read_task(message.value(), message.headers())  # type: ignore[arg-type]
        except (Unreadable, ApiError) as problem_text:
            offsets.take(offset)
            offsets.done(offset)
            metrics.UNREADABLE.labels(self._queue).inc()
            log.error("%s-%d offset %d passed over: %s", self._topic, partition, offset, problem_text)
            return None
        except Unreachable as away:
            self._broken = (
                f"Expected to learn the schema of {self._topic}-{partition} offset {offset} but {away}"
            )
            return None
        offsets.take(offset)
        if offset <= self._highest.get(partition, -1):
            metrics.REDELIVERED.labels(self._queue).inc()
        else:
            self._highest[partition] = offset
        return Job(task, self._functions.get(task.function), offsets, offset)

    def _heed(self, problem: KafkaError) -> None:
        if problem.fatal() or problem.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
            self._broken = f"Expected to be the only worker of queue {self._queue} named {self._instance} but {problem.str()}"
        elif problem.code() != KafkaError._PARTITION_EOF:
            log.warning("Kafka says: %s; trying on", problem.str())

    # -- rebalances ---------------------------------------------------------------------------------------------

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._assigned[tp.partition] = Offsets(tp.partition)
        if partitions:
            log.info("partitions %s taken over", sorted(tp.partition for tp in partitions))
        # librdkafka may remember a pause of an earlier assignment; start clean, the next turn pauses again if need be
        self._consumer.incremental_assign(partitions)
        self._paused = True
        self._pause(False)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._producer.poll(0)
        self._commit_what_is_over(now=True, only={tp.partition for tp in partitions})
        self._drop(partitions)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions)

    def _drop(self, partitions: list[TopicPartition]) -> None:
        given_up = []
        for tp in partitions:
            if (offsets := self._assigned.pop(tp.partition, None)) is not None:
                offsets.dropped = True
                given_up.append(tp.partition)
        if given_up:
            log.info("partitions %s given up", sorted(given_up))

    # -- committing ---------------------------------------------------------------------------------------------

    def _commit_what_is_over(self, now: bool = False, only: set[int] | None = None) -> None:
        if not now and time.monotonic() < self._commit_at:
            return
        self._commit_at = time.monotonic() + _COMMIT_EVERY_S
        ready: list[TopicPartition] = []
        for partition, offsets in self._assigned.items():
            if (only is None or partition in only) and (following := offsets.advance()) is not None:
                ready.append(TopicPartition(self._topic, partition, following))
                offsets.committed = following
        if not ready:
            return
        try:
            if now:
                self._consumer.commit(offsets=ready, asynchronous=False)
            else:
                self._consumer.commit(offsets=ready, asynchronous=True)
        except (KafkaException, RuntimeError) as problem:  # RuntimeError: the consumer is closed.
            # What was not committed is delivered again, never lost.
            log.warning("offsets not committed, their tasks may be delivered again: %s", problem)

    # -- the crew's threads -------------------------------------------------------------------------------------

    def _perform(self, job: Job) -> None:
        if (prepared := self._prepared(job)) is None:
            return
        function, arguments, context = prepared
        began = time.perf_counter()
        outcome = function.perform(arguments, context)
        self._over(job, outcome, time.perf_counter() - began)

    async def _perform_async(self, job: Job) -> None:
        if (prepared := self._prepared(job)) is None:
            return
        function, arguments, context = prepared
        began = time.perf_counter()
        outcome = await function.perform_async(arguments, context)
        self._over(job, outcome, time.perf_counter() - began)

    def _prepared(self, job: Job) -> tuple[Function, bytes, TaskContext] | None:
        """What to call and with what; None when the task cannot be performed, which is reported."""
        task = job.task
        if job.function is None:
            known = ", ".join(sorted(self._functions)) or "none"
            detail = f"Expected one of the functions of queue {self._queue}'s worker ({known}) but found {task.function}"
            self._over(job, Failure(CONFIGURATION, 400, "Unknown function", detail), 0.0)
            return None
        if task.arguments is None:
            detail = "Expected arguments within the record but they are kept in an object store"
            self._over(job, Failure(CONFIGURATION, 400, "Arguments not inline", detail), 0.0)
            return None
        context = TaskContext(
            task.flow_id,
            task.task,
            task.run,
            task.attempt,
            task.definition,
            self._queue,
            task.function,
            task.trace,
        )
        return job.function, task.arguments, context

    def _over(self, job: Job, outcome: Outcome, seconds: float) -> None:
        name = _UNKNOWN if job.function is None else job.function.name
        word = "failed" if isinstance(outcome, Failure) else "completed"
        metrics.observe(name, word, seconds)
        if isinstance(outcome, Failure):
            log.warning(
                "task %s of flow %s (%s) failed: %s: %s",
                job.task.task, job.task.flow_id, job.task.function, outcome.title, outcome.detail,
            )  # fmt: skip
        try:
            self._report(job, outcome)
        except Exception as problem:  # must not kill a thread; without a report the task is delivered again
            log.exception("outcome of task %s of flow %s not reported", job.task.task, job.task.flow_id)
            self._broken = f"Expected to report task {job.task.task} of flow {job.task.flow_id} but {problem}"

    def _report(self, job: Job, outcome: Outcome) -> None:
        written = self._wire.write_outcome(job.task, outcome, self._actor)
        while True:
            try:
                self._producer.produce(
                    self._wire.commands_topic,
                    written.value,
                    written.key,
                    headers=written.headers,
                    on_delivery=partial(self._acknowledged, job),
                )
                return
            except BufferError:  # Kafka takes less than we make: wait for acknowledgements
                self._producer.poll(0.05)

    def _acknowledged(self, job: Job, problem: KafkaError | None, _: Message) -> None:
        if problem is None:
            job.offsets.done(job.offset)
        else:
            self._broken = (
                f"Expected Kafka to take the outcome of task {job.task.task} of flow {job.task.flow_id} "
                f"but {problem.str()}"
            )

    # -- the end ------------------------------------------------------------------------------------------------

    def _finish(self, grace_s: float) -> None:
        """Starts nothing new, lets what runs end, reports, commits, leaves."""
        left = self._crew.drop_pending()
        log.info("stopping: %d running, %d left for the next worker", self._crew.running, left)
        end = time.monotonic() + grace_s
        while not self._crew.wait(0.02) and time.monotonic() < end:
            self._stay_a_member()
        if self._crew.running:
            log.warning(
                "%d tasks still run after %.0f s; they will be delivered again", self._crew.running, grace_s
            )
        if self._producer.flush(_FLUSH_S):
            log.warning(
                "%d outcomes not acknowledged; their tasks will be delivered again", len(self._producer)
            )
        self._commit_what_is_over(now=True)
        self._drop([TopicPartition(self._topic, p) for p in self._assigned])
        self._consumer.close()
        self._crew.close()
        metrics.IN_FLIGHT.labels(self._queue).set(0)
        metrics.BUFFERED.labels(self._queue).set(0)

    def _stay_a_member(self) -> None:
        """Rebalances go on while tasks end; whatever else is fetched stays uncommitted for the next worker."""
        here = [TopicPartition(self._topic, p) for p in self._assigned]
        try:
            self._consumer.pause(here)
            self._consumer.poll(0)
        except KafkaException as problem:
            log.debug("while stopping: %s", problem)
        self._producer.poll(0)


def _on_commit(problem: KafkaError | None, _: list[TopicPartition]) -> None:
    if problem is not None and problem.code() not in (KafkaError._NO_OFFSET,):
        log.warning("offsets not committed, their tasks may be delivered again: %s", problem.str())
