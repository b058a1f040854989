"""The read model `rejections`: every refused command, appended. Pure."""

from __future__ import annotations

from projections.copying import moment, words
from schemas import messages as m


def line(rejection: m.Rejection, partition: int, offset: int) -> str:
    """The rejection in COPY text format, in the order of copy_rejections (sql/queries/writes.sql). Raises Unstorable."""
    actor, cause = rejection.actor, rejection.cause
    texts = (rejection.flow_id, rejection.command, rejection.code, rejection.reason, rejection.task)
    return (
        f"{partition}\t{offset}\t{moment(rejection.time)}\t" + "\t".join(map(words, texts)) + "\t"
        f"{actor.kind}\t{words(actor.id)}\t{words(cause.command_id)}\t{cause.partition}\t{cause.offset}\t"
        f"{words(rejection.trace)}\n"
    )
