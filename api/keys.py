"""API keys: `keyid.secret`. Only HMAC-SHA256(pepper, secret) is kept, so neither the database alone nor the pepper
alone lets anybody in.

The pepper is FLOWTRAIL_API_PEPPER or the file DATA/pepper (0600). Secrets are random and long: no slow hash is needed.
This module knows no database.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
from base64 import b64decode
from pathlib import Path
from typing import Final

from engine.errors import InputError

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_KEY: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,63})\.([A-Za-z0-9_-]{16,128})")
_LENGTH_MAX: Final = 256


def new_key(name: str) -> str:
    """A key whose id begins with `name`, so that logs and histories can be read. Raises InputError."""
    if NAME.fullmatch(name) is None:
        raise InputError(f"Expected a key's name of a-z, 0-9 and -, at most 32 of them, but found {name!r}")
    return f"{name}-{secrets.token_hex(3)}.{secrets.token_urlsafe(32)}"


def split(key: str) -> tuple[str, str] | None:
    """(id, secret), or None when it is no key."""
    found = _KEY.fullmatch(key) if len(key) <= _LENGTH_MAX else None
    return None if found is None else (found[1], found[2])


def digest(pepper: bytes, secret: str) -> bytes:
    return hmac.digest(pepper, secret.encode(), "sha256")


def matches(pepper: bytes, secret: str, kept: bytes) -> bool:
    """In constant time."""
    return hmac.compare_digest(digest(pepper, secret), kept)


def presented(authorization: str | None, x_api_key: str | None) -> str | None:
    """The key a request brings: bearer token, basic credentials (id:secret) or X-API-Key; None when it brings none."""
    if authorization is None:
        return x_api_key
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    match scheme.lower():
        case "bearer":
            return value
        case "basic":
            try:
                return b64decode(value, validate=True).decode("ascii").replace(":", ".", 1)
            except ValueError:
                return ""
    return ""


def write_private(path: Path, text: str) -> bool:
    """Writes `text` where nobody else can read it, complete or not at all; False when the file exists already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # fails when somebody else was first: theirs counts
        return True
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def read_pepper(given: str, data: str, *, create: bool = False) -> bytes:
    """`given` (the setting), or the file in `data`, made when `create`. Raises InputError when there is none."""
    if given:
        return given.encode()
    path = Path(data) / "pepper"
    try:
        if create:
            write_private(path, secrets.token_urlsafe(32) + "\n")
        pepper = path.read_text("ascii").strip()
    except FileNotFoundError:
        raise InputError(
            f"Expected FLOWTRAIL_API_PEPPER or the file {path} but there is neither; run: flowtrail admin init"
        ) from None
    except OSError as problem:
        raise InputError(f"Expected to use the file {path} but {problem.strerror}") from None
    if len(pepper) < 16:
        raise InputError(f"Expected at least 16 characters in {path} but found {len(pepper)}")
    return pepper.encode()
