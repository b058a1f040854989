"""`flowtrail up`, `down`, `status`, `doctor`: one installation on this machine, in one data directory.

What is started and in which order is cli/installation.py's; here are the options, the output and the signals.
`up --detach` runs the same `up` in a session of its own and returns when that says it is ready.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer

from cli.console import note, print_result

if TYPE_CHECKING:
    from cli.installation import Plan

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DETACHED_DEADLINE_S: Final = 300.0  # the first start of all fetches Kafka
NOT_RUNNING: Final = 3
UP_LOG: Final = "up.log"
POLL_S: Final = 0.05

Data = Annotated[
    Path,
    typer.Option(help="Directory of the servers' data, the logs and the API key", envvar="FLOWTRAIL_DATA"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


class Ended(BaseException):
    """A signal asked us to end. Not an Exception, so that nothing on the way takes it for a failure."""


def up(
    data: Data = Path(".flowtrail"),
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything runs")] = False,
    ports: Annotated[str, typer.Option(help="default, or auto: any free ones")] = "default",
    engines: Annotated[int, typer.Option(help="Engine processes", min=1, max=64)] = 1,
    as_json: Json = False,
    servers_only: Annotated[bool, typer.Option("--servers-only", hidden=True)] = False,
) -> None:
    """Start Kafka, Postgres, engine, projections, API and executor; stay until Ctrl-C.

    FLOWTRAIL_KAFKA and FLOWTRAIL_POSTGRES point at servers of your own, FLOWTRAIL_CACHE at the cache of Kafka's jars.
    """
    from cli.installation import Plan
    from engine.errors import InputError

    if ports not in ("default", "auto"):
        raise InputError(f"Expected --ports to be default or auto but found {ports!r}")
    plan = Plan(data.absolute(), cast(Literal["default", "auto"], ports), engines, servers_only)
    if detach:
        _run_detached(plan, as_json=as_json)
    else:
        _run(plan, as_json=as_json)


def down(data: Data = Path(".flowtrail"), as_json: Json = False) -> None:
    """Stop what `up` started in this directory, also what a killed `up` left running."""
    from stack.leftovers import take_down

    ran = take_down(data.absolute())
    text = f"stopped what ran in {data}" if ran else f"nothing runs in {data}"
    print_result({"data": str(data.absolute()), "stopped": ran}, [text], as_json=as_json)


def status(data: Data = Path(".flowtrail"), as_json: Json = False) -> None:
    """Show every process of this directory. Ends with 3 unless all of them run."""
    found = _status(data.absolute())
    print_result(found, _status_lines(found, data), as_json=as_json)
    if not found["running"]:
        raise typer.Exit(NOT_RUNNING)


def doctor(data: Data = Path(".flowtrail"), as_json: Json = False) -> None:
    """Check what is needed, and what runs; for each failure, the next command. Ends with 1 when something is wrong."""
    from dataclasses import asdict

    from stack.checks import checks

    found = []
    for check in checks(data):
        found.append(check)
        if not as_json:
            print(f"{check.name}: OK ({check.detail})" if check.ok else f"{check.name}: {check.detail}")
            if not check.ok:
                print(f"  next: {check.next_command}")
    wrong = [check.name for check in found if not check.ok]
    if as_json:
        print_result({"ok": not wrong, "checks": [asdict(check) for check in found]}, [], as_json=True)
    if wrong:
        raise typer.Exit(1)


def _run(plan: Plan, *, as_json: bool) -> None:
    from cli.installation import Installation

    installation = Installation(plan, note)
    ready = False
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks for
            signal.signal(number, _end)
    try:
        installation.start()
        summary = installation.summary()
        ready = True  # before it is said: whoever reads it may stop us at once
        print_result(summary, _up_lines(summary, "Ctrl-C stops everything."), as_json=as_json)
        while True:
            signal.pause()
    except Ended:
        note("stopping")
    finally:
        # a second Ctrl-C must not leave half of it running; every step of a stop has a deadline
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        installation.stop()
    if not ready:
        raise typer.Exit(130)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise Ended


def _run_detached(plan: Plan, *, as_json: bool) -> None:
    """The log file is the new process's standard error; what went wrong there is told here."""
    from cli.installation import command, environment
    from engine.errors import AwayError, FlowtrailError, InputError
    from stack import state
    from stack.processes import tail

    words = ["up", "--data", str(plan.data), "--ports", plan.ports, "--engines", str(plan.engines), "--json"]
    log = plan.data / "logs" / UP_LOG
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(*words, *(["--servers-only"] if plan.servers_only else [])),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as problem:
        raise InputError(f"Expected to be able to write to {plan.data} but {problem.strerror}") from None
    end = time.monotonic() + DETACHED_DEADLINE_S
    while time.monotonic() < end:
        code = process.poll()
        if code is not None:
            kinds: dict[int, type[FlowtrailError]] = {2: InputError, 3: AwayError}
            raise kinds.get(code, FlowtrailError)(
                f"Expected the installation to start but it ended with {code}; the end of {log}:\n{tail(log)}"
            )
        found = state.read(plan.data)
        if found is not None and found.launcher.pid == process.pid and found.phase == "ready":
            _print_detached(plan, found.launcher.pid, as_json=as_json)
            return
        time.sleep(POLL_S)
    process.terminate()
    raise AwayError(f"Expected the installation to be ready within {DETACHED_DEADLINE_S:.0f} s; see {log}")


def _print_detached(plan: Plan, pid: int, *, as_json: bool) -> None:
    found = _status(plan.data)
    summary: dict[str, Any] = {
        "data": str(plan.data),
        "pid": pid,
        "urls": found["urls"],
        "processes": {process["name"]: process["pid"] for process in found["processes"]},
    }
    if not plan.servers_only:
        from cli.installation import API_KEY_FILE

        summary["api_key_file"] = str(plan.data / API_KEY_FILE)
    lines = _up_lines(summary, f"`flowtrail down --data {plan.data}` stops everything.")
    print_result(summary, lines, as_json=as_json)


def _up_lines(summary: dict[str, Any], last: str) -> Iterator[str]:
    data = Path(summary["data"])
    names = {"api": "API", "kafka": "Kafka", "postgres": "Postgres"}
    yield "Flowtrail runs:"
    for name, url in sorted(summary["urls"].items(), key=lambda item: item[0] != "api"):
        hint = f" (password in {data / 'postgres-password'})" if _is_embedded(name, summary) else ""
        yield f"  {names.get(name, name)}: {url}{hint}"
    if "api_key_file" in summary:
        yield f"  API key: {summary['api_key_file']}"
    yield f"  logs: {data / 'logs'}"
    yield last


def _is_embedded(name: str, summary: dict[str, Any]) -> bool:
    return name == "postgres" and "postgres" in summary["processes"]


def _status(data: Path) -> dict[str, Any]:
    from stack import state

    found = state.read(data)
    if found is None:
        return {"data": str(data), "running": False, "phase": "stopped", "urls": {}, "processes": []}
    processes = [
        {
            "name": process.name,
            "pid": process.pid,
            "up": process.identity.alive(),
            "port": process.port or None,
            "restarts": process.restarts,
        }
        for process in found.processes
    ]
    launched = found.launcher.alive()
    return {
        "data": str(data),
        "running": launched and found.phase == "ready" and all(process["up"] for process in processes),
        "phase": found.phase if launched else "stopped",
        "launcher": found.launcher.pid if launched else None,
        "urls": found.urls if launched else {},
        "processes": processes,
    }


def _status_lines(found: dict[str, Any], data: Path) -> Iterator[str]:
    if found["phase"] == "stopped":
        left = [process["name"] for process in found["processes"] if process["up"]]
        if left:
            yield f"the launcher of {data} has ended but {', '.join(left)} runs; `flowtrail down --data {data}` stops it"
        else:
            yield f"nothing runs in {data}; `flowtrail up --data {data}` starts it"
        return
    yield f"{found['phase']}, launcher pid {found['launcher']} ({os.fspath(data)})"
    for process in found["processes"]:
        state = "up" if process["up"] else "down"
        port = f" port {process['port']}" if process["port"] else ""
        restarts = f" restarts {process['restarts']}" if process["restarts"] else ""
        yield f"  {process['name']}: {state} pid {process['pid']}{port}{restarts}"
