"""The contract's promises, checked: released files unedited, every older writer readable by the newest reader.

    problems() -> what is wrong, a sentence each; empty when nothing is

Pure. `golden.json` holds what each file was at its release: the fingerprint, which the log's records name, and the
SHA-256 of the text, because defaults (which resolution needs) are no part of a fingerprint. `resolves` follows the
Avro specification's section on schema resolution for what this contract uses; a test compares it with fastavro.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Final

from schemas.registry import Schema, released
from schemas.upcasts import UPCASTS

_PROMOTIONS: Final[dict[str, frozenset[str]]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}


def golden() -> dict[str, dict[str, str]]:
    """File name without ending -> what it was when it was released."""
    text = resources.files("schemas").joinpath("golden.json").read_text("utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def golden_of(schema: Schema) -> dict[str, str]:
    return {
        "fingerprint": schema.fingerprint.hex(),
        "sha256": hashlib.sha256(schema.text.encode()).hexdigest(),
    }


def file_of(schema: Schema) -> str:
    return f"{schema.kind}-v{schema.version}"


def problems(
    schemas: tuple[Schema, ...] | None = None,
    expected: Mapping[str, Mapping[str, str]] | None = None,
    steps: Iterable[tuple[str, int]] | None = None,
) -> list[str]:
    """Everything that breaks a promise. The arguments are for tests; by default what this program ships."""
    schemas = released() if schemas is None else schemas
    expected = golden() if expected is None else expected
    done = set(UPCASTS if steps is None else steps)
    return [
        *_edited(schemas, expected),
        *_ambiguous(schemas),
        *_unreadable(schemas),
        *_without_step(schemas, done),
    ]


def _edited(schemas: tuple[Schema, ...], expected: Mapping[str, Mapping[str, str]]) -> list[str]:
    found: list[str] = []
    present = {file_of(schema): schema for schema in schemas}
    found += [
        f"Expected schemas/avro/{name}.avsc, which was released, but it is gone; restore it: "
        f"git checkout -- schemas/avro/{name}.avsc"
        for name in sorted(set(expected) - set(present))
    ]
    for name, schema in present.items():
        wanted = expected.get(name)
        if wanted is None:
            line = json.dumps({name: golden_of(schema)})[1:-1]
            found.append(
                f"Expected every released schema in schemas/golden.json but {name} is not; to release it, add: {line}"
            )
        elif dict(wanted) != golden_of(schema):
            found.append(
                f"Expected schemas/avro/{name}.avsc as it was released but it was edited; restore it: "
                f"git checkout -- schemas/avro/{name}.avsc, put the change into "
                f"schemas/avro/{schema.kind}-v{schema.version + 1}.avsc and the step to it into schemas/upcasts.py"
            )
    return found


def _ambiguous(schemas: tuple[Schema, ...]) -> list[str]:
    found = []
    for what, counts in (
        ("fingerprint", Counter(schema.fingerprint.hex() for schema in schemas)),
        ("registry id", Counter(str(schema.id) for schema in schemas)),
    ):
        found += [
            f"Expected each {what} once but {value} names {count} schemas"
            for value, count in counts.items()
            if count > 1
        ]
    return found


def _unreadable(schemas: tuple[Schema, ...]) -> list[str]:
    found = []
    for writer in schemas:
        reader = max((s for s in schemas if s.kind == writer.kind), key=lambda s: s.version)
        reasons = resolves(json.loads(writer.text), json.loads(reader.text))
        found += [
            f"Expected {file_of(reader)} to read what {file_of(writer)} wrote but {reason}"
            for reason in reasons
        ]
    return found


def _without_step(schemas: tuple[Schema, ...], done: set[tuple[str, int]]) -> list[str]:
    found = []
    for kind in sorted({schema.kind for schema in schemas}):
        versions = [schema.version for schema in schemas if schema.kind == kind]
        if versions != list(range(1, len(versions) + 1)):
            found.append(f"Expected versions 1, 2, 3 ... of {kind} but found {versions}")
        found += [
            f"Expected a step from {kind}-v{version} to {kind}-v{version + 1} in schemas/upcasts.py but there is none"
            for version in versions[:-1]
            if (kind, version) not in done
        ]
    return found


# -- resolution -----------------------------------------------------------------------------------------------------


def resolves(writer: Any, reader: Any) -> list[str]:
    """Why data of `writer` cannot be read as `reader`; empty when all of it can."""
    return _Resolution(_names(writer, {}), _names(reader, {})).compare(writer, reader, "")


def _names(schema: Any, found: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    """Every named type of `schema`, by its full name and by its short one."""
    if isinstance(schema, list):
        for branch in schema:
            _names(branch, found, namespace)
    elif isinstance(schema, dict):
        kind = schema["type"]
        if kind in ("record", "enum", "fixed"):
            namespace = schema.get("namespace", namespace)
            found[schema["name"]] = found[f"{namespace}.{schema['name']}"] = schema
            for field in schema.get("fields", ()):
                _names(field["type"], found, namespace)
        else:
            _names(schema.get("items", schema.get("values", kind)), found, namespace)
    return found


class _Resolution:
    def __init__(self, written: dict[str, Any], read: dict[str, Any]) -> None:
        self.written, self.read = written, read
        self.comparing: set[tuple[str, str]] = set()

    def compare(self, writer: Any, reader: Any, at: str) -> list[str]:
        writer, reader = _resolved(writer, self.written), _resolved(reader, self.read)
        if isinstance(writer, list):
            return [reason for branch in writer for reason in self.compare(branch, reader, at)]
        if isinstance(reader, list):
            tries = [self.compare(writer, branch, at) for branch in reader]
            if any(not reasons for reasons in tries):
                return []
            named = [
                reasons
                for branch, reasons in zip(reader, tries, strict=True)
                if _same_name(writer, branch, self.read)
            ]
            return named[0] if named else [f"{at or 'the record'} has no branch for {_shown(writer)}"]
        kind, wanted = _kind(writer), _kind(reader)
        if kind != wanted:
            if wanted in _PROMOTIONS.get(kind, ()):
                return []
            return [f"{at or 'the record'} was {_shown(writer)} and is {_shown(reader)}"]
        match kind:
            case "record":
                return self.records(writer, reader, at)
            case "enum":
                return _enums(writer, reader, at)
            case "array":
                return self.compare(writer["items"], reader["items"], f"{at}[]")
            case "map":
                return self.compare(writer["values"], reader["values"], f"{at}{{}}")
            case "fixed" if writer["size"] != reader["size"]:
                return [f"{at} was {writer['size']} bytes and is {reader['size']}"]
        return []

    def records(self, writer: Any, reader: Any, at: str) -> list[str]:
        if writer["name"] != reader["name"] and writer["name"] not in reader.get("aliases", ()):
            return [f"{at or 'the record'} was {writer['name']} and is {reader['name']}"]
        pair = (writer["name"], reader["name"])
        if pair in self.comparing:
            return []
        self.comparing.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        reasons: list[str] = []
        for field in reader["fields"]:
            place = f"{at}.{field['name']}".lstrip(".")
            names = (field["name"], *field.get("aliases", ()))
            source = next((written[name] for name in names if name in written), None)
            if source is not None:
                reasons += self.compare(source["type"], field["type"], place)
            elif "default" not in field:
                reasons.append(f"{place} is new and has no default")
        self.comparing.discard(pair)
        return reasons


def _enums(writer: Any, reader: Any, at: str) -> list[str]:
    missing = set(writer["symbols"]) - set(reader["symbols"])
    if missing and "default" not in reader:
        return [f"{at} no longer knows {', '.join(sorted(missing))} and has no default"]
    return []


def _resolved(schema: Any, names: dict[str, Any]) -> Any:
    return names.get(schema, schema) if isinstance(schema, str) else schema


def _kind(schema: Any) -> str:
    return schema if isinstance(schema, str) else str(schema["type"])


def _shown(schema: Any) -> str:
    return str(schema["name"]) if isinstance(schema, dict) and "name" in schema else _kind(schema)


def _same_name(writer: Any, branch: Any, names: dict[str, Any]) -> bool:
    return isinstance(writer, dict) and _shown(_resolved(branch, names)) == _shown(writer)
