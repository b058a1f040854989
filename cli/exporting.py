"""`flowtrail export|import` and `flowtrail replay snapshot`: the log's flows to files, and back.

Thin: what is done is replay's; here are arguments, progress on a terminal, a report and the exit code.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.console import note, print_result

if TYPE_CHECKING:
    from collections.abc import Callable

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object")]
Kafka = Annotated[str | None, typer.Option(help="Kafka bootstrap servers [FLOWTRAIL_KAFKA]")]
_SHOWN_MAX: Final = 20


def export(
    out: Out,
    flow: Annotated[str | None, typer.Option(metavar="ID", help="One flow")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole log")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Flows that began at this time or later")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Flows that began before this time")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="jsonl, avro, parquet, xes or ocel; without: as the file's name ends"),
    ] = None,
    as_json: Json = False,
    kafka: Kafka = None,
) -> None:
    """Write flows, a range of them or the whole log to a file.

    jsonl and avro hold the records themselves, for `flowtrail import`; xes and ocel are for process-mining tools, parquet
    for tables. Ends with 1 when records are unreadable or definitions are missing in the log; jsonl and avro say so and
    hold the rest.
    """
    from engine.settings import read_settings
    from replay.export import export as write
    from replay.export import parse_format
    from replay.selection import parse_selection

    selection = parse_selection(flow, everything, since, until)
    chosen = parse_format(form, out)
    settings = read_settings(kafka=kafka)
    now = time.time_ns() // 1000
    report = write(settings.kafka, settings.topic_prefix, selection, chosen, out, now, progress())
    _clear()
    raw = chosen in ("jsonl", "avro")
    lines = [
        f"{out}: {report.flows} flows ({report.ended} ended), {report.events} events, {report.rejections} rejections"
        + (f", {report.definitions} definitions" if raw else "")
    ]
    if report.rejections and chosen in ("xes", "ocel"):
        lines.append(f"rejections are no events of a flow and are not in {chosen}")
    if report.sha256 is not None:
        lines.append(f"sha256 of the entries: {report.sha256}")
    print_result(_document(report), lines, as_json=as_json)
    if report.unreadable:
        note(f"Expected readable records but {report.unreadable} are not; the file holds them as they are")
    for name in report.missing[:_SHOWN_MAX]:
        note(
            f"Expected definition {name} in the log but it is not there; the file cannot be imported without it"
        )
    raise typer.Exit(1 if report.unreadable or report.missing else 0)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A raw export (jsonl or avro)")],
    schedules: Annotated[
        bool, typer.Option("--schedules", help="Import definitions whose schedule will start flows here")
    ] = False,
    as_json: Json = False,
    kafka: Kafka = None,
) -> None:
    """Write an export into this installation's log: the same bytes, the same hashes.

    What is imported is history: no engine goes on with it. Nothing is written when the file is damaged or one of its
    flows is here already. An import that was interrupted goes on when it is run again.
    """
    from engine.settings import read_settings
    from replay.imports import import_file

    settings = read_settings(kafka=kafka)
    report = import_file(
        settings.kafka, settings.topic_prefix, file, schedules=schedules, progress=progress()
    )
    _clear()
    lines = [
        f"{report.written} records of {report.flows} flows written, {report.definitions} definitions added"
    ]
    if report.there:
        lines.append(f"{report.there} records were here from an earlier run of this import")
    if report.live:
        lines.append(f"{report.live} flows had not ended; they are history here, no engine goes on with them")
    print_result(_document(report), lines, as_json=as_json)


def snapshot(
    out: Out,
    at: Annotated[
        str, typer.Option("--at", metavar="TIME|now", help="An RFC 3339 time, epoch seconds, or now")
    ] = "now",
    live: Annotated[bool, typer.Option("--live", help="Only flows that had not ended then")] = False,
    as_json: Json = False,
    kafka: Kafka = None,
) -> None:
    """Write the state of every flow at a cut of the log (.jsonl, .avro or .parquet). Ends with 1 when flows do not fold."""
    from engine.settings import read_settings
    from replay.snapshot import parse_cut
    from replay.snapshot import snapshot as write

    moment = parse_cut(at)
    settings = read_settings(kafka=kafka)
    cut = write(settings.kafka, settings.topic_prefix, moment, out, live_only=live, progress=progress())
    _clear()
    as_of = "the log's end" if cut.at is None else cut.at
    lines = [f"{out}: {cut.flows} flows ({cut.live} live) as of {as_of}, folded from {cut.events} events"]
    print_result(_document(cut), lines, as_json=as_json)
    for problem in cut.problems[:_SHOWN_MAX]:
        note(f"  has no row: {problem}")
    if cut.broken:
        note(
            f"Expected every flow to fold but {cut.broken} records do not; run: flowtrail replay verify --all"
        )
    raise typer.Exit(0 if cut.right else 1)


def progress() -> Callable[[int, int], None] | None:
    """On a terminal, a line on standard error that is written over."""
    began = last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 0.2:
            return
        last = now
        rate = done / (now - began)
        left = (of - done) / rate if rate else 0.0
        typer.echo(
            f"\r\033[K{done:,} of {of:,} records, {rate:,.0f}/s, {left:.0f} s left", nl=False, err=True
        )

    return tell if sys.stderr.isatty() else None


def _clear() -> None:
    if sys.stderr.isatty():
        typer.echo("\r\033[K", nl=False, err=True)


def _document(report: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(report)
