"""`flowtrail definitions`: check, draw, publish and look up definitions.

`validate`, `schema` and `graph FILE` need no server: they compile with engine.dsl, as the API does before it publishes.
Every problem is printed with file, line and column; files with problems end the command with 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.flows import Json, Url, connect, print_json, print_table

if TYPE_CHECKING:
    from engine.dsl.catalogs import Read
    from engine.dsl.model import Definition

app = typer.Typer(help="Check, draw, publish and look up definitions.", no_args_is_help=True)

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="YAML or JSON documents, folders of them, or patterns")
]
Catalog = Annotated[
    Path | None,
    typer.Option(
        help="Folder of catalogs, else FLOWTRAIL_CATALOGS: what a document names is read from it",
        metavar="DIR",
    ),
]


@app.command()
def validate(files: Files, catalog: Catalog = None, as_json: Json = False) -> None:
    """Check definitions without a server: every error and every warning, each with its place."""
    from cli.definition_files import compiled, content, files_of, line_of, reader, shown
    from engine.dsl.errors import DefinitionError

    reading = reader(catalog)
    found: dict[str, list[dict[str, Any]]] = {"valid": [], "problems": [], "warnings": []}
    for file in files_of(files):
        try:
            definition = compiled(content(file), reading())
        except DefinitionError as error:
            in_order = sorted(error.problems, key=lambda p: (p.line or 0, p.column or 0))
            found["problems"] += [shown(file, problem) for problem in in_order]
        else:
            one = {"file": str(file), "definition": definition.id, "hash": definition.hash.hex()}
            found["valid"].append(one)
            found["warnings"] += [shown(file, warning) for warning in definition.warnings]
    if as_json:
        print_json(found)
    else:
        for one in found["valid"]:
            typer.echo(f"{one['file']}: {one['definition']}: OK")
        for warning in found["warnings"]:
            typer.echo(line_of(warning, "warning: "), err=True)
        for problem in found["problems"]:
            typer.echo(line_of(problem), err=True)
    if found["problems"]:
        raise typer.Exit(2)


@app.command()
def schema() -> None:
    """Print the JSON Schema of definitions, for editors."""
    from engine.dsl.document_schema import document_schema

    print_json(document_schema())


@app.command()
def graph(
    target: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A file, or a published namespace/name[@version]")
    ],
    catalog: Catalog = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print a definition as a Mermaid flowchart; with --json its nodes and edges."""
    from engine.dsl.graph import as_json as plain
    from engine.dsl.graph import graph_of, mermaid

    drawn = graph_of(_definition(target, catalog, url))
    if as_json:
        print_json(plain(drawn))
    else:
        typer.echo(mermaid(drawn), nl=False)


def _definition(target: str, catalog: Path | None, url: str | None) -> Definition:
    """A file's definition or, where no such file is, a published one."""
    from cli.definition_files import SUFFIXES, compiled, content, reader
    from engine.dsl.compile import compile_definition

    file = Path(target)
    if file.is_file() or file.suffix in SUFFIXES:
        return compiled(content(file), reader(catalog)())
    name, _, version = target.partition("@")
    with connect(url) as client:
        return compile_definition(client.definition(f"{name}@{version or 'latest'}"))


@app.command()
def publish(files: Files, catalog: Catalog = None, url: Url = None, as_json: Json = False) -> None:
    """Publish definitions; the same content again is fine."""
    from cli.definition_files import content, files_of, reader

    reading = reader(catalog)
    # every file is readable before the first one is published
    sources = [(file, _publishable(file, content(file), reading())) for file in files_of(files)]
    answers: list[dict[str, Any]] = []
    with connect(url) as client:
        for file, source in sources:
            answer = client.publish(source)
            answers.append(answer)
            if not as_json:
                typer.echo(f"{file}: {answer['definition']} published")
    if as_json:
        print_json(answers)


def _publishable(file: Path, source: bytes, read: Read) -> str | dict[str, Any]:
    """The text as it is; or the document, when cataloged functions or schemas had to be put into it."""
    from engine.dsl.catalogs import resolve
    from engine.dsl.errors import DefinitionError
    from engine.dsl.source import parse
    from engine.errors import InputError

    text = _text(file, source)
    try:
        parsed = parse(source)
    except DefinitionError:
        return text  # the API says what is wrong with it
    try:
        whole = resolve(parsed, read)
    except DefinitionError as problem:
        raise InputError(f"{file}: {problem}") from None
    return whole.value if whole.value != parsed.value else text


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
