"""What can go wrong, by whose fault it is. The only place where the SDK defines exceptions.

`exit_code` is what a command line ends with: 1 found wrong, 2 the caller's input, 3 a server is away, 70 a defect.
Every text has the form "Expected ... but ..." so that the reader learns both halves.
"""

from __future__ import annotations

from typing import Any, Final

ERRORS: Final = "https://serverlessworkflow.io/spec/1.0.0/errors/"
VALIDATION: Final = ERRORS + "validation"
CONFIGURATION: Final = ERRORS + "configuration"
RUNTIME: Final = ERRORS + "runtime"
AUTHORIZATION: Final = ERRORS + "authorization"


class FlowtrailError(Exception):
    """A defect, or something nobody foresaw."""

    exit_code = 70


class InputError(FlowtrailError):
    """The caller handed over something that cannot be meant."""

    exit_code = 2


class Unreachable(FlowtrailError):
    """The API (or Kafka) does not answer."""

    exit_code = 3


class WaitTimeout(FlowtrailError):
    """The flow had not ended when the time given was over; it goes on running."""

    exit_code = 1


class ApiError(FlowtrailError):
    """The API refused: `status` and the problem details (RFC 9457) as it sent them."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(_readable(status, problem))
        self.status = status
        self.problem = problem

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        if self.status in (502, 503, 504):
            return 3
        return 2 if self.status < 500 else 70


class TaskError(Exception):
    """Raise it in a task's function to choose the error the flow sees: `type` is a URI, `status` as in HTTP."""

    def __init__(
        self,
        type: str,  # noqa: A002 - the name problem details give it
        status: int = 500,
        title: str | None = None,
        detail: str | None = None,
    ) -> None:
        if not isinstance(type, str) or not type:
            raise InputError(f"Expected a TaskError's type to be a URI but found {type!r}")
        if not isinstance(status, int) or not 100 <= status <= 599:
            raise InputError(f"Expected a TaskError's status to be from 100 to 599 but found {status!r}")
        super().__init__(detail or title or type)
        self.type = type
        self.status = status
        self.title = title
        self.detail = detail


class Pending(Exception):
    """Raised, or returned as PENDING: the function began something that somebody else ends, by the task's token."""


PENDING: Final = Pending("the task is completed by its token")


class Cancelled(BaseException):
    """Raised by `heartbeat` in a task nobody waits for any more. Not an Exception: no function catches it by accident."""


def _readable(status: int, problem: dict[str, Any]) -> str:
    """Title and detail, then a line for each problem; their messages tell their places themselves."""
    title = str(problem.get("title") or f"HTTP status {status}")
    lines = [f"{title}: {problem['detail']}" if problem.get("detail") else title]
    details = problem.get("problems")
    for place in details if isinstance(details, list) else ():
        message = str(place.get("message")) if isinstance(place, dict) else str(place)
        if message not in lines[0]:
            lines.append(f"  {message}")
    return "\n".join(lines)
