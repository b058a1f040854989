"""What can be wrong with a definition, and with one evaluation of an expression.

Both are the author's mistakes, never defects of the engine. A DefinitionError carries every problem found, not only
the first, each with its place, and its text is what a person reads; no message shows a stack trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InputError


@dataclass(frozen=True, slots=True)
class Problem:
    """`message` is a whole sentence with its place; line and column (from 1) are known when the text was parsed."""

    message: str
    pointer: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.message


class DefinitionError(InputError):
    """A definition that cannot be published. At least one problem, in the order of the document."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = list(problems)


class ExpressionError(InputError):
    """An expression that has no result for this data: becomes the DSL's error of type `expression`."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
