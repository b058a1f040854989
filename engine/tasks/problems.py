"""The errors that the built-in functions give to flows: one maker for each of the specification's types.

    raise problems.communication("Expected 2xx of GET https://… but the status is 404", 404)

Each returns a flowtrail.TaskError whose detail says "Expected ... but ...". Invariant: no detail holds a secret. Names,
places, statuses and an endpoint without its query may be told; headers, bodies and what a policy holds may not.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flowtrail.errors import AUTHORIZATION, CONFIGURATION, ERRORS, RUNTIME, VALIDATION, TaskError

__all__ = [
    "AUTHENTICATION",
    "AUTHORIZATION",
    "COMMUNICATION",
    "CONFIGURATION",
    "EXPRESSION",
    "RUNTIME",
    "TIMEOUT",
    "UNAVAILABLE",
    "VALIDATION",
    "authentication",
    "authorization",
    "communication",
    "configuration",
    "expression",
    "place",
    "runtime",
    "timeout",
    "validation",
]

COMMUNICATION: Final = ERRORS + "communication"
AUTHENTICATION: Final = ERRORS + "authentication"
TIMEOUT: Final = ERRORS + "timeout"
EXPRESSION: Final = ERRORS + "expression"

UNAVAILABLE: Final = 503
"""The status of a communication error when there was no answer at all."""

_STATUSES: Final = range(100, 600)


def communication(detail: str, status: int = 500, title: str = "Communication failed") -> TaskError:
    """What is called answered that it failed (its status), answered nonsense (500) or not at all (503)."""
    return TaskError(COMMUNICATION, status if status in _STATUSES else 500, title, detail)


def authentication(detail: str, status: int = 401, title: str = "Authentication failed") -> TaskError:
    return TaskError(AUTHENTICATION, status, title, detail)


def authorization(detail: str, status: int = 403, title: str = "Not allowed") -> TaskError:
    return TaskError(AUTHORIZATION, status, title, detail)


def timeout(detail: str, status: int = 408, title: str = "Timed out") -> TaskError:
    return TaskError(TIMEOUT, status, title, detail)


def configuration(detail: str, status: int = 400, title: str = "Wrong configuration") -> TaskError:
    """The definition, what it refers to, or this installation is not what the call needs."""
    return TaskError(CONFIGURATION, status, title, detail)


def validation(detail: str, status: int = 400, title: str = "Wrong arguments") -> TaskError:
    return TaskError(VALIDATION, status, title, detail)


def expression(detail: str, status: int = 400, title: str = "Expression failed") -> TaskError:
    return TaskError(EXPRESSION, status, title, detail)


def runtime(detail: str, status: int = 500, title: str = "Runtime error") -> TaskError:
    return TaskError(RUNTIME, status, title, detail)


def place(uri: str) -> str:
    """`uri` as an error may show it: without user, password, query and fragment, which can hold secrets."""
    try:
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(no readable URI)"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else parts.path
