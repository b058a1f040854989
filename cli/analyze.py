"""`flowtrail analyze`: what many flows have in common, through the API; driven (`flows`) and recorded (`trails`) alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from cli.console import print_result

app = typer.Typer(help="Paths, times, waits and what to do about them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="namespace/name[@version]; of recorded flows: their name")]
Source = Annotated[str, typer.Option(help="flows (driven) or trails (recorded)")]
Project = Annotated[str, typer.Option(help="Of recorded flows")]
Version = Annotated[str | None, typer.Option(help="Of the definition, or of the rules")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Flows that began then or later (RFC 3339)")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Flows that began before then")]
Url = Annotated[str | None, typer.Option("--url", help="Where the API is [FLOWTRAIL_API_URL]")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object")]


def _ask(question: str, url: str | None, **query: Any) -> dict[str, Any]:
    from cli.flows import connect

    with connect(url) as client:
        return client.analysis(question, **query)


@app.command()
def steps(
    name: Name, source: Source = "flows", project: Project = "default", version: Version = None,
    since: Since = None, until: Until = None, url: Url = None, as_json: Json = False,
) -> None:  # fmt: skip
    """How long each step works and waits."""
    found = _ask("steps", url, name=name, source=source, project=project, version=version, since=since, until=until)  # fmt: skip
    rows = (
        f"{one['step']:<40} {one['count']:>8}  works p50 {one['working']['p50']:.3f} p95 {one['working']['p95']:.3f} s, "
        f"waits p50 {one['waiting']['p50']:.3f} p95 {one['waiting']['p95']:.3f} s, {one['failed']} failed"
        for one in found["steps"]
    )
    print_result(found, _some(rows), as_json=as_json)


@app.command()
def variants(
    name: Name, source: Source = "flows", project: Project = "default", version: Version = None,
    since: Since = None, until: Until = None,
    limit: Annotated[int, typer.Option(help="Paths at the most", min=1)] = 20,
    url: Url = None, as_json: Json = False,
) -> None:  # fmt: skip
    """The paths that flows took, the most frequent first."""
    found = _ask("variants", url, name=name, source=source, project=project, version=version, since=since, until=until, limit=limit)  # fmt: skip
    rows = [f"{found['cases']} flows, {found['different']} paths"]
    rows += [f"{one['count']:>8}  {one['share']:.1%}  {' > '.join(one['path'])}" for one in found["variants"]]
    print_result(found, rows, as_json=as_json)


@app.command()
def graph(
    name: Name, source: Source = "flows", project: Project = "default", version: Version = None,
    since: Since = None, until: Until = None, url: Url = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Which step directly follows which."""
    found = _ask("graph", url, name=name, source=source, project=project, version=version, since=since, until=until)  # fmt: skip
    edges = sorted(found["edges"], key=lambda edge: -edge["count"])
    rows = (
        f"{edge['count']:>8}  {edge['from']} > {edge['to']}"
        + ("" if edge["seconds"] is None else f"  {edge['seconds']:.3f} s")
        for edge in edges
    )
    print_result(found, _some(rows), as_json=as_json)


@app.command()
def recommendations(
    name: Name, source: Source = "flows", project: Project = "default", version: Version = None,
    since: Since = None, until: Until = None, url: Url = None, as_json: Json = False,
) -> None:  # fmt: skip
    """What to do, with the evidence."""
    found = _ask("recommendations", url, name=name, source=source, project=project, version=version, since=since, until=until)  # fmt: skip
    rows = (f"{one['text']}  {one['evidence']}" for one in found["recommendations"])
    print_result(found, _some(rows), as_json=as_json)


def _some(rows: Iterable[str]) -> Iterable[str]:
    return list(rows) or ["nothing"]
