"""Finding what `flowtrail up` runs on this machine, so that the other commands need no addresses and no password.

Only fills in what the environment does not say, only for a stack of FLOWTRAIL_DATA that is ready, and only for
commands that use an installation; those that make one (`up`, `demo`, `bench`) must not take it for servers of
one's own.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

USERS: Final = {"definitions", "flows", "replay", "projections", "worker", "executor", "admin"}
"""The nouns that talk to an installation."""


def adopt(noun: str, environment: MutableMapping[str, str]) -> None:
    """Sets FLOWTRAIL_KAFKA, _POSTGRES and _API_URL where they are unset and a local stack is ready."""
    if noun not in USERS:
        return
    data = Path(environment.get("FLOWTRAIL_DATA") or ".flowtrail")
    if not (data / "stack.json").is_file():
        return
    from stack import postgres, state

    found = state.read(data)
    if found is None or found.phase != "ready" or not found.launcher.alive():
        return
    _fill(environment, "FLOWTRAIL_KAFKA", found.urls.get("kafka"))
    _fill(environment, "FLOWTRAIL_API_URL", found.urls.get("api"))
    try:
        secret = postgres.password(data) if (data / postgres.PASSWORD_FILE).is_file() else None
    except OSError:  # another user's stack: its commands will say that Postgres wants a password
        secret = None
    if secret is not None:
        _fill(environment, "FLOWTRAIL_POSTGRES", postgres.url(found.ports["postgres"], secret))


def _fill(environment: MutableMapping[str, str], name: str, value: str | None) -> None:
    if value and not environment.get(name):
        environment[name] = value
