"""JSON Schemas of definitions: compiled once, without network, files or backtracking regular expressions.

`format` in a schema is an annotation, as JSON Schema 2020-12 has it. The first error is chosen by where it stands in
the data, then in the schema, so that the same data always give the same message.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import orjson

from engine.dsl.model import Json, Schema
from engine.dsl.results import shortened
from engine.dsl.source import escape

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
UNFOLDED_MAX: Final = 20_000
_ERRORS_MAX: Final = 1000
_PATTERN_BYTES_MAX: Final = 1 << 20
_WISHES: Final = {
    "minimum": "a number >= {}",
    "maximum": "a number <= {}",
    "exclusiveMinimum": "a number > {}",
    "exclusiveMaximum": "a number < {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} properties",
    "maxProperties": "at most {} properties",
    "pattern": "text that matches {}",
    "const": "{}",
    "enum": "one of {}",
    "uniqueItems": "items that all differ",
}


class SchemaProblem(Exception):
    """A document that is no JSON Schema, or none that Flowtrail accepts."""


def compile_schema(document: Json) -> Schema:
    """Compiles `document`. Raises SchemaProblem."""
    if not isinstance(document, dict | bool):
        raise SchemaProblem(f"Expected a JSON Schema (an object) but found {_shown(document)}")
    if isinstance(document, dict) and str(document.get("$schema", DIALECT)).rstrip("#") != DIALECT:
        raise SchemaProblem(
            f"Expected the JSON Schema dialect {DIALECT} but found {_shown(document['$schema'])}"
        )
    try:
        unfolded = _unfolded(document, document, {})
    except RecursionError:
        raise SchemaProblem("Expected a schema of fewer levels, references unfolded") from None
    if unfolded > UNFOLDED_MAX:
        raise SchemaProblem(
            f"Expected a schema of at most {UNFOLDED_MAX} parts, references unfolded, but found more"
        )
    try:
        validator = jsonschema_rs.Draft202012Validator(
            document, offline=True, pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES_MAX)
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as problem:
        reason = str(problem).splitlines()[0]
        raise SchemaProblem(f"Expected a JSON Schema but {shortened(reason)}") from None

    def problem_of(value: Json) -> str | None:
        try:
            return None if validator.is_valid(value) else _first(validator.iter_errors(value))
        except ValueError as problem:  # data nested deeper than the validator goes
            return f"Expected data that can be validated but {shortened(str(problem))} at /"

    return Schema(document, problem_of)


def _unfolded(node: Json, root: Json, known: dict[str, int]) -> int:
    """How many parts validating may visit. References inside a cycle count once: data end such a walk."""
    if isinstance(node, list):
        return sum(_unfolded(item, root, known) for item in node) + 1
    if not isinstance(node, dict):
        return 1
    total = 1
    for key, item in node.items():
        if key == "$ref" and isinstance(item, str) and item.startswith("#"):
            if item not in known:
                known[item] = 1
                known[item] = min(_unfolded(_target(item, root), root, known), UNFOLDED_MAX + 1)
            total += known[item]
        elif key not in ("enum", "const", "default", "examples"):
            total += _unfolded(item, root, known) if key not in ("$defs", "definitions") else 1
    return total


def _target(reference: str, root: Json) -> Json:
    found = root
    for part in reference.removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict):
            found = found.get(part)
        else:
            return None
    return found


def _first(errors: Iterator[jsonschema_rs.ValidationError]) -> str:
    chosen = min(islice(errors, _ERRORS_MAX), key=_order)
    pointer = "".join(f"/{escape(part)}" for part in chosen.instance_path)
    return f"{_sentence(chosen)} at {pointer or '/'}"


def _order(error: jsonschema_rs.ValidationError) -> tuple[Any, ...]:
    return (
        [(isinstance(part, str), part) for part in error.instance_path],
        [str(part) for part in error.schema_path],
        error.message,
    )


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    kind, found = error.kind, _shown(error.instance)
    details = kind.as_dict()
    match kind:
        case jsonschema_rs.ValidationErrorKind.Type():
            return f"Expected {' or '.join(sorted(kind.types))} but found {found}"
        case jsonschema_rs.ValidationErrorKind.Required():
            return f"Expected the property {kind.property!r} but it is missing"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            return f"Expected no further property but found {', '.join(map(repr, sorted(kind.unexpected)))}"
    wish = _WISHES.get(kind.name)
    if wish is None:
        return f"Expected data valid by {kind.name!r} but {shortened(error.message)}"
    limit = next(iter(details.values()), None)
    return f"Expected {wish.format(_shown(limit))} but found {found}"


def _shown(value: Any) -> str:
    try:
        return shortened(orjson.dumps(value).decode())
    except TypeError:
        return shortened(repr(value))
