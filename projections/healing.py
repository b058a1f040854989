"""Flows whose rows are not what the log says, folded anew from the log in the transaction of the batch that showed it.

A row is out of step when it does not stand where the flow's next event begins: another sequence or hash, another number
of tasks, another partition, or no row (Store.apply compares). Then all rows of the flow go and come again from its
partition of the log, up to the end of the batch. Where the log itself is at fault the fold says so (batch.Broken), and
the result is the same: rows are what the log gives, whatever was there. Records that stand in `unreadable` stay there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog

from engine.errors import AwayError
from engine.runtime import kafka
from engine.runtime.topics import partition_of
from projections import metrics
from projections.batch import Broken, Folded, Folding, Healing
from projections.logged import Record
from projections.store import Misfit, OutOfStep, Store

log = structlog.get_logger("flowtrail.projections")


class Healer:
    """Reads `topic` when it has to. `healed` counts the flows that were folded anew."""

    def __init__(self, servers: str, topic: str, store: Store) -> None:
        self._servers, self._topic, self._store = servers, topic, store
        self.healed = 0

    def heal(self, records: Sequence[Record], positions: dict[int, int], problem: OutOfStep) -> Folded:
        """The batch of `records`, its flows that are out of step folded from their beginning. Raises AwayError."""
        consumer = kafka.log_consumer(self._servers, f"{self._topic}-healing")
        try:
            count = len(consumer.list_topics(self._topic, timeout=10).topics[self._topic].partitions)
            strays = {one.flow_id: one for one in problem.found if _is_stray(one, count)}
            anew = [one for one in problem.found if one.flow_id not in strays]
            for one in anew:
                log.warning(
                    "flow projected anew from the log",
                    flow=one.flow_id,
                    partition=one.partition,
                    offset=one.offset,
                    found=one.found,
                )
            keys = {one.flow_id.encode() for one in anew}
            batch = Folding(positions, without=keys, strays=strays)
            for record in records:
                batch.take(record)
            ends = {one.partition: batch.moves[one.partition].next_offset for one in anew}
            whole = Folding(dict.fromkeys(ends, 0), whole=True)
            aside = self._store.aside(ends)
            for record in _records(consumer, self._topic, ends, keys):
                if (record.partition, record.offset) not in aside:
                    whole.take(record)
        except kafka.KafkaException as away:
            raise AwayError(f"Expected Kafka to answer but {away.args[0].str()}") from None
        finally:
            consumer.close()
        metrics.HEALED.inc(len(anew))
        self.healed += len(anew)
        folded = _together(batch, whole, anew)
        folded.broken += [broken for one in problem.found for broken in _broken(one, count)]
        return folded


def _is_stray(one: Misfit, partitions: int) -> bool:
    """Whether the flow's row is right, or none of this partition's business, and it is these events that do not fit."""
    if one.broken and one.row_sequence is not None and one.sequence <= one.row_sequence:
        return True  # the log goes back behind what it has told already, and is known to
    return partition_of(one.flow_id, partitions) != one.partition


def _broken(one: Misfit, partitions: int) -> Iterator[Broken]:
    """What a misfit says of the log itself; the fold of the whole flow says the rest."""
    home = partition_of(one.flow_id, partitions)
    if one.partition != home:
        yield Broken(one.flow_id, one.partition, one.offset, _astray(home, one.partition))
    elif one.row_partition not in (None, home) and one.row_partition is not None:
        yield Broken(one.flow_id, one.row_partition, one.row_offset or 0, _astray(home, one.row_partition))


def _astray(home: int, partition: int) -> str:
    return f"Expected its events in partition {home} but found one in {partition}"


def _together(batch: Folding, whole: Folding, anew: list[Misfit]) -> Folded:
    folded, again = batch.result(), whole.result(direct_min=0)
    again.unreadable = [
        line
        for (partition, offset), line in whole.unreadable.items()
        if offset < batch.moves[partition].start  # those of the batch are in `folded`
    ]
    for table in ("new_flows", "new_tasks", "history", "rejections", "unreadable"):
        getattr(folded, table).extend(getattr(again, table))
    folded.months |= again.months
    folded.broken += again.broken
    folded.healed = [Healing(one.flow_id, one.partition, one.offset, one.found) for one in anew]
    return folded


def _records(
    consumer: kafka.Consumer, topic: str, ends: dict[int, int], keys: set[bytes]
) -> Iterator[Record]:
    """The committed records below `ends` that have one of `keys`."""
    if not ends:
        return
    starts = [kafka.TopicPartition(topic, partition, kafka.OFFSET_BEGINNING) for partition in sorted(ends)]
    for found in kafka.read_partitions(consumer, starts):
        partition, offset, key = found.partition(), found.offset(), found.key()
        assert partition is not None
        assert offset is not None
        if key in keys and offset < ends[partition]:
            yield Record(partition, offset, key, found.value(), kafka.fingerprint_of(found))
