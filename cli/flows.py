"""`flowtrail flows`: start flows and follow them, through the API.

Thin: everything is the SDK's Client; here are arguments, tables and exit codes. Waiting for a flow that ends other
than completed, or not in time, ends with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import turning

if TYPE_CHECKING:
    from flowtrail import Client

app = typer.Typer(help="Start flows and follow them.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON")]
Url = Annotated[str | None, typer.Option("--url", help="Where the API is [FLOWTRAIL_API_URL]")]
FlowId = Annotated[str, typer.Argument(metavar="ID", help="The flow's id")]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the log")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at the most", min=0)]


def connect(url: str | None) -> Client:
    """A client for the API of the settings; without FLOWTRAIL_API_KEY the key that `flowtrail up` keeps in its data."""
    from flowtrail import Client

    from engine.settings import read_settings

    settings = read_settings(api_url=url)
    return Client(settings.api_url, api_key(settings.api_key, settings.data), retry_s=3.0)


def api_key(given: str, data: str) -> str:
    if given:
        return given
    try:
        return (Path(data) / "api-key").read_text("utf-8").strip()
    except FileNotFoundError:
        return ""  # the API's own answer says best what it expects
    except (OSError, UnicodeDecodeError) as problem:
        from engine.errors import InputError

        raise InputError(f"Expected an API key in {Path(data) / 'api-key'} but {problem}") from None


def print_json(value: object) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_table(rows: Iterable[dict[str, Any]], columns: dict[str, str], empty: str) -> None:
    """One line a row; `columns` maps headings to keys (a.b for a member of a member). A terminal gets a table, a pipe plain columns without cutting."""
    kept = list(rows)
    if not kept:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold", no_wrap=not console.is_terminal)
    for row in kept:
        table.add_row(*(_cell(_at(row, key)) for key in columns.values()))
    if not console.is_terminal:
        console = Console(width=1000)
    console.print(table)


def _at(row: dict[str, Any], key: str) -> object:
    """`actor.id` is the member id of the member actor."""
    found: Any = row
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, dict | list):
        import orjson

        return escape(orjson.dumps(value).decode())
    return escape(str(value))


def read_input(given: str | None) -> Any:
    """The value of --input: JSON, @FILE or - for standard input."""
    import orjson

    from engine.errors import InputError

    if given is None:
        return {}
    try:
        if given == "-":
            text, place = sys.stdin.buffer.read(), "standard input"
        elif given.startswith("@"):
            text, place = Path(given[1:]).read_bytes(), given[1:]
        else:
            text, place = given.encode("utf-8", "surrogateescape"), "--input"
    except OSError as problem:
        raise InputError(f"Expected the input's file {given[1:]} but {problem.strerror}") from None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        raise InputError(f"Expected JSON in {place} but {problem}") from None


def show(flow: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(flow)
        return
    for key, value in flow.items():
        if value is not None:
            typer.echo(f"{key:<20} {_plain(value)}")


def _plain(value: object) -> str:
    import orjson

    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


def _ended(flow: dict[str, Any], as_json: bool) -> None:
    show(flow, as_json)
    if flow.get("status") != "completed":
        raise typer.Exit(1)


@app.command()
def start(
    definition: Annotated[
        str, typer.Argument(help="namespace/name (its newest version) or namespace/name@version")
    ],
    given: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE|-", help="The flow's input; {} without")
    ] = None,
    flow_id: Annotated[str | None, typer.Option("--id", help="An id of your own")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key starts one flow only")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the flow has ended")] = False,
    timeout: Timeout = 60.0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Start a flow."""
    value = read_input(given)
    with connect(url) as client:
        flow = client.start(definition, value, id=flow_id, idempotency_key=key)
        if wait:
            _ended(flow.wait(timeout), as_json)
        elif as_json:
            print_json({"id": flow.id, "definition": flow.definition, "command_id": flow.command_id,
                        "position": flow.position})  # fmt: skip
        else:
            typer.echo(flow.id)


@app.command()
def get(flow_id: FlowId, url: Url = None, as_json: Json = False) -> None:
    """Show a flow."""
    with connect(url) as client:
        show(client.get(flow_id), as_json)


@app.command("list")
def list_(
    status: Annotated[
        str | None, typer.Option(help="running, completed, faulted, cancelled or suspended")
    ] = None,
    definition: Annotated[str | None, typer.Option(help="namespace/name or namespace/name@version")] = None,
    limit: Annotated[int, typer.Option(help="Flows at the most", min=1)] = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List flows, newest first."""
    from itertools import islice

    with connect(url) as client:
        found = client.flows(status=status, definition=definition, limit=min(limit, 500))
        rows = list(islice(found, limit))
    if as_json:
        print_json(rows)
        return
    columns = {
        "id": "id",
        "definition": "definition",
        "status": "status",
        "started": "started_at",
        "ended": "ended_at",
    }
    print_table(rows, columns, "no flows")


@app.command()
def history(flow_id: FlowId, url: Url = None, as_json: Json = False) -> None:
    """Show every event of a flow: who, what, when, why."""
    with connect(url) as client:
        rows = list(client.history(flow_id))
    if as_json:
        print_json(rows)
        return
    columns = {
        "#": "sequence", "time": "time", "event": "kind", "task": "task", "run": "run",
        "by": "actor.kind", "who": "actor.id", "why": "cause.command_id",
    }  # fmt: skip
    print_table(rows, columns, "no events")


@app.command()
def wait(flow_id: FlowId, timeout: Timeout = 60.0, url: Url = None, as_json: Json = False) -> None:
    """Wait until a flow has ended; exit 1 when it did not complete."""
    with connect(url) as client:
        _ended(client.wait(flow_id, timeout), as_json)


@app.command()
def cancel(
    flow_id: FlowId,
    reason: Reason = None,
    compensate: Annotated[bool, typer.Option("--compensate", help="Undo completed tasks first")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Ask for a flow to be cancelled."""
    with connect(url) as client:
        answer = client.cancel(flow_id, reason, compensate=compensate)
    _asked(f"asked to cancel {flow_id}", answer, as_json)


@app.command()
def suspend(flow_id: FlowId, reason: Reason = None, url: Url = None, as_json: Json = False) -> None:
    """Ask a flow to pause; what comes in meanwhile is kept."""
    with connect(url) as client:
        answer = client.suspend(flow_id, reason)
    _asked(f"asked to suspend {flow_id}", answer, as_json)


@app.command()
def resume(flow_id: FlowId, reason: Reason = None, url: Url = None, as_json: Json = False) -> None:
    """Ask a suspended flow to go on."""
    with connect(url) as client:
        answer = client.resume(flow_id, reason)
    _asked(f"asked to resume {flow_id}", answer, as_json)


def _asked(text: str, answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(text)


app.command()(turning.rollback)
app.command()(turning.migrate)
app.command()(turning.rerun)
