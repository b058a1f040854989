"""`flowtrail replay what-if|bisect`: past flows under another definition, and the event that broke an invariant.

Both read Kafka and produce nothing.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import progress_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.dsl.model import Definition
    from engine.settings import Settings
    from engine.tasks.sandbox import ProcessSandbox
    from replay.whatif import WhatIf

Json = Annotated[bool, typer.Option("--json", help="One JSON object")]
Kafka = Annotated[str | None, typer.Option(help="Kafka bootstrap servers [FLOWTRAIL_KAFKA]")]
Flow = Annotated[str | None, typer.Option("--flow", metavar="ID", help="One flow, of whatever definition")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Flows that began then or later (RFC 3339); without: all")
]
_SHOWN: int = 20


def what_if(
    definition: Annotated[
        str,
        typer.Option(metavar="FILE|NAME@VERSION", help="The other definition; a file need not be published"),
    ],
    flow: Flow = None,
    since: Since = None,
    where: Annotated[str | None, typer.Option(metavar="JQ", help="Of the flow's input")] = None,
    as_json: Json = False,
    kafka: Kafka = None,
) -> None:
    """Decide past flows again under another definition, with what the world told them then.

    Ends with 1 when a flow would have gone another way.
    """
    from engine.settings import read_settings
    from replay import whatif
    from replay.bisect import invariant
    from replay.flow import read_flow

    settings = read_settings(kafka=kafka)
    with closing(_sandbox(settings)) as sandbox:
        other = _definition(definition, settings, sandbox)
        if flow is not None:
            tally = whatif.Tally(other)
            log = read_flow(settings.kafka, settings.topic_prefix, flow)
            tally.add(whatif.judge(other, whatif.stored(log.logged)))
            report = tally.report()
        else:
            report = whatif.what_if(
                settings.kafka,
                settings.topic_prefix,
                other,
                since=_since(since),
                where=None if where is None else invariant(where, sandbox),
                progress=progress_line("decided"),
            )
    if as_json:
        _print_json(report)
    else:
        for line in _lines(report):
            typer.echo(line)
    raise typer.Exit(0 if report.counts["same"] == report.flows else 1)


def bisect(
    where: Annotated[
        str,
        typer.Option(metavar="JQ", help="What should hold of {status, input, data, context, output, error}"),
    ],
    flow: Flow = None,
    since: Since = None,
    as_json: Json = False,
    kafka: Kafka = None,
) -> None:
    """Find the first event after which an invariant does not hold. Ends with 1 when there is one."""
    from engine.settings import read_settings
    from projections.logged import Logged
    from replay import whatif
    from replay.bisect import first_broken, invariant
    from replay.flow import read_flow

    settings = read_settings(kafka=kafka)
    found: list[dict[str, Any]] = []
    with closing(_sandbox(settings)) as sandbox:
        holds = invariant(where, sandbox)
        if flow is not None:
            logs: Iterable[list[Logged]] = [read_flow(settings.kafka, settings.topic_prefix, flow).logged]
        else:
            after = _since(since)
            flows = whatif.flows_of(
                settings.kafka, settings.topic_prefix, lambda: None, progress_line("read")
            )
            logs = (one for one in flows if one[0].event.time >= after and one[0].event.sequence == 1)
        flows_read = 0
        for logged in logs:
            flows_read += 1
            if (broken := first_broken(logged, holds)) is not None:
                found.append(broken.shown())
    if as_json:
        _print_json({"flows": flows_read, "broken": found})
    else:
        typer.echo(f"{flows_read} flows, {len(found)} do not hold it")
        for one in found[:_SHOWN]:
            by = one["by"]
            task = "" if by["task"] is None else f" {by['task']}"
            why = "" if one["problem"] is None else f": {one['problem']}"
            typer.echo(f"  {one['flow']}: event {by['sequence']} {by['time']} {by['kind']}{task}{why}")
    raise typer.Exit(1 if found else 0)


def _sandbox(settings: Settings) -> ProcessSandbox:
    from engine.tasks.sandbox import ProcessSandbox

    return ProcessSandbox(settings.expression_deadline_ms, settings.expression_memory_mib * 1024 * 1024)


def _since(text: str | None) -> int:
    from engine.errors import InputError
    from replay.moment import parse_moment

    if text is None:
        return 0
    moment = parse_moment(text, "--since")
    if moment.time is None:
        raise InputError(f"Expected --since to be a time but found the number {text}")
    return moment.time


def _definition(text: str, settings: Settings, sandbox: ProcessSandbox) -> Definition:
    """A file's, or a published one. Raises InputError, DefinitionError."""
    from engine.dsl.compile import compile_definition
    from engine.errors import InputError
    from engine.runtime.definitions import read_definitions

    path = Path(text)
    if path.is_file():
        try:
            return compile_definition(path.read_text("utf-8"), sandbox=sandbox)
        except UnicodeDecodeError:
            raise InputError(f"Expected a definition in UTF-8 but {text} is not") from None
    published = read_definitions(settings.kafka, settings.topic_prefix, sandbox).find(text)
    if published is None:
        raise InputError(f"Expected a file or a published definition but found neither: {text[:200]}")
    return published


def _lines(report: WhatIf) -> Iterable[str]:
    counts = report.counts
    yield (
        f"{report.flows} flows under {report.definition}: {counts['same']} go the same way, {counts['different']} decide "
        f"differently, {counts['needs']} need what was never recorded, {counts['refused']} cannot be decided"
    )
    for group in report.groups[:_SHOWN]:
        what = {
            "needs": f"needs a result of {group.at}; first {group.was or 'the same'} -> {group.would or 'the same'}",
            "different": f"{group.was} -> {group.would}",
        }.get(group.kind, group.would)
        yield f"  {group.flows} flows at {group.at or 'the flow'}: {what}"
        yield f"    such as {', '.join(group.examples)}"
    if len(report.groups) > _SHOWN:
        yield f"  … and {len(report.groups) - _SHOWN} more kinds (--json has all)"


def _print_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())
