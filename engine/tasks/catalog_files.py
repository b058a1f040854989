"""The operator's catalogs: a folder whose files definitions may name, read when they are checked or published.

`reader` gives what engine.dsl.catalogs.resolve asks for. Invariants: nothing outside of the folder is read, wherever
links and `..` lead, and the files of one document are bounded together. What the folder cannot answer for (another
host's URI, or anything when there is no folder) is None: the compiler warns, and the call fails when it is performed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from engine.dsl.catalogs import DEFAULT, Read
from engine.errors import InputError

FILES_BYTES_MAX: Final = 1024 * 1024
"""Of all files that one document names, each use counted."""

_HOSTS: Final = ("", "localhost")


def reader(folder: str | Path | None) -> Read:
    """A reader for one document. Raises InputError when there is no such folder; without one it knows nothing."""
    if not folder:
        return lambda _uri: None
    root = Path(folder).resolve()
    if not root.is_dir():
        raise InputError(f"Expected a folder of catalogs at {folder} but there is none")
    return _Files(root).read


class _Files:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.left = FILES_BYTES_MAX

    def read(self, uri: str) -> bytes | None:
        """Raises LookupError or OSError for a file that should be there and cannot be read."""
        try:
            path = self._path(uri)
            place = None if path is None else path.resolve()
        except (ValueError, RuntimeError):
            raise LookupError("it cannot be a file's name") from None
        if place is None:
            return None
        if not place.is_relative_to(self.root):
            raise LookupError("it is outside of the folder of catalogs")
        if place.exists() and not place.is_file():
            raise LookupError("it is not a file")
        with place.open("rb") as file:
            text = file.read(self.left + 1)
        self.left -= len(text)
        if self.left < 0:
            self.left = 0
            raise LookupError(f"the files of one definition have more than {FILES_BYTES_MAX} bytes together")
        return text

    def _path(self, uri: str) -> Path | None:
        """Where `uri` leads, inside or not; None for what is not a file. Raises ValueError when it cannot be read."""
        if uri.startswith(DEFAULT):
            return self.root / uri.removeprefix(DEFAULT).lstrip("/")
        split = urlsplit(uri)
        if split.scheme == "file":
            return Path(unquote(split.path)) if split.netloc in _HOSTS else None
        return None if split.scheme or split.netloc else self.root / uri.lstrip("/")
