"""The built-in functions by queue: the name a task calls, and the module's function that performs it.

A function takes the call's arguments (a JSON object) and gives JSON. Modules are imported when an executor starts, so
that the command line and the engine do not pay for protocols they do not speak.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from engine.settings import Settings

BUILTIN: Final = "builtin"
PROCESS: Final = "process"

Function = Callable[[dict[str, Any]], Any]

TABLE: Final[dict[str, dict[str, tuple[str, str]]]] = {
    BUILTIN: {
        "http": ("engine.tasks.http", "call"),
        "openapi": ("engine.tasks.openapi", "call"),
        "grpc": ("engine.tasks.grpc_calls", "call"),
        "asyncapi": ("engine.tasks.asyncapi", "call"),
        "mcp": ("engine.tasks.mcp_calls", "call"),
        "a2a": ("engine.tasks.a2a_calls", "call"),
    },
    PROCESS: {
        "run.shell": ("engine.tasks.processes", "shell"),
        "run.script": ("engine.tasks.processes", "script"),
        "run.container": ("engine.tasks.containers", "container"),
    },
}
"""queue -> name of the function -> module and attribute."""


def of(queue: str) -> Iterator[tuple[str, Function | None]]:
    """Every function of `queue`; None for one whose module this installation does not have."""
    for name, (module, attribute) in TABLE[queue].items():
        try:
            yield name, getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as missing:
            if missing.name != module:
                raise
            yield name, None


def queues(settings: Settings) -> list[str]:
    """The queues an executor with these settings serves."""
    enabled = settings.run_shell or settings.run_script or settings.run_container
    return [BUILTIN, PROCESS] if enabled else [BUILTIN]
