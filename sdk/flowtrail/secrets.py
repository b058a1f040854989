"""Sealed references in a task's arguments, and what they stand for on this machine.

The engine writes `⟦secret:NAME/path/to/part⟧` where a definition reads a secret, so that no secret enters the log; just
before use the reference is replaced by FLOWTRAIL_SECRET_<NAME> (upper case, `-` and `.` as `_`) or the file
FLOWTRAIL_SECRETS_DIR/<name>, JSON or text. A text that is nothing but one reference becomes the secret's value, whatever
its type; within a longer text it becomes text. `⟦authorization:part⟧` is replaced only by who knows the authorization.
Invariant: no error raised here, and nothing logged, holds a secret.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flowtrail.errors import AUTHORIZATION, TaskError

_SEALED: Final = re.compile("⟦(secret|authorization):([^⟦⟧]+)⟧")
_MARK: Final = "⟦".encode()
_ESCAPED: Final = rb"\u27"  # of ⟦, in either case, and of a few others
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def unseal(value: Any, authorization: Mapping[str, str] | None = None) -> Any:
    """A copy of the JSON `value` with every reference replaced; those to an authorization only when one is given.

    `authorization` has the parts `scheme` and `parameter`. Raises TaskError (authorization, 403) for what is not there.
    """
    if isinstance(value, str):
        return _text(value, authorization)
    if isinstance(value, dict):
        return {unseal(k, authorization): unseal(v, authorization) for k, v in value.items()}
    if isinstance(value, list):
        return [unseal(item, authorization) for item in value]
    return value


def unseal_json(raw: bytes) -> bytes:
    """The same for JSON bytes; what holds no reference comes back as it is, unread."""
    if _MARK not in raw and _ESCAPED not in raw:
        return raw
    try:
        value = json.loads(raw)
    except ValueError:
        return raw  # whoever reads the arguments says what is wrong with them
    return json.dumps(unseal(value), ensure_ascii=False).encode()


def environment_name(name: str) -> str:
    """The variable that holds the secret `name`."""
    return "FLOWTRAIL_SECRET_" + name.upper().replace("-", "_").replace(".", "_")


def _text(text: str, authorization: Mapping[str, str] | None) -> Any:
    if "⟦" not in text:
        return text
    if (whole := _SEALED.fullmatch(text)) is not None:
        return _opened(whole, authorization)

    def spliced(found: re.Match[str]) -> str:
        value = _opened(found, authorization)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _SEALED.sub(spliced, text)


def _opened(found: re.Match[str], authorization: Mapping[str, str] | None) -> Any:
    kind, place = found.groups()
    if kind == "authorization":
        if authorization is None:
            return found[0]
        if place not in authorization:
            raise _missing(f"Expected an authorization with a {place} but it has {_names(authorization)}")
        return authorization[place]
    name, *path = place.split("/")
    value = _secret(name)
    for part in path:
        value = _member(name, value, part.replace("~1", "/").replace("~0", "~"))
    return value


def _member(name: str, value: Any, part: str) -> Any:
    if isinstance(value, dict) and part in value:
        return value[part]
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    raise _missing(f"Expected secret {name} to have a part {part} but it has not")


def _secret(name: str) -> Any:
    if _NAME.fullmatch(name) is None:
        raise _missing(f"Expected a secret's name of letters, digits, '.', '_' and '-' but found {name!r}")
    text = os.environ.get(environment_name(name))
    if text is None:
        text = _file(name)
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return text  # a password of digits is no number
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _file(name: str) -> str:
    folder = os.environ.get("FLOWTRAIL_SECRETS_DIR", "")
    if not folder:
        raise _missing(
            f"Expected secret {name} in {environment_name(name)} or in a file of FLOWTRAIL_SECRETS_DIR but neither is set"
        )
    try:
        return (Path(folder) / name).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or "it is no UTF-8 text"
        raise _missing(
            f"Expected secret {name} in {environment_name(name)} or in FLOWTRAIL_SECRETS_DIR but {why}"
        ) from None


def _names(authorization: Mapping[str, str]) -> str:
    return ", ".join(sorted(authorization)) or "nothing"


def _missing(detail: str) -> TaskError:
    return TaskError(AUTHORIZATION, 403, "Secret not available", detail)
