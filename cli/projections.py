"""`flowtrail projections run|status`: the read models' process, and how far they have come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import progress_line

if TYPE_CHECKING:
    from replay.rebuild import RebuildReport

app = typer.Typer(help="Fold the log into the read models.", no_args_is_help=True)

Kafka = Annotated[str | None, typer.Option(help="Kafka bootstrap servers [FLOWTRAIL_KAFKA]")]
Postgres = Annotated[str | None, typer.Option(help="Postgres connection string [FLOWTRAIL_POSTGRES]")]


@app.callback()
def group() -> None:
    """Fold the log into the read models."""


@app.command()
def run(
    instance: Annotated[
        str | None,
        typer.Option(
            help="Share the partitions with other projectors, as this member; without: all partitions"
        ),
    ] = None,
    kafka: Kafka = None,
    postgres: Postgres = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics; 0 opens none [FLOWTRAIL_METRICS_PORT]")
    ] = None,
) -> None:
    """Project until SIGTERM or SIGINT. Ends with 3 when the database was not migrated (flowtrail admin init)."""
    import signal
    import threading

    from engine.collecting import settle
    from engine.logs import configure
    from engine.settings import read_settings
    from projections import metrics
    from projections.projector import Projector

    settings = read_settings(kafka=kafka, postgres=postgres, metrics_port=metrics_port)
    configure(settings.log_level, "projections")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics.serve(settings.metrics_host, settings.metrics_port)
    projector = Projector(
        settings.kafka, settings.postgres, settings.topic_prefix, instance=instance, stop=stop
    )
    settle()
    projector.run()


@app.command()
def rebuild(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="main: all tables; flows (with tasks), tasks (with flows), history or rejections",
        ),
    ] = "main",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only flows with an event at or after this time; the others are copied"
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Records a second at the most, so that others get on; 0: no limit", min=0)
    ] = 30_000,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Put the new ones in place though they differ")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
) -> None:
    """Make the read models again from the log, beside those in use, compare, and put them in place.

    Reads go on all the time. Run it again after a crash: it goes on where it was. Of a part, the rest is copied from the
    tables in use. Ends with 1 when a table in use is not what the log gives; then nothing is put in place, unless
    differences are accepted.
    """
    import msgspec

    from engine.logs import configure
    from engine.settings import read_settings
    from replay.beside import parse_part
    from replay.rebuild import rebuild as make

    part = parse_part(name, since)
    settings = read_settings(kafka=kafka, postgres=postgres)
    configure("error" if settings.log_level == "error" else "warning", "projections")
    report = make(
        settings.kafka,
        settings.postgres,
        settings.topic_prefix,
        part,
        rate=rate,
        swap_different=accept_differences,
        progress=progress_line("folded"),
    )
    if json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        for line in _told(report):
            typer.echo(line)
    raise typer.Exit(0 if report.equal else 1)


def _told(report: RebuildReport) -> Iterator[str]:
    again = ", resumed" if report.resumed else ""
    yield (
        f"{report.records} records in {report.seconds:.1f} s ({report.records_per_second:.0f}/s{again}); the projector "
        f"was held for {report.held_seconds:.2f} s"
    )
    if report.flows is not None:
        yield f"  {report.flows} flows have an event since then; the others' rows are copies"
    for table, found in report.tables.items():
        word = "equal" if found.equal else f"DIFFERENT, first at {found.first}"
        others = f", {found.copied} copied" if report.flows is not None else ""
        yield f"  {table:<11} {found.rebuilt_rows:>10} rows  sha256 {found.rebuilt_sha256[:16]}…  {word}{others}"
    for table, rows in report.copied.items():
        yield f"  {table:<11} {rows:>10} rows  copied, not rebuilt"
    if report.healed:
        yield f"{report.healed} flows were folded anew on the way"
    yield (
        "the rebuilt read models are in place; undo: flowtrail projections rollback"
        if report.swapped
        else "nothing was put in place; --accept-differences does it all the same"
    )


@app.command()
def rollback(postgres: Postgres = None) -> None:
    """Put back the read models from before the last rebuild; the projector then folds what they lack."""
    from engine.settings import read_settings
    from replay.rebuild import roll_back

    roll_back(read_settings(postgres=postgres).postgres)
    typer.echo("the read models of before the rebuild are in place")


@app.command()
def status(
    json: Annotated[bool, typer.Option("--json", help="One JSON object")] = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
    stale_after: Annotated[
        float, typer.Option(help="Seconds without progress, while records wait, that count as stale")
    ] = 10.0,
) -> None:
    """Show each partition's position and lag. Ends with 1 when a partition is stale, 3 when a server is away."""
    import msgspec

    from engine.settings import read_settings
    from projections.standing import read_standing

    settings = read_settings(kafka=kafka, postgres=postgres)
    standing = read_standing(settings.kafka, settings.postgres, settings.topic_prefix, stale_after)
    if json:
        typer.echo(msgspec.json.encode(standing).decode())
    else:
        typer.echo(
            f"{standing.topic}: {standing.lag} records behind, {standing.unreadable} unreadable, "
            f"{standing.broken} flows broken in the log, {standing.healed} healed"
        )
        typer.echo(f"{'partition':>9} {'position':>10} {'end':>10} {'lag':>7}  {'last event':<27} state")
        for line in standing.partitions:
            event = "-" if line.event_time is None else f"{line.event_time:%Y-%m-%d %H:%M:%S.%f}Z"
            state = "STALE" if line.stale else "ok"
            typer.echo(
                f"{line.partition:>9} {line.position:>10} {line.end:>10} {line.lag:>7}  {event:<27} {state}"
            )
        for one in standing.healings:
            typer.echo(f"healed {one.healed_at:%Y-%m-%d %H:%M:%S}Z {one.flow_id}: {one.found}")
    raise typer.Exit(1 if standing.stale else 0)
