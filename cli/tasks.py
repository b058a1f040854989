"""`flowtrail tasks` and `flowtrail approvals`: what is completed by somebody else than a worker, through the API.

Thin: everything is the SDK's Client. The engine's refusal, such as of a task that is over, ends with its text and 2.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.flows import Json, Url, connect, print_json, print_table, read_input

app = typer.Typer(help="Complete or fail tasks from outside, by their token.", no_args_is_help=True)
approvals = typer.Typer(help="List and answer what waits for a person.", no_args_is_help=True)

Token = Annotated[str, typer.Argument(metavar="TOKEN", help="The task's token")]


@app.command()
def complete(
    token: Token,
    output: Annotated[
        str | None, typer.Option("--output", metavar="JSON|@FILE|-", help="The task's result; null without")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Complete a task."""
    value = None if output is None else read_input(output)
    with connect(url) as client:
        _say("completed", client.complete(token, value), as_json)


@app.command()
def fail(
    token: Token,
    detail: Annotated[str | None, typer.Option(help="What went wrong")] = None,
    error_type: Annotated[
        str | None, typer.Option("--type", help="The error's type, a URI; a runtime error without")
    ] = None,
    status: Annotated[int, typer.Option(help="The error's status", min=100, max=599)] = 500,
    title: Annotated[str | None, typer.Option(help="The error's title")] = None,
    incident: Annotated[
        bool, typer.Option("--incident", help="Suspend the flow: a person has to look")
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Fail a task."""
    from flowtrail import TaskError
    from flowtrail.errors import RUNTIME

    error = TaskError(error_type or RUNTIME, status, title, detail)
    with connect(url) as client:
        _say("failed", client.fail(token, error, incident=incident), as_json)


@approvals.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="Approvals at the most", min=1)] = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List what waits for a person, oldest first."""
    from itertools import islice

    with connect(url) as client:
        rows = list(islice(client.approvals(limit=min(limit, 500)), limit))
    if as_json:
        print_json(rows)
        return
    columns = {"flow": "flow_id", "task": "task", "request": "request", "since": "since", "token": "token"}
    print_table(rows, columns, "no approvals")


@approvals.command()
def answer(
    token: Token,
    given: Annotated[str, typer.Option("--answer", metavar="JSON|@FILE|-", help="What the form asks for")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Answer an approval."""
    value = read_input(given)
    with connect(url) as client:
        _say("answered", client.answer(token, value), as_json)


def _say(word: str, done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    told = word if done["decided"] else "asked; the engine has not decided yet"
    typer.echo(f"{told}: {done['task']} of {done['flow_id']}")
