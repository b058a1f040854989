"""The kinds of tasks that direct the flow and shape its data: do, for, fork, raise, set, switch, try, wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.dsl.checks import described
from engine.dsl.model import (
    Advice,
    Case,
    Catch,
    Do,
    Duration,
    Expression,
    For,
    Fork,
    Json,
    Raise,
    Retry,
    Set,
    Switch,
    Task,
    Template,
    Try,
    Variable,
    Wait,
)
from engine.dsl.raising import compile_error, compile_error_filter
from engine.dsl.scopes import ARGUMENTS, BEFORE_TASK, IN_TASK, VARIABLE, Around, Spot
from engine.dsl.source import escape
from engine.dsl.timing import compile_duration, compile_retry

if TYPE_CHECKING:
    from engine.dsl.tasks import Common, TaskCompiler


def do(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    return Do(**common, first=compiler.scope(found["do"], spot.inside(), "/do"))


def set_(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    at = f"{spot.place}/set"
    if found["set"] == {}:
        compiler.checks.expected("at least one property to set", "none", at)
    value = compiler.checks.expression_or_template(found["set"], at, spot.available(IN_TASK))
    return Set(**common, value=value)


def wait(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    at = f"{spot.place}/wait"
    duration = compile_duration(compiler.checks, found["wait"], at, spot.available(IN_TASK))
    return Wait(**common, duration=duration or Duration())


def switch(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, value, place = compiler.checks, found["switch"], f"{spot.place}/switch"
    if not isinstance(value, list) or not value:
        checks.expected("a list of cases", "an empty list" if value == [] else described(value), place)
        return Switch(**common, cases=())
    cases: list[Case] = []
    for index, item in enumerate(value):
        entry = compiler.named(item, f"{place}/{index}", "case")
        if entry is None:
            continue
        name, content = entry
        at = f"{place}/{index}/{escape(name)}"
        given = checks.properties(content, at, ("when", "then"), required=("then",))
        when = None
        if "when" in given:
            when = checks.expression(given["when"], f"{at}/when", spot.available(IN_TASK))
        if when is None and given and any(case.when is None for case in cases):
            checks.expected("at most one default case", f"{name!r} without 'when'", at)
        if any(case.name == name for case in cases):
            checks.expected("each case name once", f"{name!r} again", at)
        then = compiler.directive(given.get("then", "end"), f"{at}/then", spot.targets)
        cases.append(Case(name, when, then))
    if cases and all(case.when is not None for case in cases):
        checks.warn("The switch has no default case", spot.place)
    return Switch(**common, cases=tuple(cases))


def raise_(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, use, place = compiler.checks, compiler.use, f"{spot.place}/raise"
    available = spot.available(IN_TASK)
    error = checks.properties(found["raise"], place, ("error",), required=("error",)).get("error")
    if isinstance(error, str):
        if error in use.errors:
            use.used.add(("errors", error))
            at = f"/use/errors/{escape(error)}"
            return Raise(**common, error=compile_error(checks, use.errors[error], at, available))
        wish = "the name of an error of use.errors"
        checks.expected(wish, described(error), f"{place}/error", name=error, known=use.errors)
    elif error is not None or (isinstance(found["raise"], dict) and "error" in found["raise"]):
        return Raise(**common, error=compile_error(checks, error, f"{place}/error", available))
    return Raise(**common, error=checks.constant({}))


# -- iterations ---------------------------------------------------------------------------------------------------


def variable(compiler: TaskCompiler, value: Json, place: str) -> str:
    """The name of a variable; not that of a runtime argument."""
    checks = compiler.checks
    name = checks.text(value, place, "the name of a variable, without $", VARIABLE)
    if name in ARGUMENTS:
        checks.expected("a name that no runtime argument has", repr(name), place)
    return name


def iteration(
    compiler: TaskCompiler, names: Mapping[str, Json], each: str, spot: Spot, place: str
) -> tuple[str, str, dict[str, Variable]]:
    """The variables of a `for` or `foreach`: that of the item (property `each`), that of the index, both by name."""
    item = variable(compiler, names.get(each, "item"), f"{place}/{each}")
    index = variable(compiler, names.get("at", "index"), f"{place}/at")
    if item and item == index:
        compiler.checks.expected("two names for item and index", f"{item!r} twice", place)
    return item, index, {item: (spot.pointer, "item"), index: (spot.pointer, "index")}


def for_(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, spot.place
    given = checks.properties(found["for"], f"{place}/for", ("each", "in", "at"), required=("in",))
    each, at, variables = iteration(compiler, given, "each", spot, f"{place}/for")
    collection = checks.expression(given.get("in", "."), f"{place}/for/in", spot.available(IN_TASK))
    inside = spot.inside().binding(variables)
    while_ = None
    if "while" in found:
        available = frozenset(IN_TASK | set(inside.variables))
        while_ = checks.expression(found["while"], f"{place}/while", available)
    first = ""
    if "do" in found:
        first = compiler.scope(found["do"], inside, "/do")
    else:
        checks.missing("do", place)
    return For(**common, each=each, at=at, collection=collection, while_=while_, first=first)


def fork(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, f"{spot.place}/fork"
    given = checks.properties(found["fork"], place, ("branches", "compete"), required=("branches",))
    compete = given.get("compete", False)
    if not isinstance(compete, bool):
        checks.expected("true or false", described(compete), f"{place}/compete")
    branches: list[str] = []
    if "branches" in given:
        path = "/fork/branches"
        compiler.scope(given["branches"], replace(spot.inside(), branches=True), path)
        items = given["branches"] if isinstance(given["branches"], list) else []
        for index, item in enumerate(items):
            if isinstance(item, dict) and len(item) == 1:
                branches.append(f"{spot.pointer}{path}/{index}/{escape(next(iter(item)))}")
    return Fork(**common, branches=tuple(branches), compete=compete is True)


# -- errors -------------------------------------------------------------------------------------------------------


def try_(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, spot.place
    first = compiler.scope(found["try"], spot.inside(), "/try") if "try" in found else ""
    if "catch" not in found or "try" not in found:
        checks.missing("catch" if "try" in found else "try", place)
        return Try(**common, first=first, catch=Catch(None, "error", None, None, None, None))
    known = ("errors", "as", "when", "exceptWhen", "retry", "do")
    given = checks.properties(found["catch"], f"{place}/catch", known)
    name = variable(compiler, given.get("as", "error"), f"{place}/catch/as")
    inside = spot.inside().binding({name: (spot.pointer, "error")})
    available = frozenset(IN_TASK | set(inside.variables))
    errors = None
    if "errors" in given:
        at = f"{place}/catch/errors"
        errors = compile_error_filter(checks, given["errors"], at, spot.available(IN_TASK))

    def condition(of: str) -> Expression | None:
        if of not in given:
            return None
        return checks.expression(given[of], f"{place}/catch/{of}", available)

    handler = None
    if given.get("do") not in (None, []):
        handler = compiler.scope(given["do"], inside, "/catch/do")
    catch = Catch(
        errors=errors,
        name=name,
        when=condition("when"),
        except_when=condition("exceptWhen"),
        retry=_retry(compiler, given["retry"], spot, available) if "retry" in given else None,
        first=handler,
    )
    return Try(**common, first=first, catch=catch)


def _retry(compiler: TaskCompiler, value: Json, spot: Spot, available: frozenset[str]) -> Retry | None:
    checks, use, place = compiler.checks, compiler.use, f"{spot.place}/catch/retry"
    if isinstance(value, str):
        if value not in use.retries:
            wish = "the name of a retry policy of use.retries"
            checks.expected(wish, described(value), place, name=value, known=use.retries)
            return None
        use.used.add(("retries", value))
        value, place = use.retries[value], f"/use/retries/{escape(value)}"
    return compile_retry(checks, value, place, spot.available(IN_TASK), available)


# -- extensions ---------------------------------------------------------------------------------------------------


def advice(
    compiler: TaskCompiler,
    extensions: tuple[tuple[int, str, dict[str, Json]], ...],
    part: str,
    spot: Spot,
) -> tuple[Advice, ...]:
    """The `before` or `after` tasks of the extensions around the task at `spot`."""
    made: list[Advice] = []
    with compiler.checks.silently():  # they are checked where they are written
        for number, _, content in extensions:
            if not content.get(part):
                continue
            pointer = f"{spot.pointer}/extensions/{number}/{part}"
            place = f"{spot.place}/extensions/{number}/{part}"
            around = Around(pointer, place, spot.pointer, {}, spot.reference or spot.place, False)
            first = compiler.scope(content[part], around, "")
            when = None
            if "when" in content:
                when = compiler.checks.expression(content["when"], place, BEFORE_TASK)
            made.append(Advice(when, first))
    return tuple(made)


def chained(first: Expression | Template | None, second: Template) -> Expression | Template:
    """`second` evaluated on what `first` gives, which is also its `$input`."""
    if first is None:
        if "input" not in second.reads:
            return second
        evaluate = second.evaluate
        return Template(
            second.reads - {"input"},
            False,
            lambda value, arguments: evaluate(value, {**arguments, "input": value}),
        )
    before, after = first.evaluate, second.evaluate

    def both(value: Json, arguments: Mapping[str, Json]) -> Json:
        changed = before(value, arguments)
        return after(changed, {**arguments, "input": changed})

    return Template(first.reads | (second.reads - {"input"}), False, both)
