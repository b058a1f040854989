"""Files of definitions for `flowtrail definitions`: which ones are meant, what a catalog holds, what is wrong where.

Reads files of this machine only. A cataloged function or a schema that a definition names is put into the document
before it is compiled or published; one that is on another host stays a name (the compiler warns).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import InputError

if TYPE_CHECKING:
    from engine.dsl.catalogs import Read
    from engine.dsl.errors import Problem
    from engine.dsl.model import Definition

SUFFIXES: Final = (".yaml", ".yml", ".json")


def files_of(named: Sequence[Path]) -> list[Path]:
    """The files that are meant: a folder means all definitions below it, a pattern all it matches; each once."""
    found: dict[Path, None] = {}
    for one in named:
        if one.is_dir():
            inside = sorted(file for file in one.rglob("*") if file.suffix in SUFFIXES and file.is_file())
            if not inside:
                raise InputError(f"Expected files {', '.join(SUFFIXES)} below {one} but found none")
        elif any(sign in str(one) for sign in "*?[") and not one.exists():
            root = Path(one.anchor or ".")
            inside = sorted(file for file in root.glob(str(one.relative_to(root))) if file.is_file())
            if not inside:
                raise InputError(f"Expected files that {one} matches but found none")
        else:
            inside = [one]
        found |= dict.fromkeys(inside)
    return list(found)


def content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as problem:
        raise InputError(f"Expected a definition's file at {file} but {problem.strerror}") from None


def reader(catalog: Path | None) -> Callable[[], Read]:
    """Makes a reader for each document, of `catalog` or else of FLOWTRAIL_CATALOGS."""
    from engine.settings import read_settings
    from engine.tasks import catalog_files

    folder = catalog or read_settings().catalogs
    catalog_files.reader(folder)  # a folder that is not there is refused before any file is read
    return lambda: catalog_files.reader(folder)


def compiled(source: bytes, read: Read) -> Definition:
    """Raises DefinitionError with every problem."""
    from engine.dsl.catalogs import resolve
    from engine.dsl.compile import compile_definition
    from engine.dsl.source import parse

    return compile_definition(resolve(parse(source), read))


def shown(file: Path, problem: Problem) -> dict[str, Any]:
    return {
        "file": str(file),
        "line": problem.line,
        "column": problem.column,
        "pointer": problem.pointer,
        "message": problem.message,
    }


def line_of(problem: dict[str, Any], kind: str = "") -> str:
    """`FILE:LINE:COLUMN: message`, as compilers write it and editors read it."""
    place = ":".join(str(part) for part in (problem["file"], problem["line"], problem["column"]) if part)
    return f"{place}: {kind}{problem['message']}"
