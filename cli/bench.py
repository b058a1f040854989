"""`flowtrail bench`: throughput, latency and chaos, each on an embedded stack of its own, one JSON object last."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(help="Measure this machine: throughput, latency, chaos.", no_args_is_help=True)


@app.command()
def throughput(
    flows: Annotated[int, typer.Option(min=1, help="flows to run")] = 10_000,
    tasks: Annotated[int, typer.Option(min=1, max=100, help="worker tasks a flow")] = 3,
    flush_every_message: Annotated[
        bool, typer.Option(help="let Kafka fsync every message (flush.messages=1)")
    ] = False,
) -> None:
    """Flows a second with one engine, one worker and the projections running."""
    from bench.throughput import run

    properties = {"log.flush.interval.messages": "1"} if flush_every_message else None
    print(json.dumps(run(flows, tasks, kafka_properties=properties)))


@app.command()
def latency(
    flows: Annotated[int, typer.Option(min=10, help="flows, one after the other")] = 300,
    tasks: Annotated[int, typer.Option(min=1, max=100, help="worker tasks a flow")] = 3,
    warm: Annotated[int, typer.Option(min=0, help="flows before, not measured")] = 1000,
) -> None:
    """Milliseconds from StartFlow to FlowCompleted, one flow at a time."""
    from bench.latency import run

    print(json.dumps(run(flows, tasks, warm)))


@app.command()
def chaos(
    seconds: Annotated[float, typer.Option(min=5, help="how long processes are killed")] = 60,
    flows: Annotated[int, typer.Option(min=1, help="flows to run meanwhile")] = 3000,
    seed: Annotated[int, typer.Option(help="which processes are killed when")] = 1,
) -> None:
    """Kill -9 of engines, worker, projections and once the broker; ends with 1 when anything is lost or double."""
    from bench.chaos import run

    report = run(seconds, flows, seed)
    print(json.dumps(report))
    wrong = ("lost", "duplicated", "gaps", "broken_chains", "astray")
    if any(report[name] for name in wrong) or report["verify_exit_code"] or report["verified"] != flows:
        raise typer.Exit(1)


@app.command()
def restore(
    flows: Annotated[int, typer.Option(min=1, help="live flows")] = 50_000,
) -> None:
    """Seconds to restore live flows after a kill -9, and the engine's memory with them."""
    from bench.restore import run

    print(json.dumps(run(flows)))


@app.command()
def replay(
    flows: Annotated[int, typer.Option(min=1, help="flows in the log")] = 10_000,
    tasks: Annotated[int, typer.Option(min=1, max=100, help="worker tasks a flow")] = 3,
) -> None:
    """Events a second that are proved, one flow rebuilt, and read models made again while flows arrive."""
    from bench.replay import run

    print(json.dumps(run(flows, tasks)))


@app.command()
def timers(
    count: Annotated[int, typer.Option(min=1, help="flows, each with a pending timer")] = 100_000,
    engine: Annotated[bool, typer.Option(help="ask a real engine, and what waiting costs it")] = False,
) -> None:
    """Memory of pending timers beyond that of their flows, and how fast they are found when they are due."""
    from bench import timers as measured

    print(json.dumps(measured.engine(count) if engine else measured.run(count)))


@app.command()
def steps(
    flows: Annotated[int, typer.Option(min=1, help="flows to run")] = 5000,
    tasks: Annotated[int, typer.Option(min=1, max=500, help="set and switch tasks a flow")] = 20,
    curve: Annotated[bool, typer.Option(help="instead: bytes a step as more items are finished")] = False,
) -> None:
    """Tasks a second that need no worker, on one engine; or (--curve) what a step costs in long loops and wide forks."""
    from bench import steps as measured

    print(json.dumps(measured.curve(10_000, 1000) if curve else measured.run(flows, tasks)))
