"""The DSL's standard error types (dsl-reference.md, Standard Error Types) and how this engine fills them."""

from __future__ import annotations

import re
from typing import Final

from schemas.messages import Error

_TYPES: Final = "https://serverlessworkflow.io/spec/1.0.0/errors/"
_OLDER: Final = re.compile(
    r"https://serverlessworkflow\.io(?:\.io)?/(?:dsl/)?errors/types/"
    r"(authentication|authorization|communication|configuration|expression|runtime|timeout|validation)"
)
VALIDATION: Final = _TYPES + "validation"
EXPRESSION: Final = _TYPES + "expression"
RUNTIME: Final = _TYPES + "runtime"
TIMEOUT: Final = _TYPES + "timeout"
CONFIGURATION: Final = _TYPES + "configuration"


def standard(kind: object) -> object:
    """The standard type that `kind` means: examples and the conformance kit also write `…/dsl/errors/types/NAME`."""
    older = _OLDER.fullmatch(kind) if isinstance(kind, str) else None
    return kind if older is None else _TYPES + older[1]


class Fault(Exception):
    """Ends the performing of a task; becomes TaskFaulted. Carries the error, without its instance."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.detail or error.title or error.type)
        self.error = error


def invalid(what: str, problem: str) -> Fault:
    return Fault(Error(VALIDATION, 400, f"Invalid {what}", problem))


def expression_failed(where: str, detail: str) -> Fault:
    return Fault(Error(EXPRESSION, 400, f"The expression of {where} failed", detail))


def runtime_failed(title: str, detail: str) -> Fault:
    return Fault(Error(RUNTIME, 500, title, detail))
