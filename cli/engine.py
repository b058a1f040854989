"""`flowtrail engine run`: one engine process."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Run an engine process.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Run an engine process."""


@app.command()
def run(
    instance: Annotated[
        str | None, typer.Option(help="Stable name of this process, one a process [FLOWTRAIL_INSTANCE]")
    ] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers [FLOWTRAIL_KAFKA]")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics; 0 opens none [FLOWTRAIL_METRICS_PORT]")
    ] = None,
) -> None:
    """Decide commands until SIGTERM. Ends with 70 when it must be restarted."""
    from engine.logs import configure
    from engine.runtime.app import run as run_engine
    from engine.settings import read_settings
    from engine.tasks.sandbox import ProcessSandbox

    settings = read_settings(instance=instance, kafka=kafka, metrics_port=metrics_port)
    configure(settings.log_level, "engine")
    sandbox = ProcessSandbox(settings.expression_deadline_ms, settings.expression_memory_mib * 1024 * 1024)
    run_engine(settings, sandbox)
