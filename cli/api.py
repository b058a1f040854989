"""`flowtrail api run`: the HTTP API's process."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Serve the HTTP API.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Serve the HTTP API."""


@app.command()
def run(
    host: Annotated[str | None, typer.Option(help="Address to bind [FLOWTRAIL_API_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind [FLOWTRAIL_API_PORT]")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers [FLOWTRAIL_KAFKA]")] = None,
    postgres: Annotated[
        str | None, typer.Option(help="Postgres connection string [FLOWTRAIL_POSTGRES]")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Directory of the pepper [FLOWTRAIL_DATA]")] = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Servers that are away are waited for; /readyz says which."""
    from engine.logs import configure
    from engine.settings import read_settings

    settings = read_settings(api_host=host, api_port=port, kafka=kafka, postgres=postgres, data=data)
    configure(settings.log_level, "api")
    from api.server import run as serve

    serve(settings)
