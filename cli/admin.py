"""`flowtrail admin`: prepare Kafka and Postgres, keep API keys. Talks to the servers directly, not to the API."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Prepare the servers, keep API keys.", no_args_is_help=True)
keys = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")

Json = Annotated[bool, typer.Option("--json", help="One JSON value")]
Data = Annotated[str | None, typer.Option(help="Directory of API key and pepper [FLOWTRAIL_DATA]")]
Postgres = Annotated[str | None, typer.Option(help="Postgres connection string [FLOWTRAIL_POSTGRES]")]


@app.callback()
def group() -> None:
    """Prepare the servers, keep API keys."""


@app.command()
def init(
    as_json: Json = False,
    data: Data = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers [FLOWTRAIL_KAFKA]")] = None,
    postgres: Postgres = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the servers")] = 30.0,
) -> None:
    """Create topics and tables, and the first API key. What exists is left as it is; may be repeated."""
    import msgspec

    from api.administration import initialize
    from engine.settings import read_settings

    settings = read_settings(data=data, kafka=kafka, postgres=postgres)
    done = initialize(settings, wait, lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
        return
    typer.echo(f"topics: {', '.join(done.topics) or 'all there'}")
    typer.echo(f"migrations: {', '.join(done.migrations) or 'all there'}")
    typer.echo(f"API key: {'made, ' if done.key_made else ''}kept in {done.key_file}")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what it is for: a-z, 0-9 and -")],
    as_json: Json = False,
    data: Data = None,
    postgres: Postgres = None,
) -> None:
    """Make a key and print it. It is shown this once."""
    import msgspec

    from api.administration import create_key
    from engine.settings import read_settings

    key = create_key(read_settings(data=data, postgres=postgres), name)
    content = {"id": key.partition(".")[0], "name": name, "key": key}
    typer.echo(msgspec.json.encode(content).decode() if as_json else key)


@keys.command("list")
def list_(as_json: Json = False, postgres: Postgres = None) -> None:
    """List keys; secrets are not kept, hence not shown."""
    import msgspec

    from api.administration import list_keys
    from engine.settings import read_settings

    found = list_keys(read_settings(postgres=postgres))
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    typer.echo(f"{'id':<40} {'created':<20} {'last used':<20} state")
    for key in found:
        used = f"{key.last_used_at:%Y-%m-%d %H:%M:%S}" if key.last_used_at else "never"
        state = "revoked" if key.revoked_at else "active"
        typer.echo(f"{key.id:<40} {key.created_at:%Y-%m-%d %H:%M:%S}  {used:<20} {state}")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The part of the key before the dot")],
    as_json: Json = False,
    postgres: Postgres = None,
) -> None:
    """Revoke a key. It stops working within seconds."""
    import msgspec

    from api.administration import revoke_key
    from engine.settings import read_settings

    revoke_key(read_settings(postgres=postgres), key_id)
    typer.echo(msgspec.json.encode({"revoked": key_id}).decode() if as_json else f"revoked {key_id}")
