"""How far the read models have come, compared with the log's end: what `flowtrail projections status` shows.

A partition is stale when records wait for it and its position has not moved for a while: a projector that is not
running, or cannot keep on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from engine.errors import AwayError
from engine.runtime import kafka
from engine.runtime.topics import EVENTS
from projections import migrations, queries
from projections.readers import SyncReader
from projections.store import PROJECTION
from projections.views import Healing

_HEALINGS_MAX: Final = 10


class PartitionStanding(msgspec.Struct):
    """`position` is the first offset not folded, `end` the log's; `lag` counts offsets, markers included."""

    partition: int
    position: int
    end: int
    lag: int
    command_offset: int
    event_time: datetime | None
    updated_at: datetime | None
    stale: bool


class Standing(msgspec.Struct):
    """`broken` flows are at fault in the log, `healed` ones were in the read models; `healings` are the last of these."""

    topic: str
    lag: int
    stale: bool
    unreadable: int
    broken: int
    healed: int
    healings: list[Healing]
    partitions: list[PartitionStanding]


def read_standing(kafka_servers: str, postgres: str, prefix: str, stale_after_s: float) -> Standing:
    """Raises AwayError when a server does not answer or was not set up."""
    topic = prefix + EVENTS
    ends = _ends(kafka_servers, topic)
    with SyncReader(postgres) as reader:
        migrations.check(reader.connection)
        found = {
            row.partition: row for row in reader.ask(queries.positions(topic)) if row.projection == PROJECTION
        }
        unreadable = reader.ask(queries.count_unreadable())
        broken, healed = reader.ask(queries.count_broken()), reader.ask(queries.count_healings())
        healings = reader.ask(queries.healings(_HEALINGS_MAX))
    now = datetime.now(UTC)
    partitions = []
    for partition, end in sorted(ends.items()):
        row = found.get(partition)
        position = 0 if row is None else row.next_offset
        lag = max(0, end - position)
        silent = row is None or now - row.updated_at > timedelta(seconds=stale_after_s)
        partitions.append(
            PartitionStanding(
                partition=partition,
                position=position,
                end=end,
                lag=lag,
                command_offset=-1 if row is None else row.command_offset,
                event_time=None if row is None else row.event_time,
                updated_at=None if row is None else row.updated_at,
                stale=lag > 0 and silent,
            )
        )
    lag = sum(line.lag for line in partitions)
    stale = any(line.stale for line in partitions)
    return Standing(topic, lag, stale, unreadable, broken, healed, healings, partitions)


def _ends(servers: str, topic: str) -> dict[int, int]:
    """Partition -> its end as a reader of committed records can see it."""
    consumer = kafka.log_consumer(servers, "flowtrail-status")
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic]
        if found.error is not None or not found.partitions:
            raise AwayError(f"Expected topic {topic} to exist but it does not; run: flowtrail admin init")
        return {
            partition: int(
                consumer.get_watermark_offsets(kafka.TopicPartition(topic, partition), timeout=10)[1]
            )
            for partition in found.partitions
        }
    except kafka.KafkaException as problem:
        raise AwayError(f"Expected Kafka to answer but {problem.args[0].str()}") from None
    finally:
        consumer.close()
