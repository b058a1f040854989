"""`flowtrail schemas`: the contract's released schemas, its promises checked, and its AsyncAPI document. No server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(help="Show and check the contract.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON value")]


@app.callback()
def group() -> None:
    """Show and check the contract."""


def _print_json(value: Any) -> None:
    import orjson

    typer.echo(orjson.dumps(value).decode())


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List every released schema with its registry id and fingerprint."""
    from schemas.registry import TOPIC_OF_KIND, released

    found = [
        {
            "kind": schema.kind,
            "version": schema.version,
            "name": schema.name,
            "topic": TOPIC_OF_KIND[schema.kind],
            "id": schema.id,
            "fingerprint": schema.fingerprint.hex(),
        }
        for schema in released()
    ]
    if as_json:
        _print_json(found)
        return
    typer.echo(f"{'kind':<12} {'version':>7}  {'id':>10}  {'fingerprint':<16}  {'topic':<12} name")
    for one in found:
        typer.echo(
            f"{one['kind']:<12} {one['version']:>7}  {one['id']:>10}  {one['fingerprint']:<16}  "
            f"{one['topic']:<12} {one['name']}"
        )


@app.command()
def check(as_json: Json = False) -> None:
    """Check that released schemas are unedited and all of them readable. Ends with 1 when not."""
    from schemas.compatibility import problems
    from schemas.registry import released

    found = problems()
    if as_json:
        _print_json({"schemas": len(released()), "problems": found})
    elif found:
        for problem in found:
            typer.echo(problem, err=True)
    else:
        typer.echo(f"{len(released())} released schemas: OK")
    if found:
        raise typer.Exit(1)


@app.command()
def asyncapi(
    as_json: Json = False,
    kafka: Annotated[str | None, typer.Option(help="A broker to name as server, host:port")] = None,
) -> None:
    """Print an AsyncAPI 3 document of all topics, as YAML or as JSON."""
    from engine import VERSION
    from engine.settings import read_settings
    from schemas.asyncapi import document

    settings = read_settings()
    described = document(settings.topic_prefix, settings.partitions, kafka, VERSION)
    if as_json:
        _print_json(described)
        return
    import sys

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.ignore_aliases = lambda _: True
    yaml.width = 110
    yaml.dump(described, sys.stdout)
