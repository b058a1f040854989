"""Faust's aiokafka driver, reduced to what it does well: assigning partitions and fetching.

Hooks five private methods of faust-streaming 0.15.3 (pinned; tests/integration/test_faust.py keeps one test for each
property relied on). What changes, and why:
* read_committed: stock Faust hands aborted records to agents.
* A partition's fetched records are ONE stream event (`Fetched`): 120 us a message become one a batch.
* Each batch carries a `stamp` (the seek it follows) and a `chain` (the offset it continues from). A batch fetched
  before a seek but delivered after it is AHEAD of the position: processing it would lose what lies between.
* `seek_to_committed` starts from the partitions' own positions, which lie in the log itself.
* `commit` writes position hints for lag tools only, never during a rebalance: a refused commit makes aiokafka rejoin.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final, Protocol

import faust
import structlog
from aiokafka.structs import TopicPartition as AioTopicPartition
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as faust_aiokafka
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP

from engine.core.batch import Record

log = structlog.get_logger("flowtrail.driver")


class Owned(Protocol):
    """What the driver needs of an owned partition."""

    ready: bool
    position: int
    stamp: int | None
    fed: int | None
    idle: asyncio.Event

    def park(self) -> None: ...


class Positions:
    """The partitions this process owns, shared by the driver (two threads read) and the engine (one loop writes)."""

    def __init__(self) -> None:
        self.partitions: MutableMapping[int, Any] = {}
        self.serial: Iterator[int] = itertools.count(1)
        self.seeking = asyncio.Lock()


class Chunk:
    """A partition's fetched records and where they belong."""

    __slots__ = ("follows", "reaches", "records", "stamp")

    def __init__(self, records: list[Record], stamp: int | None, follows: int | None, reaches: int) -> None:
        self.records = records
        self.stamp = stamp
        self.follows = follows
        self.reaches = reaches


class Fetched:
    """Looks like one aiokafka record; its value is a Chunk."""

    __slots__ = (
        "checksum",
        "headers",
        "key",
        "offset",
        "partition",
        "serialized_key_size",
        "serialized_value_size",
        "timestamp",
        "timestamp_type",
        "topic",
        "value",
    )

    def __init__(
        self, tp: TP, records: list[Any], stamp: int | None, follows: int | None, reaches: int
    ) -> None:
        last = records[-1]
        self.topic, self.partition, self.offset = tp.topic, tp.partition, last.offset
        self.timestamp, self.timestamp_type = last.timestamp, last.timestamp_type
        self.headers: tuple[()] = ()
        self.key = self.checksum = None
        self.serialized_key_size = self.serialized_value_size = 0
        self.value = Chunk([_record(r) for r in records], stamp, follows, reaches)


def _record(fetched: Any) -> Record:
    fingerprint = None
    for name, value in fetched.headers:
        if name == "schema":
            fingerprint = value
            break
    return Record(fetched.offset, fetched.key, fetched.value, fingerprint)


class WholeBatches(DefaultSchedulingStrategy):
    """Hands on one Fetched a partition instead of single messages."""

    def iterate(self, records: Mapping[TP, Any]) -> Iterator[tuple[TP, Any]]:
        return iter(records.items())


class NoTables(TableManager):
    """There are no tables; upstream sleeps a fixed second at every process start all the same."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class RawSchema(faust.Schema):
    """Hands a message's value to the agent as it is: nothing is decoded where a failure would lose it."""

    def compile(
        self,
        app: Any,
        on_key_decode_error: Any = None,
        on_value_decode_error: Any = None,
        default_payload: Any = None,
        **_: Any,
    ) -> Any:
        async def decode(message: Any, *_: Any, **__: Any) -> Any:
            return faust.Event(app, message.key, message.value, {}, message)

        return decode


class ConsumerThread(faust_aiokafka.AIOKafkaConsumerThread):
    """Runs in aiokafka's own thread and loop, so heartbeats survive a busy main loop."""

    positions: Positions

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positions = self.consumer.app.flowtrail_positions
        self._stamps: dict[int, int | None] = {}
        self._reached: dict[int, int] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: Any = None, max_records: Any = None
    ) -> Any:
        fetched = await super()._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=max_records
        )
        # no await since the records left aiokafka: stamp and chain are exact
        found: dict[Any, Any] = {}
        for tp, records in fetched.items():
            if records:
                p, reaches = tp.partition, records[-1].offset + 1
                found[tp] = Fetched(tp, records, self._stamps.get(p), self._reached.get(p), reaches)
                self._reached[p] = reaches
        return found

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        for tp, offset in partitions.items():
            self._stamps[tp.partition] = self.positions.partitions[tp.partition].stamp
            self._reached[tp.partition] = offset
        await super()._seek_wait(consumer, partitions)

    async def claim(self, offsets: Mapping[TP, int]) -> None:
        """Commits `offsets`; raises what aiokafka raises. Accepted means: we are a member of this generation."""
        converted = {AioTopicPartition(tp.topic, tp.partition): offset for tp, offset in offsets.items()}
        await self.call_thread(self._ensure_consumer().commit, converted)

    def unread(self, tp: TP) -> bool:
        """Whether the broker has more than was fetched. Offsets of transaction markers count as read."""
        subscription = self._ensure_consumer()._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return False
        state = subscription.assignment.state_value(AioTopicPartition(tp.topic, tp.partition))
        if state is None or not state.has_valid_position or state.highwater is None:
            return False
        return bool(state.highwater > state.position)


class Consumer(faust_aiokafka.Consumer):
    """Faust's consumer without its offset bookkeeping."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> ConsumerThread:
        found: ConsumerThread = self._thread
        return found

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Positions are ours; transaction markers need no book-keeping."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Called after every rebalance, and in the middle of one: partitions not loaded yet are left out."""
        positions: Positions = self.app.flowtrail_positions
        async with positions.seeking:
            wanted: dict[TP, int] = {}
            for tp in self.assignment():
                owned = positions.partitions.get(tp.partition)
                if owned is not None and owned.ready:
                    owned.park()
                    await owned.idle.wait()
                    wanted[tp] = owned.fed = owned.position + 1
                    owned.stamp = next(positions.serial)
            if wanted:
                await self._thread.seek_wait(wanted)
            return wanted

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Position hints for lag tools; never fatal."""
        positions: Positions = self.app.flowtrail_positions
        offsets = {
            tp: owned.position + 1
            for tp in self.assignment()
            if (owned := positions.partitions.get(tp.partition)) is not None
            and owned.ready
            and owned.position >= 0
        }
        if not offsets or self.app.rebalancing:
            return False
        try:
            await asyncio.wait_for(self.thread.claim(offsets), 5)
        except Exception as problem:
            log.info("position hint not taken", problem=f"{type(problem).__name__}: {problem}")
            return False
        return True


class Transport(faust_aiokafka.Transport):
    Consumer = Consumer


CONSUMER_SETTINGS: Final[dict[str, Any]] = {
    "topic_disable_leader": True,  # otherwise a topic of Faust's own is created and subscribed
    "topic_allow_declare": False,  # topics are made by `flowtrail admin init`, with their partition counts
    "web_enabled": False,
    "stream_wait_empty": False,  # nothing is acknowledged through Faust, so there is nothing to wait for
    "store": "memory://",
    "table_standby_replicas": 0,  # the default of 1 brings Faust's assignor and its metadata
    "consumer_auto_offset_reset": "earliest",
    "broker_commit_interval": 1.0,
    "broker_max_poll_records": 2000,
    "broker_heartbeat_interval": 1.0,
    "broker_rebalance_timeout": 10.0,
    "worker_redirect_stdouts": False,
    "ConsumerScheduler": WholeBatches,
    "TableManager": NoTables,
}
