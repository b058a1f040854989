"""The JSON Schema for editors: what the specification and the documentation show fits it, wrong documents do not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.document_schema import document_schema
from engine.dsl.errors import DefinitionError
from engine.dsl.source import parse

ROOT = Path(__file__).parents[2]
VALID = jsonschema_rs.Draft202012Validator(document_schema())

WHOLE = """
document: {dsl: '1.0.3', namespace: test, name: whole, version: '1.0.0', metadata: {queue: q}}
timeout: {after: PT1H}
schedule: {every: {hours: 1}}
use:
  timeouts: {short: {after: {seconds: 5}}}
  retries: {often: {delay: {seconds: 1}, backoff: {exponential: {}}, limit: {attempt: {count: 3}}}}
  authentications: {me: {basic: {username: a, password: b}}}
  errors: {bad: {type: 'https://a.b/bad', status: 400}}
  secrets: [s]
do:
  - get:
      call: http
      with: {method: get, endpoint: {uri: 'https://a.b/{id}', authentication: {use: me}}}
      timeout: short
  - each: {for: {each: one, in: .all}, while: '.n > 0', do: [{set: {set: {x: 1}}}]}
  - fork: {fork: {compete: true, branches: [{a: {wait: PT1S}}, {b: {call: f, with: {x: 1}}}]}}
  - listen: {listen: {to: {any: [{with: {type: t}}], until: .done}}, foreach: {item: e, do: [{s: {set: {y: 2}}}]}}
  - try: {try: [{r: {raise: {error: bad}}}], catch: {errors: {with: {status: 400}}, retry: often}}
  - choose: {switch: [{yes: {when: .ok, then: end}}, {no: {then: ask}}]}
  - ask: {call: approval, with: {title: T, assignees: [a]}}
  - decide: {call: decision, with: {inputs: [{name: a}], outputs: [{name: b}], rules: [{when: ['1'], then: [2]}]}}
  - emit: {emit: {event: {with: {source: 'https://a.b', type: t, own: 1}}}}
  - run: {run: {shell: {command: ls}, return: code}}
  - sub: {run: {workflow: {namespace: a, name: b, version: '1.0.0'}, await: false}}
  - last:
      call: f
      metadata: {priority: high, concurrency: {limit: 1, key: .k}, compensate: {call: undo}}
"""
TASK = ["get", "each", "fork", "listen", "try", "choose", "ask", "decide", "emit", "run", "sub", "last"]


def at(document: Any, pointer: str) -> Any:
    for step in pointer.strip("/").split("/") if pointer.strip("/") else []:
        if isinstance(document, list):
            document = document[int(step)] if step.isdigit() else document[TASK.index(step)][step]
        else:
            document = document[step]
    return document


def changed(pointer: str, change: Callable[[Any], Any]) -> Any:
    document = copy.deepcopy(parse(WHOLE).value)
    change(at(document, pointer))
    return document


def test_the_schema_is_a_schema_of_2020_12_with_a_text_for_every_property() -> None:
    schema = document_schema()
    jsonschema_rs.meta.validate(schema)
    bare: list[str] = []

    def look(node: Any, where: str) -> None:
        if isinstance(node, dict):
            for name, one in node.get("properties", {}).items() if node.get("type") == "object" else ():
                target = one.get("$ref", "").rpartition("/")[2]
                if not (one.get("description") or schema["$defs"].get(target, {}).get("description")):
                    bare.append(f"{where}/{name}")
            for name, one in node.items():
                look(one, f"{where}/{name}")
        elif isinstance(node, list):
            for one in node:
                look(one, where)

    look(schema, "")
    assert bare == []


def test_every_example_of_the_specification_is_valid(shared: Path) -> None:
    files = sorted((shared / "spec/examples").glob("*.yaml"))
    assert len(files) == 44
    wrong = {f.name: [e.message for e in VALID.iter_errors(parse(f.read_text()).value)] for f in files}
    assert {name: errors for name, errors in wrong.items() if errors} == {}


def test_our_examples_and_the_documentation_s_definitions_are_valid() -> None:
    texts = [file.read_text() for file in (ROOT / "examples").rglob("*.yaml")]
    for page in (ROOT / "docs").glob("*.md"):
        blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        texts += [text for text in blocks if text.startswith("document:")]
    assert len(texts) >= 6
    for text in texts:
        assert [error.message for error in VALID.iter_errors(parse(text).value)] == [], text


def test_a_document_with_every_kind_of_task_is_valid_and_compiles() -> None:
    assert [error.message for error in VALID.iter_errors(parse(WHOLE).value)] == []
    assert compile_definition(WHOLE).id == "test/whole@1.0.0"


WRONG_NAMES = [
    "", "document", "timeout", "schedule", "use", "use/timeouts/short", "use/retries/often", "use/errors/bad",
    "use/retries/often/backoff", "use/retries/often/limit/attempt", "use/authentications/me",
    "use/authentications/me/basic", "do/get", "do/get/with", "do/get/with/endpoint", "do/each/for", "do/fork/fork",
    "do/fork/fork/branches/0/a", "do/listen/listen", "do/listen/listen/to", "do/listen/foreach", "do/try/catch",
    "do/try/catch/errors", "do/try/catch/errors/with", "do/choose/switch/0/yes", "do/ask/with", "do/decide/with",
    "do/decide/with/rules/0", "do/emit/emit", "do/run/run", "do/run/run/shell", "do/sub/run/workflow",
    "do/last/metadata/concurrency",
]  # fmt: skip


@pytest.mark.parametrize("pointer", WRONG_NAMES)
def test_a_wrong_name_is_found_and_the_compiler_finds_it_too(pointer: str) -> None:
    document = changed(pointer, lambda node: node.update(xyz=1))
    assert not VALID.is_valid(document)
    with pytest.raises(DefinitionError):
        compile_definition(document)


WRONG: list[tuple[str, Callable[[Any], Any]]] = [
    ("", lambda d: d.pop("do")),
    ("", lambda d: d.update(do=[])),
    ("document", lambda d: d.update(dsl="2.0.0")),
    ("document", lambda d: d.update(version="1")),
    ("document", lambda d: d.pop("name")),
    ("schedule", lambda d: d.update(cron="* * * * *")),
    ("timeout", lambda d: d.update(after="soon")),
    ("use/errors/bad", lambda d: d.pop("status")),
    ("do/get", lambda d: d.pop("with")),
    ("do/get/with", lambda d: d.pop("method")),
    ("do/get/with", lambda d: d.update(output="all")),
    ("do/get", lambda d: d.update(set={"a": 1})),
    ("do/each", lambda d: d.pop("do")),
    ("do/each", lambda d: d.pop("for")),
    ("do/fork/fork", lambda d: d.update(compete="yes")),
    ("do/listen/listen/to", lambda d: d.update(one={"with": {"type": "t"}})),
    ("do/try", lambda d: d.pop("catch")),
    ("do/choose/switch/0/yes", lambda d: d.pop("then")),
    ("do/decide/with", lambda d: d.update(hitPolicy="best")),
    ("do/emit/emit/event/with", lambda d: d.pop("type")),
    ("do/run/run", lambda d: d.update(script={"language": "python", "code": "1"})),
    ("do/last", lambda d: d.update(set={"a": 1})),
    ("do/last/metadata", lambda d: d.update(priority="urgent")),
    ("do/last", lambda d: d.pop("call")),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_mutation_is_found_and_the_compiler_finds_it_too(number: int) -> None:
    document = changed(*WRONG[number])
    assert not VALID.is_valid(document)
    with pytest.raises(DefinitionError):
        compile_definition(document)
