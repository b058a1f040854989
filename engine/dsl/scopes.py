"""Where a task stands: its pointer, its place in the document, the names it may jump to, the variables around it.

Pointer and place differ below an extension and inside a reusable function: the pointer names the task in the compiled
definition, the place is where a problem is shown. Which runtime arguments exist at which place is the table at the end
of the specification's Runtime Expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from engine.dsl.model import Variable

BEFORE_TASK: Final = frozenset({"context", "task", "workflow", "runtime"})
BEFORE_INPUT: Final = BEFORE_TASK | {"secrets"}
IN_TASK: Final = BEFORE_TASK | {"input", "authorization"}
IN_ARGUMENTS: Final = IN_TASK | {"secrets"}
IN_EXPORT: Final = IN_TASK | {"output"}
BEFORE_FLOW: Final = frozenset({"workflow", "runtime", "secrets"})
AFTER_FLOW: Final = frozenset({"context", "workflow", "runtime"})
ARGUMENTS: Final = IN_EXPORT | {"secrets"}
"""No variable may have the name of one of these."""

QUEUE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
QUEUE_WISH: Final = "a queue name such as default (at most 64 of a-z, 0-9, '.', '_', '-')"
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Around:
    """What surrounds a list of tasks. `reference` is what `$task.reference` gives in an extension's tasks."""

    pointer: str
    place: str
    scope: str = ""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    reference: str | None = None
    extendable: bool = True
    branches: bool = False

    def binding(self, variables: Mapping[str, Variable]) -> Around:
        return replace(self, variables={**self.variables, **variables})


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one task stands. `targets` are the tasks of its scope by name; `following` is the next one."""

    pointer: str
    place: str
    name: str
    scope: str
    following: str | None
    targets: Mapping[str, str]
    variables: Mapping[str, Variable]
    reference: str | None = None
    extendable: bool = True

    def inside(self) -> Around:
        """What surrounds the tasks that this task holds."""
        return Around(self.pointer, self.place, self.pointer, self.variables, self.reference, self.extendable)

    def available(self, arguments: frozenset[str]) -> frozenset[str]:
        return arguments.union(self.variables) if self.variables else arguments
