"""Calls and runs: what somebody outside of the core performs, and functions put in place of their calls.

A name means, in this order: a function every runtime has (http, openapi, …), one of use.functions (cataloged ones are
there too once the document is resolved), `decision` and `approval`, or a function of the workers of a queue.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from engine.dsl.catalogs import catalog_of, is_cataloged
from engine.dsl.checks import described, nearest
from engine.dsl.limits import call_settings
from engine.dsl.model import Approval, Call, Decide, Do, Json, Raise, Subflow, Task, Template, Transform
from engine.dsl.protocols import ARGUMENTS as SHAPES
from engine.dsl.protocols import (
    BUILTIN,
    PROCESSES,
    RETURNS,
    RUNS,
    authentications,
    replaced,
    template_names,
)
from engine.dsl.results import shortened
from engine.dsl.schemas import SchemaProblem, compile_schema
from engine.dsl.scopes import IN_ARGUMENTS, IN_TASK, Spot
from engine.dsl.secrets import guarded, input_check
from engine.dsl.source import escape
from engine.dsl.tasks_flow import chained

if TYPE_CHECKING:
    from engine.dsl.tasks import Common, TaskCompiler

BUILTIN_QUEUE: Final = "builtin"
PROCESS_QUEUE: Final = "process"
UNRESOLVED: Final = "https://serverlessworkflow.io/spec/1.0.0/errors/configuration"
_FUNCTION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._/-]{0,127}")
_LABEL: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_VERSION: Final = re.compile(r"latest|[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]+)?")
_APPROVAL: Final = ("title", "description", "assignees", "form", "due", "data")


def call(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, at, name = compiler.checks, f"{spot.place}/call", found["call"]
    if not isinstance(name, str):
        checks.expected("the name of a worker's function", described(name), at)
    elif name in BUILTIN:
        return _builtin(compiler, name, found, spot, common)
    elif name in compiler.use.functions:
        return _inlined(compiler, name, found, spot, common)
    elif is_cataloged(name):
        return _unresolved(compiler, name, found, spot, common)
    elif name == "decision":
        return _decision(compiler, found, spot, common)
    elif name == "approval":
        return _approval(compiler, found, spot, common)
    elif checks.text(name, at, "the name of a worker's function", _FUNCTION):
        meant = nearest(name, (*BUILTIN, *compiler.use.functions, "decision", "approval"))
        if meant is not None:
            checks.warn(f"{name!r} is taken for a function of workers; did you mean {meant!r}?", at)
    arguments = None
    if "with" in found:
        given = checks.object(found["with"], f"{spot.place}/with")
        arguments = _arguments(compiler, given, spot, f"{spot.place}/with")
    settings = call_settings(compiler, common["metadata"], spot, str(name), compiler.queue)
    check = None if arguments is not None else input_check(checks.carried)
    return Call(**common, function=str(name), arguments=arguments, check_input=check, **settings)


def _arguments(compiler: TaskCompiler, given: Json, spot: Spot, place: str) -> Template:
    sealed: set[str] = set()
    template = compiler.checks.template(given, place, spot.available(IN_ARGUMENTS), sealed)
    return guarded(template, sealed, compiler.checks.carried)


def _builtin(compiler: TaskCompiler, name: str, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, f"{spot.place}/with"
    if "with" not in found:
        checks.missing("with", spot.place)
    given = found.get("with", {})
    if "with" in found:
        SHAPES[name](checks, given, place)
    if name == "asyncapi" and isinstance(found.get("with"), dict):
        from engine.dsl.tasks_subscriptions import subscribed

        if (task := subscribed(compiler, found, spot, common)) is not None:
            return task
    settings = call_settings(compiler, common["metadata"], spot, name, BUILTIN_QUEUE)
    arguments = worker_arguments(compiler, given, spot, place)
    return Call(**common, function=name, arguments=arguments, **settings)


def worker_arguments(
    compiler: TaskCompiler, given: Json, spot: Spot, place: str, extra: Mapping[str, Json] | None = None
) -> Template:
    """`given` evaluated, with whole policies for the names of authentications, and under `__input__` those properties
    of the task's input that its URI templates expand. `extra` is added as it is."""
    sealed: set[str] = set()
    made = given if isinstance(given, dict) else {}
    for path, policy in authentications(given):
        at = place + "".join(f"/{step}" for step in path)
        made = replaced(made, path, compiler.use.authentications.resolved(policy, at, sealed))
    template = compiler.checks.template(made, place, spot.available(IN_ARGUMENTS), sealed)
    names, evaluate, constants = template_names(given), template.evaluate, dict(extra or {})

    def complete(value: Json, arguments: Mapping[str, Json]) -> Json:
        source = value if isinstance(value, dict) else {}
        expanded = {name: source[name] for name in names if name in source}
        return {**evaluate(value, arguments), **constants, "__input__": expanded}

    return guarded(Template(template.reads, False, complete), sealed, compiler.checks.carried)


# -- functions ----------------------------------------------------------------------------------------------------


def _inlined(compiler: TaskCompiler, name: str, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    """The function in place of its call: its content with the call's own transforms, or, when it has transforms of
    its own, a scope of that one task."""
    checks, use = compiler.checks, compiler.use
    use.used.add(("functions", name))
    if is_cataloged(name):
        use.used.add(("catalogs", catalog_of(name) or ""))
    if "with" in found:
        given = checks.object(found["with"], f"{spot.place}/with")
        available = spot.available(IN_ARGUMENTS) - {"authorization"}
        template = checks.template(given, f"{spot.place}/with", available, checks.carried)
        common = {
            **common,
            "input": Transform(common["input"].schema, chained(common["input"].expression, template)),
        }
    function = use.functions[name]
    kind = None
    if isinstance(function, dict) and name not in use.endless:
        with checks.silently():
            kind = compiler.kind(function, spot.place)
    if kind is None:
        return Raise(**common, error=checks.constant({}))  # its problems are noted where it is written
    body = {key: function[key] for key in function}
    with checks.silently():
        if compiler.transforms(body):
            pointer = f"{spot.pointer}/function/{escape(name)}"
            inner = Spot(pointer, f"{spot.place}/function/{escape(name)}", name, spot.pointer, None, {}, {})
            compiler.add(body, inner)
            return Do(**{**common, "kind": "do"}, first=pointer)
        metadata = {**checks.object(body.get("metadata", {}), spot.place), **common["metadata"]}
        alone = replace(spot, variables={}, targets={})
        return compiler.content(kind, body, alone, {**common, "metadata": metadata})


def _unresolved(
    compiler: TaskCompiler, name: str, found: dict[str, Json], spot: Spot, common: Common
) -> Task:
    """A cataloged function that nobody put into the document before publishing: its call fails."""
    checks, use = compiler.checks, compiler.use
    if "with" in found:
        _arguments(compiler, checks.object(found["with"], f"{spot.place}/with"), spot, f"{spot.place}/with")
    catalog = catalog_of(name)
    if catalog is not None and catalog != "default" and catalog not in use.catalogs:
        wish = "a catalog of use.catalogs"
        checks.expected(
            wish, described(catalog), f"{spot.place}/call", name=catalog, known=(*use.catalogs, "default")
        )
    elif catalog is not None:
        use.used.add(("catalogs", catalog))
    checks.warn(f"The function {shortened(name)} was not read, so its call fails", f"{spot.place}/call")
    error = {
        "type": UNRESOLVED,
        "status": 400,
        "title": "Unresolved function",
        "detail": f"Expected the function {name} within the definition but it was not read when published",
    }
    return Raise(**{**common, "kind": "raise"}, error=checks.constant(error))


# -- beyond the specification -------------------------------------------------------------------------------------


def _decision(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    from engine.dsl.tables import compile_table

    if "with" not in found:
        compiler.checks.missing("with", spot.place)
        return Raise(**common, error=compiler.checks.constant({}))
    table, reads, decide = compile_table(
        compiler.checks, found["with"], f"{spot.place}/with", spot.available(IN_TASK)
    )
    return Decide(**common, table=table, reads=reads, decide=decide)


def _approval(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, f"{spot.place}/with"
    given = checks.properties(found.get("with", {}), place, _APPROVAL)
    form = None
    if "form" in given:
        try:
            form = compile_schema(given["form"])
        except SchemaProblem as problem:
            checks.refuse(str(problem), f"{place}/form")
    assignees = given.get("assignees", [])
    if not isinstance(assignees, list | str):
        checks.expected("a list of names", described(assignees), f"{place}/assignees")
    rest = {name: value for name, value in given.items() if name != "form"}
    template = checks.template(rest, place, spot.available(IN_TASK))
    request = template
    if form is not None:
        evaluate, document = template.evaluate, form.document
        request = Template(
            template.reads,
            template.constant,
            lambda value, arguments: {**evaluate(value, arguments), "form": document},
        )
    return Approval(**common, request=request, form=form)


# -- runs ---------------------------------------------------------------------------------------------------------


def run(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task:
    checks, place = compiler.checks, f"{spot.place}/run"
    kinds = (*PROCESSES, "workflow")
    given = checks.properties(found["run"], place, (*kinds, "await", "return"))
    awaited = given.get("await", True)
    if not isinstance(awaited, bool):
        checks.expected("true or false", described(awaited), f"{place}/await")
    returned = given.get("return", "stdout")
    if returned not in RETURNS:
        wanted = returned if isinstance(returned, str) else None
        wish = f"one of {', '.join(RETURNS)}"
        checks.expected(wish, described(returned), f"{place}/return", name=wanted, known=RETURNS)
    chosen = [kind for kind in kinds if kind in given]
    if len(chosen) != 1:
        if isinstance(found["run"], dict) and len(given) == len(found["run"]):
            wish = f"exactly one of {', '.join(kinds)}"
            checks.expected(wish, " and ".join(chosen) or "none of them", place)
        return Raise(**common, error=checks.constant({}))
    kind = chosen[0]
    at = f"{place}/{kind}"
    if kind == "workflow":
        return _subflow(compiler, given[kind], spot, common, awaited is not False, at)
    RUNS[kind](checks, given[kind], at)
    settings = call_settings(compiler, common["metadata"], spot, f"run.{kind}", PROCESS_QUEUE)
    arguments = worker_arguments(compiler, given[kind], spot, at, {"return": returned})
    return Call(**common, function=f"run.{kind}", arguments=arguments, wait=awaited is not False, **settings)


def _subflow(
    compiler: TaskCompiler, value: Json, spot: Spot, common: Common, awaited: bool, place: str
) -> Task:
    checks = compiler.checks
    known = ("namespace", "name", "version", "input")
    given = checks.properties(value, place, known, required=("namespace", "name"))
    namespace, name = (
        checks.text(given[part], f"{place}/{part}", f"the {part} of a workflow", _LABEL)
        if part in given
        else ""
        for part in ("namespace", "name")
    )
    version = checks.text(
        given.get("version", "latest"), f"{place}/version", "a semantic version or latest", _VERSION
    )
    workflow = f"{namespace}/{name}" + ("" if version == "latest" else f"@{version}")
    arguments = None
    if "input" in given:
        arguments = checks.template(given["input"], f"{place}/input", spot.available(IN_TASK))
    return Subflow(**common, workflow=workflow, arguments=arguments, wait=awaited)
