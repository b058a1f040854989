"""`flowtrail executor run`: one process that performs the calls of the specification."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Perform HTTP, OpenAPI, gRPC, AsyncAPI, MCP and A2A calls.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Perform HTTP, OpenAPI, gRPC, AsyncAPI, MCP and A2A calls."""


@app.command()
def run(
    concurrency: Annotated[
        int | None,
        typer.Option(
            help="Tasks one queue performs at once [FLOWTRAIL_EXECUTOR_CONCURRENCY]", min=1, max=1000
        ),
    ] = None,
    grace: Annotated[float, typer.Option(help="Seconds running tasks get when stopped", min=0)] = 30.0,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of /metrics; 0 opens none [FLOWTRAIL_METRICS_PORT]")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where the API is [FLOWTRAIL_API_URL]")] = None,
) -> None:
    """Perform the tasks of the queue builtin until SIGTERM or Ctrl-C.

    FLOWTRAIL_RUN_SHELL, FLOWTRAIL_RUN_SCRIPT and FLOWTRAIL_RUN_CONTAINER enable the processes of the queue process.
    """
    import logging

    from cli.flows import api_key
    from engine.logs import configure
    from engine.settings import read_settings
    from engine.tasks.executor import run as run_executor

    settings = read_settings(api_url=url, metrics_port=metrics_port, executor_concurrency=concurrency)
    configure(settings.log_level, "executor")
    logging.getLogger("flowtrail").setLevel(settings.log_level.upper())
    run_executor(settings, api_key(settings.api_key, settings.data), grace=grace)
