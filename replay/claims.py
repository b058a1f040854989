"""The moments that events claim: the state of a flow at an event, as whoever asked for it brought it. Proved by folding.

A rollback and a rerun carry the state of a moment in their command, because an engine keeps no past. The engine checks that it fits;
whether it is what the log folds to is checked here, so that nobody can slip in a past that never was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.core.evolve import BrokenLog, FlowState, digest, evolve
from engine.core.moments import Unrestorable, moment
from engine.core.redecide import Stored
from engine.errors import InputError
from projections.logged import Logged
from replay.findings import Finding
from replay.flow import BrokenFlow, Log, fold_until
from replay.moment import Moment
from schemas import messages as m


class Claim(msgspec.Struct, frozen=True):
    """Event `sequence` of `flow_id`, at that place, says how `restore.flow_id` stood."""

    flow_id: str
    restore: m.Restore
    sequence: int
    partition: int
    offset: int

    @property
    def is_own(self) -> bool:
        return self.flow_id == self.restore.flow_id

    def finding(self, text: str) -> Finding:
        return Finding(self.flow_id, "moment", text, self.sequence, self.partition, self.offset)


def claims_of(logged: Sequence[Logged]) -> list[Claim]:
    found = []
    for one in logged:
        body = one.event.body
        if isinstance(body, m.FlowRollingBack | m.FlowRestored) and body.restore.sequence > 0:
            if isinstance(body, m.FlowRestored) and body.restore.flow_id == one.event.flow_id:
                continue  # FlowRollingBack has said so
            event = one.event
            found.append(Claim(event.flow_id, body.restore, event.sequence, one.partition, one.offset))
    return found


def prove_own(claim: Claim, stored: Sequence[Stored]) -> Finding | None:
    """`stored` is the flow's own log, which folds."""
    state: FlowState | None = None
    try:
        for one in stored[: claim.restore.sequence]:
            state = evolve(state, one.event, digest(one.value))
    except BrokenLog as problem:
        return claim.finding(str(problem))
    return _compare(claim, state)


def prove(claim: Claim, read: Callable[[str], Log]) -> Finding | None:
    """A claim about another flow, whose log `read` gives. Raises AwayError."""
    try:
        log = read(claim.restore.flow_id)
        _, state, _, _ = fold_until(log.flow_id, log.logged, Moment(sequence=claim.restore.sequence))
    except (InputError, BrokenFlow) as problem:
        return claim.finding(f"Expected the moment it begins as to be in the log but: {problem}")
    return _compare(claim, state)


def _compare(claim: Claim, state: FlowState | None) -> Finding | None:
    of = f"{claim.restore.flow_id} after event {claim.restore.sequence}"
    try:
        claimed = moment(claim.restore)
    except Unrestorable as problem:
        return claim.finding(str(problem))
    if claimed == state:
        return None
    different = [
        name for name in claimed.__struct_fields__ if getattr(claimed, name) != getattr(state, name, None)
    ]
    return claim.finding(f"Expected the state of {of} but it differs in {', '.join(different)}")
