"""A file that is whole or not there: written beside its place and moved there when it is complete.

What a killed command leaves is `FILE.partial`, which the next run writes anew. Nothing here knows what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from engine.errors import InputError


def partial(path: Path) -> Path:
    """Where the file grows until it is complete."""
    return path.with_name(path.name + ".partial")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """The file to be at `path` when the block ends well. Raises InputError where it cannot be written."""
    growing = partial(path)
    if path.is_dir():
        raise InputError(f"Expected --out to name a file but {path} is a folder")
    try:
        with growing.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        growing.replace(path)
    except OSError as problem:
        raise InputError(f"Expected to write {path} but {problem.strerror or problem}") from None
    finally:
        growing.unlink(missing_ok=True)
