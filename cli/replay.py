"""`flowtrail replay flow|diff|blame|verify|what-if|bisect|snapshot`: rebuild and prove flows from the log alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import progress_line
from cli.exporting import snapshot
from cli.whatif import bisect, what_if

if TYPE_CHECKING:
    from replay.findings import Report
    from replay.flow import Log

app = typer.Typer(help="Rebuild and verify flows from the log alone.", no_args_is_help=True)
app.command("what-if")(what_if)
app.command()(bisect)

Json = Annotated[bool, typer.Option("--json", help="One JSON object")]
Kafka = Annotated[str | None, typer.Option(help="Kafka bootstrap servers [FLOWTRAIL_KAFKA]")]
Postgres = Annotated[str | None, typer.Option(help="Postgres connection string [FLOWTRAIL_POSTGRES]")]
NoIndex = Annotated[
    bool, typer.Option("--no-index", help="Scan the flow's partition; do not ask the read model")
]
SHOWN_MAX = 20


app.command()(snapshot)


@app.callback()
def group() -> None:
    """Rebuild and verify flows from the log alone."""


@app.command()
def flow(
    flow_id: Annotated[str, typer.Argument(metavar="ID", help="The flow's id")],
    until: Annotated[
        str | None,
        typer.Option(metavar="SEQ|TIME", help="After event SEQ, or at an RFC 3339 time or epoch seconds"),
    ] = None,
    as_json: Json = False,
    no_index: NoIndex = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
) -> None:
    """Rebuild a flow as it stands, or stood at a moment. Ends with 1 when its events do not fold, 2 when it is unknown."""
    import msgspec

    from engine.settings import read_settings
    from replay.flow import index_of, rebuild
    from replay.moment import parse_moment
    from replay.showing import document, lines

    settings = read_settings(kafka=kafka, postgres=postgres)
    moment = None if until is None else parse_moment(until)
    index = None if no_index else index_of(settings.postgres)
    rebuilt = rebuild(settings.kafka, settings.topic_prefix, flow_id, moment, index)
    if as_json:
        typer.echo(msgspec.json.encode(document(rebuilt)).decode())
        return
    for line in lines(rebuilt):
        typer.echo(line)


@app.command()
def diff(
    flow_id: Annotated[str, typer.Argument(metavar="ID", help="The flow's id")],
    since: Annotated[str, typer.Argument(metavar="SEQ|TIME", help="After event SEQ, or at an RFC 3339 time")],
    until: Annotated[
        str | None, typer.Argument(metavar="[SEQ|TIME]", help="The other moment; without: now")
    ] = None,
    as_json: Json = False,
    no_index: NoIndex = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
) -> None:
    """Show what is different between two moments of a flow, and which event made it so."""
    from replay import past
    from replay.moment import parse_moment

    one = parse_moment(since, "the first moment")
    other = None if until is None else parse_moment(until, "the second moment")
    told = past.difference(_log(flow_id, kafka, postgres, no_index), one, other)
    if as_json:
        _print_json(told)
        return
    typer.echo(f"{flow_id}: event {told['from']} to {told['to']}, {len(told['changes'])} changes")
    for change in told["changes"]:
        before, after = (_short(change[n]) if n in change else "(nothing)" for n in ("before", "after"))
        typer.echo(f"  {change['path']}: {before} -> {after}")
        typer.echo(f"    {_who(change['by'])}")


@app.command()
def blame(
    flow_id: Annotated[str, typer.Argument(metavar="ID", help="The flow's id")],
    path: Annotated[str, typer.Argument(metavar="[POINTER]", help="Such as /context/amount")] = "",
    until: Annotated[
        str | None, typer.Option(metavar="SEQ|TIME", help="After event SEQ, or at an RFC 3339 time")
    ] = None,
    as_json: Json = False,
    no_index: NoIndex = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
) -> None:
    """Show for each value of a flow's data which event gave it."""
    from replay import past
    from replay.moment import parse_moment

    moment = None if until is None else parse_moment(until)
    told = past.blame(_log(flow_id, kafka, postgres, no_index), path, moment)
    if as_json:
        _print_json(told)
        return
    for found in told["values"]:
        typer.echo(f"{found['path'] or '(all)'} = {_short(found['value'])}")
        typer.echo(f"  {_who(found['by'])}")


def _log(flow_id: str, kafka: str | None, postgres: str | None, no_index: bool) -> Log:
    from engine.settings import read_settings
    from replay.flow import index_of, read_flow

    settings = read_settings(kafka=kafka, postgres=postgres)
    index = None if no_index else index_of(settings.postgres)
    return read_flow(settings.kafka, settings.topic_prefix, flow_id, index)


def _print_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())


def _short(value: object) -> str:
    import msgspec

    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:200]} … ({len(text)} characters)"


def _who(by: dict[str, Any]) -> str:
    where = "" if by["task"] is None else f" {by['task']}"
    actor = f"{by['actor']['kind']} {by['actor']['id']}".strip()
    return f"event {by['sequence']} {by['time']} {by['kind']}{where} by {actor} ({by['command_id']})"


@app.command()
def verify(
    flow_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One flow")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every flow")] = False,
    as_json: Json = False,
    no_read_model: Annotated[
        bool, typer.Option("--no-read-model", help="Verify the log only; Postgres is not needed")
    ] = False,
    processes: Annotated[
        int, typer.Option(help="Processes that share the partitions, at the most", min=1, max=64)
    ] = 2,
    grace_s: Annotated[
        float, typer.Option("--grace-s", help="Seconds the read model gets to fold the log's end", min=0)
    ] = 10.0,
    kafka: Kafka = None,
    postgres: Postgres = None,
) -> None:
    """Decide every recorded cause again and compare bytes, hashes and the read model. Ends with 1 when something differs."""
    from engine.errors import InputError
    from engine.logs import configure
    from engine.settings import read_settings
    from replay.verify import Scope, verify_all, verify_one

    if everything == (flow_id is not None):
        raise InputError(f"Expected a flow's id or --all but found {'both' if everything else 'neither'}")
    settings = read_settings(kafka=kafka, postgres=postgres)
    scope = Scope(
        kafka=settings.kafka,
        prefix=settings.topic_prefix,
        postgres=None if no_read_model else settings.postgres,
        processes=processes,
        grace_s=grace_s,
        expression_deadline_ms=settings.expression_deadline_ms,
        expression_memory_bytes=settings.expression_memory_mib * 1024 * 1024,
        log_level="error" if settings.log_level == "error" else "warning",
    )
    configure(scope.log_level, "replay")
    progress = progress_line("read")
    report = verify_all(scope, progress) if flow_id is None else verify_one(scope, flow_id, progress)
    _print(report, as_json)
    raise typer.Exit(0 if report.right else 1)


def _print(report: Report, as_json: bool) -> None:
    import msgspec

    if sys.stderr.isatty():
        typer.echo("\r\033[K", nl=False, err=True)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
        return
    model = report.read_model
    typer.echo(
        f"log: {report.flows} flows, {report.events} events, {report.rejections} rejections; {report.verified} flows "
        f"verified in {report.seconds:.1f} s ({report.events_per_second:.0f} events/s, {report.processes} processes)"
    )
    _print_some(report.different_count, [str(finding) for finding in report.different])
    if model is None:
        typer.echo("read model: not compared")
        return
    typer.echo(
        f"read model: {model.checked} flows, {model.rows} rows compared"
        + (f"; behind by {model.behind} records" if model.behind else "")
        + (f"; {model.unreadable} records unreadable" if model.unreadable else "")
    )
    _print_some(model.different_count, [str(finding) for finding in model.different])


def _print_some(count: int, findings: list[str]) -> None:
    for finding in findings[:SHOWN_MAX]:
        typer.echo(f"  different: {finding}")
    if count > SHOWN_MAX:
        typer.echo(f"  … and {count - SHOWN_MAX} more")
