"""From a document, or its text, to a Definition. The only way to get one.

The publisher and every node compile the same document to the same Definition: nothing here depends on the machine,
the time or the order of earlier calls. All problems are reported at once, in the order of the document.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from engine.dsl.checks import Checks, described
from engine.dsl.errors import DefinitionError, ExpressionError, Problem
from engine.dsl.model import Definition, Json
from engine.dsl.results import check_json
from engine.dsl.sandbox import Sandbox
from engine.dsl.scopes import AFTER_FLOW, BEFORE_FLOW, QUEUE, QUEUE_WISH, Around
from engine.dsl.source import Source, parse
from engine.dsl.tasks import TASKS_MAX, TaskCompiler
from engine.dsl.timing import compile_schedule, compile_timeout
from engine.dsl.use import bound_names, read_use, rehearse, warn_unused

_LABEL: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_LABEL_WISH: Final = "a name of at most 63 letters, digits and '-'"
_SEMVER: Final = re.compile(
    r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)"
    r"(?:-(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)
_DSL: Final = re.compile(r"1\.0\.(?:0|[1-9][0-9]*)(?:[-+][0-9a-zA-Z.+-]+)?")
_DOCUMENT: Final = ("dsl", "namespace", "name", "version", "title", "summary", "tags", "metadata")
_PROPERTIES: Final = ("document", "input", "use", "do", "output", "evaluate", "timeout", "schedule")
_LANGUAGES: Final = ("jq", "cel")


def compile_definition(
    document_or_source: Source | str | bytes | Mapping[str, Json], *, sandbox: Sandbox | None = None
) -> Definition:
    """Compiles a document (text, parsed text, or JSON data). Raises DefinitionError with every problem."""
    source = _source(document_or_source)
    checks = Checks(source, sandbox)
    definition = _compile(checks, source.value)
    if checks.problems:
        raise DefinitionError(sorted(checks.problems, key=lambda problem: problem.line or 0))
    return definition


def _source(given: Source | str | bytes | Mapping[str, Json]) -> Source:
    if isinstance(given, Source):
        return given
    if isinstance(given, str | bytes):
        return parse(given)
    if not isinstance(given, Mapping):  # data from elsewhere, such as a record of the definitions topic
        raise DefinitionError([Problem(f"Expected an object but found {described(given)}", "")])
    document = dict(given)
    try:
        check_json(document)
        orjson.dumps(document)
    except (ExpressionError, TypeError) as problem:
        raise DefinitionError(
            [Problem(f"Expected a document that JSON can hold but {problem}", "")]
        ) from None
    return Source(document)


def _compile(checks: Checks, document: Json) -> Definition:
    found = checks.properties(document, "", _PROPERTIES, required=("document", "do"))
    _read_evaluate(checks, found.get("evaluate", {}))
    about = _read_document(checks, found.get("document", {}))
    use = read_use(checks, found.get("use", {}), bound_names(document))
    compiler = TaskCompiler(checks, about["queue"], use)
    rehearse(compiler, found.get("use", {}))
    timeout = None
    if "timeout" in found:
        at = "/timeout"
        timeout = compile_timeout(checks, found["timeout"], at, AFTER_FLOW, use.timeouts, use.used)
    flow_input = checks.transform(found, "input", "from", "", BEFORE_FLOW)
    first = compiler.scope(found["do"], Around("", ""), "/do") if "do" in found else ""
    warn_unused(use, found.get("use"))
    if compiler.full:
        wish = f"Expected at most {TASKS_MAX} tasks, functions and extensions in place"
        checks.refuse(f"{wish}, but found more", "")
    return Definition(
        namespace=about["namespace"],
        name=about["name"],
        version=about["version"],
        title=about["title"],
        hash=hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).digest(),
        document=document,
        input=flow_input,
        output=checks.transform(found, "output", "as", "", AFTER_FLOW),
        tasks=compiler.tasks,
        first=first,
        timeout=timeout,
        schedule=compile_schedule(checks, found["schedule"], "/schedule") if "schedule" in found else None,
        secrets=checks.secrets,
        metadata=about["metadata"],
        warnings=tuple(sorted(checks.warnings, key=lambda warning: warning.line or 0)),
    )


def _read_evaluate(checks: Checks, value: Json) -> None:
    found = checks.properties(value, "/evaluate", ("language", "mode"))
    language, mode = found.get("language", "jq"), found.get("mode", "strict")
    if language in _LANGUAGES:
        checks.language = language
    elif isinstance(language, str):
        checks.unsupported(f"the expression language {described(language)}", "/evaluate/language")
    else:
        checks.expected("an expression language", described(language), "/evaluate/language")
    if mode not in ("strict", "loose"):
        checks.expected("strict or loose", described(mode), "/evaluate/mode")
    checks.loose = mode == "loose"


def _read_document(checks: Checks, value: Json) -> dict[str, Any]:
    at = "/document"
    required = ("dsl", "namespace", "name", "version") if isinstance(value, dict) and value else ()
    found = checks.properties(value, at, _DOCUMENT, required=required)
    read: dict[str, Any] = {"namespace": "", "name": "", "version": "", "title": None, "queue": "default"}
    for name, wish, pattern in (
        ("dsl", "a DSL version 1.0.x in quotes", _DSL),
        ("namespace", _LABEL_WISH, _LABEL),
        ("name", _LABEL_WISH, _LABEL),
        ("version", "a semantic version such as '1.0.0', in quotes,", _SEMVER),
        ("title", "text", None),
        ("summary", "text", None),
    ):
        if name in found:
            read[name] = checks.text(found[name], f"{at}/{name}", wish, pattern)
    for name in ("tags", "metadata"):
        checks.object(found.get(name, {}), f"{at}/{name}")
    metadata = found.get("metadata", {})
    read["metadata"] = metadata if isinstance(metadata, dict) else {}
    if isinstance(metadata, dict) and "queue" in metadata:
        read["queue"] = checks.text(metadata["queue"], f"{at}/metadata/queue", QUEUE_WISH, QUEUE)
    return read
