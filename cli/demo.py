"""`flowtrail demo`: real cases of a permit process run through a whole Flowtrail of its own, and the proof that all is well.

Here are the options, the order of things and what is printed; the servers and processes are demo_installation.py's, the
run and its checks demo_run.py's. Everything a user can get wrong is found before a server starts. Ends with 0 only when
every flow ended, on the branch an independent count says, and verified by replay.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from cli.demo_installation import DemoInstallation
    from cli.demo_run import Outcome

ROOT: Final = Path(__file__).resolve().parents[1]
REAL_LOG: Final = ROOT.parent / "shared" / "data" / "receipt.xes.gz"
_GENERATED: Final = "generated.xes.gz"


def demo(
    given: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="Event log of permit cases, XES or XES.gz"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop everything at the end")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object last")] = False,
    data: Annotated[Path, typer.Option(help="Directory of the demo's own data")] = Path(".flowtrail/demo"),
    ports: Annotated[
        str | None, typer.Option(help="default or auto; without it the default ones where all are free")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the flows of earlier runs")] = False,
) -> None:
    """Run the cases of a real permit process on servers of its own, and verify every flow."""
    try:
        from cli.demo_installation import DemoInstallation, prepare_folder
        from cli.demo_run import run
        from examples.permit.expected import count_branches
        from examples.permit.xes import read_cases
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith("examples"):
            raise
        from engine.errors import InputError

        raise InputError(
            f"Expected examples/permit beside the program in {ROOT} but it is absent: run the demo from a clone"
        ) from None

    signal.signal(signal.SIGTERM, _interrupt)
    chosen_ports = _checked(ports)
    log = given or (REAL_LOG if REAL_LOG.is_file() else None)
    cases = list(read_cases(log)) if log else []
    turn = prepare_folder(data, keep=keep)
    if log is None:
        log = _generate(data)
        cases = list(read_cases(log))
    expected = count_branches(log)
    _say(f"{len(cases)} cases of {log}")
    with DemoInstallation(data, chosen_ports, _say) as installation:
        outcome = run(installation, cases, expected, turn, _say)
        _print_outcome(outcome, installation, as_json=as_json, once=once)
        if not once:
            installation.watch()
    if as_json:
        _print_json(outcome)
    if outcome.differences:
        raise typer.Exit(1)
