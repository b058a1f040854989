"""One run of a worker against Kafka: take, perform, report, commit.

At least once: a task's offset is committed only after the broker acknowledged its result, and only as part of an
unbroken run (offsets.py). All consumer calls happen in the thread that calls `serve`; functions run in the crew.
A revoked partition's running tasks still report (the engine takes one result for each task's run and attempt), but
their offsets are no longer ours to commit. One consumer takes the queue's topics of all priorities; each has room of its
own in the buffer, so that a flood of low ones keeps no high one waiting in Kafka. A task that was cancelled, or that
somebody else completes (PENDING), or whose flow does not wait is over without a report.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from flowtrail import metrics
from flowtrail.cancellations import Cancellations
from flowtrail.crew import Crew
from flowtrail.errors import CONFIGURATION, PENDING, RUNTIME, ApiError, FlowtrailError, Pending, Unreachable
from flowtrail.functions import Failure, Function, Outcome, TaskContext
from flowtrail.heart import Heart
from flowtrail.journal import Journal
from flowtrail.kafka import consumer_of, producer_of
from flowtrail.offsets import Offsets
from flowtrail.performing import CurrentTask, enter, leave
from flowtrail.wire import Task, Unreadable, Wire

log: Final = logging.getLogger("flowtrail.worker")

_DRAIN_MAX: Final = 500
_POLL_S: Final = 0.1
_COMMIT_EVERY_S: Final = 0.2
_PAUSE_AFTER_S: Final = 0.2
_FLUSH_S: Final = 15.0
_BUFFER_LEAST: Final = 2000
_POLL_BESIDE_S: Final = 0.02
_UNKNOWN: Final = "unknown"
_ONLY_RANK: Final = 1

Place = tuple[str, int]
"""A topic and a partition of it."""


class Job:
    """A task in hand and where it came from."""

    __slots__ = ("function", "offset", "offsets", "rank", "task")

    def __init__(
        self, task: Task, function: Function | None, offsets: Offsets, offset: int, rank: int
    ) -> None:
        self.rank = rank
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
    """`topics` exist: the queue's only one, or those of high, normal and low priority. `stop` ends `serve` gracefully.

    A task that was begun `max_deliveries` times by processes that died of it is not begun again (0: always).
    """

    def __init__(
        self,
        wire: Wire,
        queue: str,
        topics: Sequence[str],
        functions: Mapping[str, Function],
        *,
        concurrency: int,
        instance: str | None,
        actor: str,
        stop: threading.Event,
        max_deliveries: int = 3,
    ) -> None:
        self._wire = wire
        self._queue = queue
        self._ranks = (
            {topic: rank for rank, topic in enumerate(topics)} if len(topics) > 1 else {topics[0]: _ONLY_RANK}
        )
        self._functions = functions
        self._actor = actor
        self._stop = stop
        self._instance = instance
        self._buffer_max = max(_BUFFER_LEAST, 4 * concurrency)
        self._assigned: dict[Place, Offsets] = {}
        self._highest: dict[Place, int] = {}
        self._broken: str | None = None
        self._paused: frozenset[str] = frozenset()
        self._max_deliveries = max_deliveries
        self._journal = Journal(queue) if max_deliveries else None
        self._heart = Heart(self._beat)
        self._cancellations = Cancellations(
            wire, queue, lambda c: self._heart.cancel((c.flow_id, c.task, c.run, c.attempt))
        )
        self._commit_at = 0.0
        self._crew: Crew[Job] = Crew(concurrency, self._perform, self._perform_async)
        self._producer: Producer = producer_of(wire.kafka)
        self._consumer: Consumer = consumer_of(wire.kafka, f"flowtrail-worker-{queue}", instance, _on_commit)

    # -- the polling thread -------------------------------------------------------------------------------------

    def serve(self, grace_s: float) -> None:
        """Until `stop` is set. Raises FlowtrailError when results cannot be reported or the instance was taken over."""
        try:
            self._heart.start()
            self._cancellations.start()
            self._consumer.subscribe(
                list(self._ranks), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop.is_set() and self._broken is None:
                self._turn()
        finally:
            self._finish(grace_s)
        if self._broken is not None:
            raise FlowtrailError(self._broken)

    def _turn(self) -> None:
        wait_s = self._make_room()
        first = self._consumer.poll(wait_s)
        if first is not None:
            # consume(n, t) waits out t even when something arrived: poll for the first, then drain without waiting
            jobs = [job for m in (first, *self._consumer.consume(_DRAIN_MAX, 0)) if (job := self._job_of(m))]
            self._crew.submit(jobs)
        self._producer.poll(0)
        self._commit_what_is_over()
        metrics.IN_FLIGHT.labels(self._queue).set(self._crew.running)
        metrics.BUFFERED.labels(self._queue).set(sum(map(len, self._assigned.values())))

    def _full(self) -> frozenset[str]:
        """Topics that have as many tasks in hand as there is room for; a paused one until half of that is free."""
        in_hand = dict.fromkeys(self._ranks, 0)
        for (topic, _), offsets in self._assigned.items():
            in_hand[topic] += len(offsets)
        return frozenset(
            topic
            for topic, count in in_hand.items()
            if count >= (self._buffer_max // 2 if topic in self._paused else self._buffer_max)
        )

    def _make_room(self) -> float:
        """How long to poll. Waits a little while a topic's room is full; when it stays full the topic is paused and
        polling goes on for the others and to keep the membership alive. A pause throws away what was fetched, so it is
        not done at once."""
        began = time.monotonic()
        while full := self._full():
            if full <= self._paused or time.monotonic() - began > _PAUSE_AFTER_S:
                self._pause(full)
                break
            self._advance(0.02)
        else:
            self._pause(full)
            return _POLL_S
        everything = len(full) == len(self._ranks)
        self._advance(0.02 if everything else 0)
        return 0 if everything else _POLL_BESIDE_S

    def _advance(self, wait_s: float) -> None:
        self._producer.poll(wait_s)
        for offsets in self._assigned.values():
            offsets.advance()

    def _pause(self, topics: frozenset[str]) -> None:
        """Exactly `topics` are paused from here on."""
        if topics == self._paused:
            return
        try:
            self._consumer.pause(self._places(topics - self._paused))
            self._consumer.resume(self._places(self._paused - topics))
            self._paused = topics
        except KafkaException as problem:  # a partition that was just revoked; the next turn knows better
            log.debug("pausing %s failed: %s", sorted(topics), problem)

    def _places(self, topics: Iterable[str]) -> list[TopicPartition]:
        chosen = set(topics)
        return [TopicPartition(topic, p) for topic, p in self._assigned if topic in chosen]

    def _job_of(self, message: Message) -> Job | None:
        if (problem := message.error()) is not None:
            self._heed(problem)
            return None
        place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
        offsets = self._assigned.get(place)
        if offsets is None:
            return None  # revoked between fetch and here; its new owner gets it
        try:
            task = self._wire.read_task(message.value(), message.headers())  # type: ignore[arg-type]
        except (Unreadable, ApiError) as problem_text:
            offsets.take(offset)
            offsets.done(offset)
            metrics.UNREADABLE.labels(self._queue).inc()
            log.error("%s-%d offset %d passed over: %s", *place, offset, problem_text)
            return None
        except Unreachable as away:
            self._broken = f"Expected to learn the schema of {place[0]}-{place[1]} offset {offset} but {away}"
            return None
        offsets.take(offset)
        if offset <= self._highest.get(place, -1):
            metrics.REDELIVERED.labels(self._queue).inc()
        else:
            self._highest[place] = offset
        return Job(task, self._functions.get(task.function), offsets, offset, self._ranks[place[0]])

    def _heed(self, problem: KafkaError) -> None:
        if problem.fatal() or problem.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
            self._broken = f"Expected to be the only worker of queue {self._queue} named {self._instance} but {problem.str()}"
        elif problem.code() != KafkaError._PARTITION_EOF:
            log.warning("Kafka says: %s; trying on", problem.str())

    # -- rebalances ---------------------------------------------------------------------------------------------

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._assigned[tp.topic, tp.partition] = Offsets(tp.partition)
        if partitions:
            log.info("partitions taken over: %s", _named(partitions))
        # librdkafka may remember a pause of an earlier assignment; start clean, the next turn pauses again if need be
        self._consumer.incremental_assign(partitions)
        self._paused = frozenset(self._ranks)
        self._pause(frozenset())

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._producer.poll(0)
        self._commit_what_is_over(now=True, only={(tp.topic, tp.partition) for tp in partitions})
        self._drop(partitions)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions)

    def _drop(self, partitions: list[TopicPartition]) -> None:
        given_up = []
        for tp in partitions:
            if (offsets := self._assigned.pop((tp.topic, tp.partition), None)) is not None:
                offsets.dropped = True
                given_up.append(tp)
        if given_up:
            log.info("partitions given up: %s", _named(given_up))

    # -- committing ---------------------------------------------------------------------------------------------

    def _commit_what_is_over(self, now: bool = False, only: set[Place] | None = None) -> None:
        if not now and time.monotonic() < self._commit_at:
            return
        self._commit_at = time.monotonic() + _COMMIT_EVERY_S
        ready: list[TopicPartition] = []
        for place, offsets in self._assigned.items():
            if (only is None or place in only) and (following := offsets.advance()) is not None:
                ready.append(TopicPartition(*place, following))
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
        function, arguments, current = prepared
        began = time.perf_counter()
        kept = enter(current)
        outcome = function.perform(arguments, current.context)  # never raises
        leave(kept)
        self._ended(job, current, outcome, time.perf_counter() - began)

    async def _perform_async(self, job: Job) -> None:
        if (prepared := self._prepared(job)) is None:
            return
        function, arguments, current = prepared
        began = time.perf_counter()
        try:
            with current.awaited():
                outcome = await function.perform_async(arguments, current.context)
        except asyncio.CancelledError:
            if not current.is_cancelled:
                raise  # the loop is torn down
            outcome = PENDING
        self._ended(job, current, outcome, time.perf_counter() - began)

    def _prepared(self, job: Job) -> tuple[Function, bytes, CurrentTask] | None:
        """What to call and with what; None when the task is not to be performed, which is reported if anybody waits."""
        task, function = job.task, job.function
        if function is None:
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
        current = CurrentTask(task, context)
        if self._journal is not None:
            deaths = self._journal.deaths(current.key)
            if deaths >= self._max_deliveries:
                detail = (
                    f"Expected the task's function to return but the worker died {deaths} times while it ran"
                )
                self._over(job, Failure(RUNTIME, 500, "Task ends its worker", detail, incident=True), 0.0)
                self._journal.ended(current.key)
                return None
        if not self._heart.begin(current):
            self._unsaid(job, "cancelled", 0.0)
            return None
        if self._journal is not None:
            self._journal.started(current.key)
        return function, task.arguments, current

    def _ended(self, job: Job, current: CurrentTask, outcome: Outcome, seconds: float) -> None:
        self._heart.end(current)
        if self._journal is not None:
            self._journal.ended(current.key)
        if current.is_cancelled:
            self._unsaid(job, "cancelled", seconds)
        elif isinstance(outcome, Pending):
            self._unsaid(job, "pending", seconds)
        else:
            self._over(job, outcome, seconds)

    def _unsaid(self, job: Job, word: str, seconds: float) -> None:
        """The task is over here and nothing is reported."""
        name = _UNKNOWN if job.function is None else job.function.name
        metrics.observe(name, word, seconds)
        log.debug("task %s of flow %s: %s", job.task.task, job.task.flow_id, word)
        job.offsets.done(job.offset)

    def _over(self, job: Job, outcome: bytes | Failure, seconds: float) -> None:
        name = _UNKNOWN if job.function is None else job.function.name
        word = "failed" if isinstance(outcome, Failure) else "completed"
        metrics.observe(name, word, seconds)
        if isinstance(outcome, Failure):
            log.warning(
                "task %s of flow %s (%s) failed: %s: %s",
                job.task.task, job.task.flow_id, job.task.function, outcome.title, outcome.detail,
            )  # fmt: skip
        if not job.task.reply:
            job.offsets.done(job.offset)
            return
        try:
            self._report(job, outcome)
        except Exception as problem:  # must not kill a thread; without a report the task is delivered again
            log.exception("outcome of task %s of flow %s not reported", job.task.task, job.task.flow_id)
            self._broken = f"Expected to report task {job.task.task} of flow {job.task.flow_id} but {problem}"

    def _beat(self, current: CurrentTask, progress: bytes | None) -> None:
        written = self._wire.write_heartbeat(current.task, progress, self._actor)
        self._producer.produce(self._wire.commands_topic, written.value, written.key, headers=written.headers)

    def _report(self, job: Job, outcome: bytes | Failure) -> None:
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
        self._heart.close()
        self._cancellations.close()
        if self._crew.running:
            log.warning(
                "%d tasks still run after %.0f s; they will be delivered again", self._crew.running, grace_s
            )
        if self._producer.flush(_FLUSH_S):
            log.warning(
                "%d outcomes not acknowledged; their tasks will be delivered again", len(self._producer)
            )
        self._commit_what_is_over(now=True)
        self._drop(self._places(self._ranks))
        self._consumer.close()
        self._crew.close()
        if self._journal is not None:
            self._journal.close()
        metrics.IN_FLIGHT.labels(self._queue).set(0)
        metrics.BUFFERED.labels(self._queue).set(0)

    def _stay_a_member(self) -> None:
        """Rebalances go on while tasks end; whatever else is fetched stays uncommitted for the next worker."""
        try:
            self._consumer.pause(self._places(self._ranks))
            self._consumer.poll(0)
        except KafkaException as problem:
            log.debug("while stopping: %s", problem)
        self._producer.poll(0)


def _named(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(sorted(f"{tp.topic}-{tp.partition}" for tp in partitions))


def _on_commit(problem: KafkaError | None, _: list[TopicPartition]) -> None:
    if problem is not None and problem.code() not in (KafkaError._NO_OFFSET,):
        log.warning("offsets not committed, their tasks may be delivered again: %s", problem.str())
