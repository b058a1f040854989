"""The kinds of tasks that deal with events: emit and listen."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from engine.dsl.checks import described
from engine.dsl.events import compile_consumption
from engine.dsl.model import Consumption, Emit, Foreach, Json, Listen, Task
from engine.dsl.scopes import IN_EXPORT, IN_TASK, Spot
from engine.dsl.shapes import URI, is_expression
from engine.dsl.source import escape
from engine.dsl.tasks_flow import iteration

if TYPE_CHECKING:
    from engine.dsl.tasks import Common, TaskCompiler

READS: Final = ("data", "envelope", "raw")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})")
_ATTRIBUTE: Final = re.compile(r"[a-zA-Z0-9]{1,64}")


def emit(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, f"{spot.place}/emit"
    owner = checks.properties(found["emit"], place, ("event",), required=("event",))
    event = checks.object(owner.get("event", {}), f"{place}/event")
    at = f"{place}/event/with"
    for name in event:
        if name != "with":
            checks.warn(f"{name!r} of an emitted event has no effect", f"{place}/event/{escape(name)}")
    if "event" in owner and "with" not in event:
        checks.missing("with", f"{place}/event")
    given = checks.object(event.get("with", {}), at)
    for name in ("source", "type"):
        if "with" in event and name not in given:
            checks.missing(name, at)
    for name, value in given.items():
        _attribute(compiler, name, value, f"{at}/{escape(name)}")
    return Emit(**common, event=checks.template(given, at, spot.available(IN_TASK)))


def _attribute(compiler: TaskCompiler, name: str, value: Json, place: str) -> None:
    checks = compiler.checks
    if name == "data" or is_expression(value):
        return
    if name in ("source", "dataschema"):
        checks.text(value, place, "a URI with a scheme, or an expression", URI)
    elif name == "time":
        checks.text(value, place, "a time such as 2030-01-31T12:00:00Z, or an expression", _TIME)
    elif name in ("id", "type", "subject", "datacontenttype"):
        checks.text(value, place)
    elif not _ATTRIBUTE.fullmatch(name):
        checks.expected("an attribute's name of letters and digits", repr(name), place)
    elif not isinstance(value, str | int | bool):
        checks.expected("text, a whole number or a boolean", described(value), place)


def listen(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, f"{spot.place}/listen"
    given = checks.properties(found["listen"], place, ("to", "read"), required=("to",))
    read = given.get("read", "data")
    if read not in READS:
        name = read if isinstance(read, str) else None
        checks.expected(
            f"one of {', '.join(READS)}", described(read), f"{place}/read", name=name, known=READS
        )
    consumption = None
    if "to" in given:
        available = spot.available(IN_TASK)
        consumption = compile_consumption(checks, given["to"], f"{place}/to", available)
    return Listen(
        **common,
        to=consumption or Consumption("one", ()),
        read=read if read in READS else "data",
        foreach=foreach(compiler, found["foreach"], spot, f"{spot.place}/foreach")
        if "foreach" in found
        else None,
    )


def foreach(compiler: TaskCompiler, value: Json, spot: Spot, place: str, path: str = "/foreach") -> Foreach:
    """A subscription iterator; its tasks lie at POINTER + `path` + /do."""
    checks = compiler.checks
    given = checks.properties(value, place, ("item", "at", "do", "output", "export"))
    each, at, variables = iteration(compiler, given, "item", spot, place)
    inside = spot.inside().binding(variables)
    first = None
    if given.get("do") not in (None, []):
        below = replace(inside, pointer=spot.pointer + path, place=place)
        first = compiler.scope(given["do"], below, "/do")
    names = frozenset(inside.variables)
    return Foreach(
        each=each,
        at=at,
        first=first,
        output=checks.transform(given, "output", "as", place, IN_TASK | names),
        export=checks.transform(given, "export", "as", place, IN_EXPORT | names),
    )
