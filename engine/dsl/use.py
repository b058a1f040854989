"""The reusable components of a definition: checked where they are written, looked up where they are used.

Functions and extensions are compiled once here, to find their problems, and again in every place that uses them.
`used` tells which components were needed; the others are warned about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from engine.dsl.authentications import Authentications
from engine.dsl.checks import Checks, described
from engine.dsl.model import Json
from engine.dsl.protocols import endpoint
from engine.dsl.raising import compile_error
from engine.dsl.scopes import BEFORE_TASK, IN_TASK, VARIABLE, Around, Spot
from engine.dsl.source import escape
from engine.dsl.timing import compile_retry, compile_timeout

if TYPE_CHECKING:
    from engine.dsl.tasks import TaskCompiler

SECTIONS: Final = (
    "authentications",
    "catalogs",
    "errors",
    "extensions",
    "functions",
    "retries",
    "secrets",
    "timeouts",
)
EXTENDED: Final = (
    "call",
    "composite",
    "emit",
    "extension",
    "for",
    "listen",
    "raise",
    "run",
    "set",
    "switch",
    "try",
    "wait",
    "all",
)
_COMPOSITE: Final = frozenset({"do", "fork", "for", "try"})


@dataclass(slots=True)
class Use:
    """What `use` holds. `errors` are compiled by whoever compiles a raise, for its own variables."""

    checks: Checks
    authentications: Authentications
    errors: Mapping[str, Json] = field(default_factory=dict)
    retries: Mapping[str, Json] = field(default_factory=dict)
    timeouts: Mapping[str, Json] = field(default_factory=dict)
    functions: Mapping[str, Json] = field(default_factory=dict)
    catalogs: Mapping[str, Json] = field(default_factory=dict)
    extensions: list[tuple[int, str, dict[str, Json]]] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)
    endless: frozenset[str] = frozenset()

    def extending(self, kind: str) -> tuple[tuple[int, str, dict[str, Json]], ...]:
        """The extensions of tasks of this kind: number, name, content."""
        wanted = {"all", kind} | ({"composite"} if kind in _COMPOSITE else set())
        return tuple(one for one in self.extensions if one[2]["extend"] in wanted)


def read_use(checks: Checks, value: Json, variables: frozenset[str]) -> Use:
    """Reads and checks everything but what holds tasks, which `rehearse` does."""
    available = IN_TASK | variables
    found = checks.properties(value, "/use", SECTIONS)
    used: set[tuple[str, str]] = set()
    checks.secrets = _secrets(checks, found.get("secrets", []))
    maps = {
        name: checks.object(found.get(name, {}), f"/use/{name}")
        for name in ("authentications", "catalogs", "errors", "functions", "retries", "timeouts")
    }
    use = Use(
        checks,
        Authentications(checks, maps["authentications"], used),
        errors=maps["errors"],
        retries=maps["retries"],
        timeouts=maps["timeouts"],
        functions=maps["functions"],
        catalogs=maps["catalogs"],
        used=used,
    )
    for name, policy in maps["authentications"].items():
        at = f"/use/authentications/{escape(name)}"
        use.authentications.check(policy, at)
        checks.template(policy, at, available | {"secrets"})
    for name, error in maps["errors"].items():
        compile_error(checks, error, f"/use/errors/{escape(name)}", available)
    for name, retry in maps["retries"].items():
        compile_retry(checks, retry, f"/use/retries/{escape(name)}", available, available)
    for name in maps["timeouts"]:
        at = f"/use/timeouts/{escape(name)}"
        compile_timeout(checks, maps["timeouts"][name], at, available, {}, set())
    for name, catalog in maps["catalogs"].items():
        at = f"/use/catalogs/{escape(name)}"
        content = checks.properties(catalog, at, ("endpoint",), required=("endpoint",))
        if "endpoint" in content:
            catalog_endpoint(use, content["endpoint"], f"{at}/endpoint")
    use.used.clear()
    return use


def catalog_endpoint(use: Use, value: Json, pointer: str) -> None:
    """A URI, or a folder relative to the operator's catalogs."""
    checks = use.checks
    if isinstance(value, dict) and "authentication" in value:
        use.authentications.resolved(value["authentication"], f"{pointer}/authentication", set())
    uri = value.get("uri") if isinstance(value, dict) else value
    if isinstance(uri, str) and "://" not in uri:
        return
    endpoint(checks, value, pointer)


def _secrets(checks: Checks, value: Json) -> frozenset[str]:
    if not isinstance(value, list):
        checks.expected("a list of names", described(value), "/use/secrets")
        return frozenset()
    names = [
        checks.text(name, f"/use/secrets/{index}", "the name of a secret") for index, name in enumerate(value)
    ]
    return frozenset(names)


def bound_names(document: Json) -> frozenset[str]:
    """Every variable that some task of the document defines: a reusable component may be used where it exists."""
    names = {"item", "index", "error"}
    pending = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            names |= {node[name] for name in ("each", "at", "item", "as") if isinstance(node.get(name), str)}
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return frozenset(name for name in names if VARIABLE.fullmatch(name))


def rehearse(compiler: TaskCompiler, value: Json) -> None:
    """Checks functions and extensions where they are written, and makes the extensions known."""
    use, checks = compiler.use, compiler.checks
    use.endless = _endless(use.functions)
    for name in sorted(use.endless):
        checks.expected(
            "functions that do not call themselves", f"{name!r}", f"/use/functions/{escape(name)}"
        )
    with compiler.rehearsal():
        for name, function in use.functions.items():
            at = f"/use/functions/{escape(name)}"
            compiler.add(function, Spot(at, at, name, "", None, {}, {}, None, False))
    extensions = value.get("extensions", []) if isinstance(value, dict) else []
    if not isinstance(extensions, list):
        checks.expected("a list of extensions", described(extensions), "/use/extensions")
        return
    made: list[tuple[int, str, dict[str, Json]]] = []
    for index, item in enumerate(extensions):
        entry = compiler.named(item, f"/use/extensions/{index}", "extension")
        if entry is not None and (content := _extension(compiler, *entry, index)):
            made.append((index, entry[0], content))
    use.extensions.extend(made)


def _extension(compiler: TaskCompiler, name: str, value: Json, index: int) -> dict[str, Json]:
    checks, at = compiler.checks, f"/use/extensions/{index}/{escape(name)}"
    found = checks.properties(value, at, ("extend", "when", "before", "after"), required=("extend",))
    extend = found.get("extend")
    if "extend" in found and (not isinstance(extend, str) or extend not in EXTENDED):
        wish = f"one of {', '.join(EXTENDED)}"
        given = extend if isinstance(extend, str) else None
        checks.expected(wish, described(extend), f"{at}/extend", name=given, known=EXTENDED)
    if extend == "extension":
        checks.warn("An extension of extensions has no effect: their tasks are not extended", at)
    if "before" not in found and "after" not in found:
        checks.warn("The extension has neither 'before' nor 'after', so it has no effect", at)
    with compiler.rehearsal():
        for part in ("before", "after"):
            if found.get(part):
                around = Around(f"{at}/{part}", f"{at}/{part}", at, extendable=False)
                compiler.scope(found[part], around, "")
            elif part in found and found[part] != []:
                checks.expected("a list of tasks", described(found[part]), f"{at}/{part}")
    if "when" in found:
        checks.expression(found["when"], f"{at}/when", BEFORE_TASK)
    return found if isinstance(extend, str) else {}


def _endless(functions: Mapping[str, Json]) -> frozenset[str]:
    """The functions that call themselves, through others or not."""
    calls = {name: _called(function) & set(functions) for name, function in functions.items()}
    endless = set()
    for name in calls:
        pending, seen = list(calls[name]), set()
        while pending:
            one = pending.pop()
            if one not in seen:
                seen.add(one)
                pending += calls[one]
        if name in seen:
            endless.add(name)
    return frozenset(endless)


def _called(node: Json) -> set[str]:
    found: set[str] = set()
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            for name in ("call", "compensate"):
                if isinstance(node.get(name), str):
                    found.add(node[name])
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return found


def warn_unused(use: Use, value: Json) -> None:
    """Components of `use` that nothing needs."""
    checks = use.checks
    if not isinstance(value, dict):
        return
    for section in ("authentications", "catalogs", "errors", "functions", "retries", "timeouts"):
        content = value.get(section)
        for name in content if isinstance(content, dict) else ():
            if (section, name) not in use.used:
                checks.warn(f"Nothing uses {name!r} of use.{section}", f"/use/{section}/{escape(name)}")
