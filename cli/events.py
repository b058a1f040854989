"""`flowtrail events`: CloudEvents for flows that listen, through the API. Thin: everything is the SDK's Client."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.flows import Json, Url, connect, print_json, read_input

app = typer.Typer(help="Publish CloudEvents.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Publish CloudEvents."""


@app.command()
def publish(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE|-", help="An event in CloudEvents' JSON format, or an array of them"),
    ],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Publish events; `specversion` and `id` are added where they are missing."""
    events = _events(read_input(file if file == "-" else f"@{file}"))
    with connect(url) as client:
        answer = client.publish_events(events)
    if as_json:
        print_json(answer)
        return
    for event in answer["events"]:
        typer.echo(event["id"])


def _events(value: Any) -> list[dict[str, Any]]:
    from engine.errors import InputError

    events = value if isinstance(value, list) else [value]
    for number, event in enumerate(events):
        if not isinstance(event, dict):
            raise InputError(f"Expected events as JSON objects but found {type(event).__name__} at /{number}")
    if not events:
        raise InputError("Expected at least one event but the array is empty")
    return events
