"""The `flowtrail` command: a table of nouns, each in a module of its own that only its own use imports.

`--help` and `--version` import nothing but this file's few modules, so they take hundredths of a second.
Invariant: whatever happens ends in a message and an exit code (cli/console.py), never in a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cli.console import INTERRUPTED, exit_code_of, print_error
from cli.local import adopt

if TYPE_CHECKING:
    from types import ModuleType

# noun: (module, attribute that is a Typer app or a function, help)
NOUNS: Final[dict[str, tuple[str, str, str]]] = {
    "up": ("cli.stack", "up", "Start servers, engine, projections, API and executor on this machine."),
    "down": ("cli.stack", "down", "Stop what `up` started."),
    "status": ("cli.stack", "status", "Show what runs."),
    "doctor": ("cli.stack", "doctor", "Check what is needed and say what to do."),
    "demo": ("cli.demo", "demo", "Run a real permit process from input to read model."),
    "definitions": ("cli.definitions", "app", "Check, draw, publish and look up definitions."),
    "flows": ("cli.flows", "app", "Start, list and show flows."),
    "tasks": ("cli.tasks", "app", "Complete or fail tasks from outside, by their token."),
    "approvals": ("cli.tasks", "approvals", "List and answer what waits for a person."),
    "events": ("cli.events", "app", "Publish CloudEvents."),
    "analyze": ("cli.analyze", "app", "Show paths, times and waits of many flows, and what to do."),
    "replay": ("cli.replay", "app", "Rebuild and verify flows from the log alone."),
    "export": ("cli.exporting", "export", "Write flows, a range or the whole log to a file."),
    "import": ("cli.exporting", "import_", "Write an export into this installation's log."),
    "projections": ("cli.projections", "app", "Fold the log into the read models."),
    "schemas": ("cli.schemas", "app", "List and check the contract, print it as AsyncAPI."),
    "engine": ("cli.engine", "app", "Run an engine process."),
    "api": ("cli.api", "app", "Run the HTTP API."),
    "worker": ("cli.worker", "app", "Run task functions."),
    "executor": ("cli.executor", "app", "Perform HTTP and the other built-in calls, and processes."),
    "bench": ("cli.bench", "app", "Measure throughput and latency, and prove exactly once."),
    "admin": ("cli.admin", "app", "Create topics, tables and API keys."),
}
HELP_OPTIONS: Final = {"--help", "-h", "help"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """The exit code of one command line."""
    try:
        code = _dispatch(argv)
        sys.stdout.flush()  # here, where a reader that has gone is no error yet
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as problem:  # the last place before a traceback
        return exit_code_of(problem)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in HELP_OPTIONS:
        print(help_text())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"flowtrail {installed_version()}")
        return 0
    noun, *rest = argv
    if noun not in NOUNS:
        print_error(f"Expected one of {', '.join(NOUNS)} but found {noun!r}{_nearest(noun)}")
        return 2
    return _run_noun(noun, rest)


def help_text() -> str:
    width = max(map(len, NOUNS))
    lines = [f"  {noun:<{width}}  {text}" for noun, (_, _, text) in NOUNS.items()]
    return "\n".join(
        [
            "Usage: flowtrail NOUN ...",
            "",
            "Runs and records multi-step processes; the log is the only truth.",
            "",
            *lines,
            "",
            "`flowtrail NOUN --help` says more. Options: --version, --help.",
            "Exit codes: 0 done, 1 found wrong, 2 bad input, 3 server away.",
        ]
    )


def installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flowtrail-server")
    except PackageNotFoundError:
        return "(not installed)"


def _run_noun(noun: str, arguments: list[str]) -> int:
    module_name, attribute, _ = NOUNS[noun]
    adopt(noun, os.environ)
    module = _import(noun, module_name)
    if module is None:
        return 2
    import typer.main

    target: Any = getattr(module, attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer()
        target.command()(function)
    target._add_completion = False  # completion would be installed for a program called like the noun
    command = typer.main.get_command(target)
    result = command.main(arguments, prog_name=f"flowtrail {noun}", standalone_mode=True)
    return result if isinstance(result, int) else 0


def _import(noun: str, name: str) -> ModuleType | None:
    """None, and a message, when this installation has no such module; any other failed import is a defect."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        print_error(f"Expected `flowtrail {noun}` to be part of this installation but {name} is absent")
        return None


def _nearest(noun: str) -> str:
    from difflib import get_close_matches

    found = get_close_matches(noun, NOUNS, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _reader_gone() -> int:
    """Whoever read our output, such as `head`, has enough. Python would complain at exit once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    main()
