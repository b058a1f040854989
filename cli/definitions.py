"""`flowtrail definitions`: check, publish and look up definitions.

`validate` needs no server: it compiles with engine.dsl, as the API does before it publishes. Every problem is printed
with file, line and column; files with problems end the command with 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.flows import Json, Url, connect, print_json, print_table

if TYPE_CHECKING:
    from engine.dsl.errors import DefinitionError

app = typer.Typer(help="Check, publish and look up definitions.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML or JSON documents")]


def _read(file: Path) -> bytes:
    from engine.errors import InputError

    try:
        return file.read_bytes()
    except OSError as problem:
        raise InputError(f"Expected a definition's file at {file} but {problem.strerror}") from None


def _problems(file: Path, error: DefinitionError) -> list[dict[str, Any]]:
    return [
        {"file": str(file), "line": p.line, "column": p.column, "pointer": p.pointer, "message": p.message}
        for p in error.problems
    ]


@app.command()
def validate(files: Files, as_json: Json = False) -> None:
    """Check definitions without a server."""
    from engine.dsl.compile import compile_definition
    from engine.dsl.errors import DefinitionError

    valid: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for file in files:
        try:
            definition = compile_definition(_read(file))
            valid.append({"file": str(file), "definition": definition.id, "hash": definition.hash.hex()})
        except DefinitionError as error:
            problems += _problems(file, error)
    if as_json:
        print_json({"valid": valid, "problems": problems})
    else:
        for one in valid:
            typer.echo(f"{one['file']}: {one['definition']}: OK")
        for problem in problems:
            place = ":".join(
                str(part) for part in (problem["file"], problem["line"], problem["column"]) if part
            )
            typer.echo(f"{place}: {problem['message']}", err=True)
    if problems:
        raise typer.Exit(2)


@app.command()
def publish(files: Files, url: Url = None, as_json: Json = False) -> None:
    """Publish definitions; the same content again is fine."""
    sources = [_read(file) for file in files]  # every file is readable before the first one is published
    answers: list[dict[str, Any]] = []
    with connect(url) as client:
        for file, source in zip(files, sources, strict=True):
            answer = client.publish(_text(file, source))
            answers.append(answer)
            if not as_json:
                typer.echo(f"{file}: {answer['definition']} published")
    if as_json:
        print_json(answers)


def _text(file: Path, source: bytes) -> str:
    from engine.errors import InputError

    try:
        text = source.decode()
    except UnicodeDecodeError as problem:
        raise InputError(f"Expected UTF-8 in {file} but byte {problem.start} is not") from None
    return text if "\n" in text else text + "\n"


@app.command("list")
def list_(url: Url = None, as_json: Json = False) -> None:
    """List every published version."""
    with connect(url) as client:
        rows = list(client.definitions())
    if as_json:
        print_json(rows)
    else:
        columns = {
            "definition": "definition",
            "title": "title",
            "queues": "queues",
            "published": "published_at",
            "by": "published_by",
        }
        print_table(rows, columns, "no definitions")


@app.command()
def get(
    reference: Annotated[str, typer.Argument(metavar="DEFINITION", help="namespace/name[@version]")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print a published document as JSON; without a version list the versions there are."""
    with connect(url) as client:
        answer = client.definition(reference)
    if as_json or "@" in reference:
        print_json(answer)
    else:
        columns = {"version": "version", "published": "published_at", "by": "published_by", "hash": "hash"}
        print_table(answer["versions"], columns, "no versions")
