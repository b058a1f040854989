"""The settings of this executor process, for functions that get nothing but their arguments.

The executor says them once, before the first task (`configure`); a function called without one, as tests do, takes them
from the environment.
"""

from __future__ import annotations

from engine.settings import Settings, read_settings

_current: list[Settings] = []


def configure(settings: Settings | None) -> None:
    """From now on `configured` gives `settings`; None makes it read the environment anew."""
    _current[:] = [] if settings is None else [settings]


def configured() -> Settings:
    if not _current:
        _current.append(read_settings())
    return _current[0]
