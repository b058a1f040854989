"""A document with a wrong part anywhere is refused with problems, or compiles: it never crashes the compiler."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from engine.dsl.catalogs import resolve_document
from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.dsl.source import parse

EVERYTHING = r"""
document: {dsl: '1.0.3', namespace: test, name: everything, version: '1.0.0', metadata: {queue: q}, tags: {a: b}}
input: {schema: {format: json, document: {type: object}}, from: {a: '${ $secrets.s.a }'}}
output: {as: '${ $context }'}
timeout: {after: {hours: 1}}
schedule: {on: {any: [{with: {type: a}}], until: {one: {with: {type: b}}}}}
evaluate: {language: jq, mode: strict}
use:
  authentications: {policy: {oauth2: {authority: https://a.b, grant: password, client: {id: a}, scopes: [a]}}}
  catalogs: {global: {endpoint: {uri: https://a.b, authentication: {basic: {username: a, password: b}}}}}
  errors: {wrong: {type: https://a.b, status: 400, detail: '${ .a }'}}
  extensions: [{log: {extend: call, when: $task.call == "f", before: [{b: {set: {a: 1}}}], after: [{a: {set: {a: 1}}}]}}]
  functions: {double: {set: {n: '${ .n }'}, output: {as: .n}}}
  retries: {often: {delay: PT1S, backoff: {linear: {}}, limit: {attempt: {count: 1, duration: PT1S}, duration: PT1M}}}
  secrets: [s]
  timeouts: {short: {after: '${ .t }'}}
do:
  - call: {call: f, with: {a: '${ $secrets.s.b }'}, timeout: short, metadata: {priority: low, heartbeat: PT1S, attempts: 2,
      concurrency: {limit: 1, key: '${ .k }'}, rateLimit: {limit: 1, per: PT1S, key: '${ .k }'}, compensate: double}}
  - get: {call: http, with: {method: get, endpoint: {uri: 'https://a.b/{id}', authentication: {use: policy}}, headers: {a: b}}}
  - own: {call: double, with: {n: 1}, then: approve}
  - cataloged: {call: log:1.0.0@global, with: {a: 1}}
  - approve: {call: approval, with: {title: a, assignees: [a], form: {type: object}}}
  - messages: {call: asyncapi, with: {document: {endpoint: https://a.b}, operation: o, subscription: {filter: '${ .a }',
      consume: {until: '${ .b }', for: PT1S}, foreach: {item: m, at: i, do: [{n: {set: {a: '${ $m }'}}}], output: {as: $m.a}}}}}
  - emit: {emit: {event: {with: {source: https://a.b, type: t, data: {a: 1}}}}}
  - loop: {for: {each: x, in: .xs, at: n}, while: $x > 1, do: [{y: {set: {a: '${ $x }'}}}]}
  - fork: {fork: {compete: true, branches: [{a: {set: {a: 1}}}, {b: {do: [{c: {set: {a: 1}}}]}}]}}
  - listen: {listen: {to: {all: [{with: {type: a, data: {a: [1, '${ .b }']}}, correlate: {r: {from: .r, expect: '${ .e }'}}}]},
      read: raw}, foreach: {item: e, do: [{z: {set: {a: '${ $e }'}}}], export: {as: $context}}}
  - raise: {raise: {error: wrong}, if: .no}
  - shell: {run: {shell: {command: ls, stdin: a, arguments: [a], environment: {a: b}}, return: all, await: false}}
  - script: {run: {script: {language: js, source: {endpoint: https://a.b}, arguments: {a: 1}}}}
  - container: {run: {container: {image: a, lifetime: {cleanup: eventually, after: PT1S}, pullPolicy: always}}}
  - child: {run: {workflow: {namespace: a, name: b, version: latest, input: {a: 1}}}}
  - switch: {switch: [{a: {when: .a, then: wait}}, {b: {then: continue}}]}
  - try: {try: [{a: {call: f}}], catch: {errors: {with: {status: 500}}, as: err, when: $err.status > 1, retry: often,
      do: [{a: {set: {a: '${ $err }'}}}]}}
  - wait: {wait: {seconds: '${ .s }', minutes: 1}}
"""
WRONG: tuple[Any, ...] = (5, None, "text", "${ .a | }", [], ["a"], {"a": 1}, [{"a": {}}])


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, item in items:
        yield from places(item, (*path, step))


def mutants(document: Any, wrong: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for path in list(places(document)):
        changed = copy.deepcopy(document)
        owner = changed
        for step in path[:-1]:
            owner = owner[step]
        if wrong is KeyError:
            del owner[path[-1]]
        else:
            owner[path[-1]] = wrong
        yield path, changed


def test_the_whole_document_compiles() -> None:
    definition = compile_definition(parse(EVERYTHING))
    assert {task.kind for task in definition.tasks.values()} == {
        *(
            "call",
            "do",
            "emit",
            "extended",
            "for",
            "fork",
            "listen",
            "raise",
            "run",
            "set",
            "switch",
            "try",
            "wait",
        )
    }


def problems(document: Any) -> list[str]:
    try:
        compile_definition(resolve_document(document, lambda _uri: None))
    except DefinitionError as error:
        return [problem.message for problem in error.problems]
    return []


@pytest.mark.parametrize("wrong", [*WRONG, KeyError], ids=repr)
def test_a_wrong_part_anywhere_is_a_problem_or_fine(wrong: Any) -> None:
    placeless = [
        (path, message)
        for path, changed in mutants(parse(EVERYTHING).value, wrong)
        for message in problems(changed)
        if " at /" not in message
    ]
    assert placeless == []
