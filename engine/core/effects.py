"""What a decision asks of others besides its events: tasks for workers, commands for other flows, events for the world.

Effects are written in the same transaction as the events they follow from. They are not facts: replay decides again
without sending anything. Pure.
"""

from __future__ import annotations

import msgspec

from schemas import messages as m


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """A task for a worker of `queue`."""

    queue: str
    task: m.Task


class Emitted(msgspec.Struct, frozen=True, gc=False):
    """A CloudEvent for the outbox, and for the inbox of this installation. `key` is the records' key."""

    event: m.CloudEvent
    key: str


Effect = Dispatch | Emitted | m.Command | m.Cancellation
