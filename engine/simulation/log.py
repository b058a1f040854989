"""In-memory twins of the topics and of the transactional producer, one partition each.

Keeps what the protocol rests on: a transaction's records appear together or not at all, a producer of an older epoch
cannot commit, a commit may succeed without its producer learning so. Offsets skip one number a transaction, as the
markers of a real log do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.runtime.records import POSITION_KEY, Produce
from engine.runtime.topics import CANCELLATIONS, COMMANDS, EVENTS, INBOX, OUTBOX, STATE, TASKS


class Fenced(Exception):
    """Another producer took this partition over."""


@dataclass(slots=True)
class Stored:
    offset: int
    key: bytes
    value: bytes


@dataclass(slots=True)
class PartitionLog:
    """One partition of every topic. `epoch` is that of the producer that may commit."""

    commands: list[Stored] = field(default_factory=list)
    events: list[Stored] = field(default_factory=list)
    tasks: list[Stored] = field(default_factory=list)
    dead_letters: list[Stored] = field(default_factory=list)
    state: dict[bytes, bytes] = field(default_factory=dict)
    epoch: int = 0
    _next: int = 0

    def send_command(self, key: bytes, value: bytes) -> None:
        self.commands.append(Stored(len(self.commands), key, value))

    def fence(self) -> int:
        """What `init_transactions` does: every earlier producer of this partition is finished."""
        self.epoch += 1
        return self.epoch

    def commit(self, epoch: int, records: list[Produce]) -> list[Produce]:
        """All of `records`, or Fenced and none. Gives those that go to the partition of their key."""
        if epoch != self.epoch:
            raise Fenced
        shared: list[Produce] = []
        for topic, key, value, headers in records:
            if topic in (COMMANDS, INBOX):
                shared.append((topic, key, value, headers))
                continue
            if topic in (OUTBOX, CANCELLATIONS):
                continue
            assert key is not None
            if topic == STATE:
                if value is None:
                    self.state.pop(key, None)
                else:
                    self.state[key] = value
                continue
            assert value is not None
            target = (
                self.events
                if topic == EVENTS
                else self.tasks
                if topic.startswith(TASKS)
                else self.dead_letters
            )
            target.append(Stored(self._next, key, value))
            self._next += 1
        self._next += 1  # the marker
        return shared

    @property
    def position(self) -> bytes | None:
        return self.state.get(POSITION_KEY)
