"""`flowtrail demo`: real cases of a permit process run through a whole Flowtrail of its own, and the proof that all is well.

Here are the options, the order of things and what is printed; the servers and processes are demo_installation.py's, the
run and its checks demo_run.py's. Everything a user can get wrong is found before a server starts. Ends with 0 only when
every flow ended, on the branch an independent count says, and verified by replay.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

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
    if log is not None:
        cases, expected = list(read_cases(log)), count_branches(log)
        _refuse_inside(log, data)
    turn = prepare_folder(data, keep=keep)
    if log is None:
        log = _generate(data)
        cases, expected = list(read_cases(log)), count_branches(log)
    _say(f"{len(cases)} cases of {log}")
    with DemoInstallation(data, chosen_ports, _say) as installation:
        outcome = run(installation, cases, expected, turn, _say)
        _print_outcome(outcome, installation, as_json=as_json, once=once)
        if not once:
            _stay(outcome, as_json=as_json)
    if once and as_json:
        _print_json(outcome)
    if outcome.differences:
        raise typer.Exit(1)


def _stay(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        _print_json(outcome)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()


def _checked(ports: str | None) -> str | None:
    if ports not in (None, "default", "auto"):
        from engine.errors import InputError

        raise InputError(f"Expected --ports to be default or auto but found {ports!r}")
    return ports


def _refuse_inside(log: Path, data: Path) -> None:
    """The directory is emptied: nothing of the user's may be in it."""
    if log.resolve().is_relative_to(data.resolve()):
        from engine.errors import InputError

        raise InputError(f"Expected --input outside of the demo's own {data} but found {log}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds as Ctrl-C does, so that everything is stopped in order."""
    raise KeyboardInterrupt


def _generate(data: Path) -> Path:
    from examples.permit.generate import CASES, SEED, write_log

    log = data / _GENERATED
    write_log(log)
    _say(
        f"no --input and no {REAL_LOG.name} in ../shared/data: generated {CASES} cases of the same shape (seed {SEED})"
    )
    return log


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_outcome(outcome: Outcome, installation: DemoInstallation, *, as_json: bool, once: bool) -> None:
    """The table and what to do next: on standard output, unless that is for the JSON object."""
    from rich.console import Console

    console = Console(stderr=as_json, highlight=False)
    console.print(_table(outcome))
    for difference in outcome.differences:
        console.print(f"differs: {difference}", markup=False, soft_wrap=True)
    if once:
        console.print(
            f"look again: flowtrail up --data {_shown(installation.data)}", markup=False, soft_wrap=True
        )
        return
    for line in _next_steps(outcome, installation):
        console.print(line, markup=False, soft_wrap=True)


def _table(outcome: Outcome) -> Any:
    from rich.table import Table

    table = Table(title=f"{outcome.flows} permit cases", title_justify="left")
    table.add_column("branch")
    table.add_column("flows", justify="right")
    table.add_column("expected", justify="right")
    branches = list(outcome.expected_by_branch)
    branches += [name for name in sorted(outcome.by_branch) if name not in outcome.expected_by_branch]
    for name in branches:
        flows, expected = outcome.by_branch.get(name, 0), outcome.expected_by_branch.get(name, 0)
        table.add_row(name, str(flows), str(expected), style=None if flows == expected else "red")
    table.add_section()
    table.add_row("completed", str(outcome.completed))
    table.add_row("faulted", str(outcome.faulted))
    table.add_row("verified by replay", str(outcome.replay_verified), str(outcome.flows))
    table.add_section()
    table.add_row("flows/s", f"{outcome.flows_per_second:.0f}")
    table.add_row("flow time p50", f"{outcome.p50_ms:.0f} ms")
    table.add_row("flow time p99", f"{outcome.p99_ms:.0f} ms")
    return table


def _next_steps(outcome: Outcome, installation: DemoInstallation) -> list[str]:
    data = _shown(installation.data)
    enter = f". {data}/env"
    return [
        "",
        "Try next, in another terminal:",
        f"  {enter} && flowtrail flows list --limit 5",
        f"  {enter} && flowtrail replay flow {outcome.first_id}",
        f'  {enter} && curl -s -H "Authorization: Bearer $FLOWTRAIL_API_KEY" {installation.api_url}/flows/{outcome.first_id}/history',
        "",
        *(f"{name:<24} {url}" for name, url in sorted(installation.urls.items())),
        f"{'API key':<24} {data}/api-key",
        "",
        "Ctrl-C stops everything.",
    ]


def _shown(data: Path) -> str:
    """As short as the shell understands it from where the user stands."""
    import shlex

    path = data.relative_to(Path.cwd()) if data.is_relative_to(Path.cwd()) else data
    return shlex.quote(str(path))


def _print_json(outcome: Outcome) -> None:
    import json
    from dataclasses import asdict

    print(json.dumps(asdict(outcome)), flush=True)
