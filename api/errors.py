"""What the API refuses, by whose fault it is, and the one table from error class to HTTP answer.

Every class derives from engine.errors, whose exit codes the command line shares. An error carries text of the form
"Expected ... but ..."; problems.py makes the answer of it. Nothing else in this room chooses a status.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from engine.dsl.errors import DefinitionError
from engine.errors import AwayError, FlowtrailError, InputError
from replay.flow import BrokenFlow

DOCUMENTED_AT: Final = "https://github.com/flowtrail/flowtrail/blob/main/docs/problems.md#"
"""A problem's type is this and its slug."""


class Refused(InputError):
    """A request that cannot be done. `extra` becomes members of the problem; `slug` may be narrower than the class."""

    def __init__(self, detail: str, *, slug: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.slug, self.extra = slug, extra


class Unauthorized(Refused):
    pass


class NotFound(Refused):
    pass


class MethodNotAllowed(Refused):
    pass


class Conflict(Refused):
    pass


class TooLarge(Refused):
    pass


class UnsupportedMedia(Refused):
    pass


class Invalid(Refused):
    """`problems`, when given, says each place: [{message, pointer, line?, column?}]."""


class InvalidEvent(Refused):
    """Not a CloudEvent; `pointer` is the place in a structured one."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail, problems=[{"message": detail, "pointer": pointer}])


class Behind(AwayError):
    """The read model has not come to the position that was asked for."""


ANSWERS: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (InvalidEvent, 400, "invalid-event", "Not a CloudEvent"),
    (Unauthorized, 401, "unauthorized", "An API key is needed"),
    (NotFound, 404, "not-found", "Not found"),
    (MethodNotAllowed, 405, "method-not-allowed", "Method not allowed"),
    (Conflict, 409, "conflict", "In conflict with what is there"),
    (TooLarge, 413, "too-large", "Too large"),
    (UnsupportedMedia, 415, "unsupported-media-type", "Unsupported media type"),
    (DefinitionError, 422, "invalid-definition", "The definition is not valid"),
    (InputError, 422, "invalid-request", "The request is not valid"),
    (BrokenFlow, 409, "damaged-log", "The flow's records in the log are damaged"),
    (Behind, 503, "position-not-reached", "The read model has not come that far"),
    (AwayError, 503, "server-away", "A server does not answer"),
    (psycopg.errors.UndefinedTable, 503, "not-initialized", "The database was not initialized"),
    (psycopg.DataError, 422, "invalid-request", "The request is not valid"),
    (psycopg.OperationalError, 503, "server-away", "A server does not answer"),
    (FlowtrailError, 500, "defect", "A defect of Flowtrail"),
    (Exception, 500, "defect", "A defect of Flowtrail"),
)
"""(class, status, slug, title), the first that fits counts."""
