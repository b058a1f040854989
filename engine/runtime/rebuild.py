"""After a fold of the log: entities are told again what they were told, and live listens subscribe again.

What follows from old messages was written when they were first read, so it is dropped here. Subscribing twice is
harmless, and covers listens older than the oldest command that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from engine.core.batch import Batch
from engine.runtime import records
from engine.runtime.records import Produce
from engine.runtime.restore import Restored
from schemas import messages as m


def rebuild(restored: Restored, partition: int, definitions: Any, now: int) -> Iterator[Produce]:
    """Completes `restored.states` by its entities; gives what to write before the partition works."""
    batch = Batch(partition, {}, definitions, restored.position)
    for told in restored.told:
        batch.tell(told.key, told.message, told.time)
    batch.close()
    restored.states.update((key, kept) for key, kept in batch.overlay.items() if kept is not None)
    yield from records.rebuilt(restored.states, restored.position, now)
    for state in restored.states.values():
        if isinstance(state, m.LiveFlow):
            yield from records.commands(subscriptions(state, now))


def subscriptions(state: m.LiveFlow, now: int) -> Iterator[m.Command]:
    """Every subscription of the flow's active listens, as it was when they began."""
    for active in state.active:
        for one in active.subscriptions:
            question = {
                "flow": state.flow_id,
                "task": active.task,
                "run": active.run,
                "filter": one.filter,
                "started_at": state.started_at,
                "values": None if one.expected is None else orjson.loads(one.expected),
            }
            command_id = (
                f"{state.flow_id}/{state.sequence}:{active.task}:{active.run}:resubscribe{one.filter}"
            )
            body = m.TellEntity(orjson.dumps({"subscribe": question}))
            yield m.Command(command_id, one.key, now, m.Actor("engine", state.flow_id), body)
