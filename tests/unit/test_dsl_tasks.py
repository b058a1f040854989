"""Compiling every kind of task: what comes out of its properties, and which wrong ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.dsl.model import (
    Decide,
    Do,
    Duration,
    Emit,
    Expression,
    Extended,
    For,
    Fork,
    Listen,
    Set,
    Subflow,
    Switch,
    Task,
    Try,
    Wait,
)

HEAD = "document: {dsl: '1.0.3', namespace: test, name: sample, version: '1.0.0'}\n"
SECOND = 1_000_000


def text(body: str, rest: str = "") -> str:
    indented = "\n".join(f"      {line}" for line in body.splitlines())
    return f"{HEAD}{rest}do:\n  - x:\n{indented}\n"


def tasks(body: str, rest: str = "") -> dict[str, Task]:
    return dict(compile_definition(text(body, rest)).tasks)


def one(body: str, rest: str = "") -> Any:
    return tasks(body, rest)["/do/0/x"]


def refusal(body: str, rest: str = "") -> str:
    with pytest.raises(DefinitionError) as caught:
        compile_definition(text(body, rest))
    return "\n".join(problem.message for problem in caught.value.problems)


# -- flow ---------------------------------------------------------------------------------------------------------


def test_a_for_defines_its_variables_for_the_tasks_in_it() -> None:
    found = tasks(
        "for: {each: pet, in: .pets, at: i}\nwhile: $pet.ok and $i < 3 and .vet != null\n"
        "do:\n  - see: {set: {a: '${ $pet.id + $i }'}, if: $i > 0, output: {as: '. + {id: $pet.id}'}}"
    )
    loop, inner = found["/do/0/x"], found["/do/0/x/do/0/see"]
    assert isinstance(loop, For)
    assert (loop.each, loop.at, loop.first) == ("pet", "i", inner.pointer)
    assert loop.while_ is not None
    assert loop.while_.reads == {"pet", "i"}
    assert inner.variables == {"pet": ("/do/0/x", "item"), "i": ("/do/0/x", "index")}
    assert inner.scope == "/do/0/x"


def test_a_for_has_default_names_and_inner_names_hide_outer_ones() -> None:
    found = tasks(
        "for: {in: .a}\ndo:\n  - y:\n      for: {in: $item.b, at: n}\n      do: [{z: {set: {v: '${ [$item, $index, $n] }'}}}]"
    )
    inner = found["/do/0/x/do/0/y/do/0/z"]
    assert inner.variables == {
        "item": ("/do/0/x/do/0/y", "item"),
        "n": ("/do/0/x/do/0/y", "index"),
        "index": ("/do/0/x", "index"),
    }


def test_a_fork_has_branches_that_are_scopes_of_their_own() -> None:
    found = tasks(
        "fork:\n  compete: true\n  branches:\n    - a: {set: {v: 1}, then: exit}\n    - b: {do: [{c: {set: {v: 2}}}]}"
    )
    fork = found["/do/0/x"]
    assert isinstance(fork, Fork)
    assert fork.branches == ("/do/0/x/fork/branches/0/a", "/do/0/x/fork/branches/1/b")
    assert fork.compete
    first = found[fork.branches[0]]
    assert (first.next, first.scope) == (None, "/do/0/x")
    assert "of the same scope but found 'b'" in refusal(
        "fork:\n  branches:\n    - a: {set: {v: 1}, then: b}\n    - b: {set: {v: 2}}"
    )


def test_a_try_has_its_catch_and_the_error_is_known_there() -> None:
    found = tasks(
        "try: [{y: {call: f}}]\n"
        "catch:\n  errors: {with: {type: https://a.b/c, status: 503, details: '${ .d }'}}\n  as: failure\n"
        "  when: $failure.status > 500\n  exceptWhen: $failure.status == 505\n"
        "  retry: {when: $failure.status < 600, delay: {seconds: 3}, backoff: {exponential: {}},"
        " limit: {attempt: {count: 5, duration: PT1M}, duration: {hours: 1}},"
        " jitter: {from: {seconds: 0}, to: {seconds: 1}}}\n"
        "  do: [{z: {set: {why: '${ $failure.detail }'}}}]"
    )
    task = found["/do/0/x"]
    assert isinstance(task, Try)
    catch = task.catch
    assert (task.first, catch.first, catch.name) == ("/do/0/x/try/0/y", "/do/0/x/catch/do/0/z", "failure")
    assert catch.errors is not None
    assert catch.errors.evaluate({"d": 1}, {}) == {"type": "https://a.b/c", "status": 503, "detail": 1}
    retry = catch.retry
    assert retry is not None
    assert (retry.delay, retry.backoff.kind, retry.count) == (Duration(0, 3 * SECOND), "exponential", 5)
    assert (retry.attempt_limit, retry.limit) == (Duration(0, 60 * SECOND), Duration(0, 3600 * SECOND))
    assert retry.jitter == (Duration(), Duration(0, SECOND))
    assert found["/do/0/x/catch/do/0/z"].variables == {"failure": ("/do/0/x", "error")}
    assert found["/do/0/x/try/0/y"].variables == {}


def test_a_catch_may_be_empty_and_a_retry_reusable() -> None:
    assert one("try: [{y: {call: f}}]\ncatch: {}").catch.retry is None
    rest = "use: {retries: {often: {delay: PT1S, backoff: {linear: {}}, when: $error.status == 5}}}\n"
    retry = one("try: [{y: {call: f}}]\ncatch: {retry: often}", rest).catch.retry
    assert (retry.delay, retry.backoff.kind, retry.when.reads) == (Duration(0, SECOND), "linear", {"error"})
    assert "did you mean 'often'?" in refusal("try: [{y: {call: f}}]\ncatch: {retry: oftn}", rest)


def test_a_wait_is_constant_or_evaluated() -> None:
    assert one("wait: PT30S").duration == Duration(0, 30 * SECOND)
    assert one("wait: {minutes: 1}").duration == Duration(0, 60 * SECOND)
    assert one("wait: P1M").duration == Duration(1, 0)
    found = one("wait: ${ .delay }")
    assert isinstance(found, Wait)
    assert isinstance(found.duration.expression, Expression)
    parts = one("wait: {seconds: '${ .n }', minutes: 1}").duration.expression
    assert parts.evaluate({"n": 5}, {}) == {"seconds": 5, "minutes": 1}


def test_timeouts_are_inline_or_reusable_of_tasks_and_of_the_workflow() -> None:
    rest = "use: {timeouts: {short: {after: PT5S}}}\ntimeout: {after: {hours: 1}}\n"
    definition = compile_definition(text("set: {a: 1}\ntimeout: short", rest))
    assert definition.tasks["/do/0/x"].timeout == Duration(0, 5 * SECOND)
    assert definition.timeout == Duration(0, 3600 * SECOND)
    by_name = compile_definition(
        text("set: {a: 1}", "use: {timeouts: {short: {after: PT5S}}}\ntimeout: short\n")
    )
    assert by_name.timeout == Duration(0, 5 * SECOND)
    assert one("wait: PT1S\ntimeout: {after: '${ .limit }'}").timeout.expression is not None


def test_schedules_have_one_trigger() -> None:
    def schedule(value: str) -> Any:
        return compile_definition(text("set: {a: 1}", f"schedule: {value}\n")).schedule

    assert schedule("{every: {minutes: 5}}").every == Duration(0, 300 * SECOND)
    assert schedule("{after: PT10S}").after == Duration(0, 10 * SECOND)
    assert schedule("{cron: '0 0 * * *'}").cron == "0 0 * * *"


# -- events and sub-flows -----------------------------------------------------------------------------------------


def test_an_emit_has_the_attributes_of_its_event() -> None:
    found = one(
        "emit: {event: {with: {source: https://a.b, type: t.v1, subject: '${ .s }', tenant: acme, data: {n: '${ .n }'}}}}"
    )
    assert isinstance(found, Emit)
    assert found.event.evaluate({"s": "x", "n": 5}, {}) == {
        "source": "https://a.b",
        "type": "t.v1",
        "subject": "x",
        "tenant": "acme",
        "data": {"n": 5},
    }


def test_a_listen_reads_and_iterates() -> None:
    found = tasks(
        "listen: {to: {any: [], until: '${ false }'}, read: envelope}\n"
        "foreach:\n  item: event\n  at: i\n  do: [{note: {set: {e: '${ $event.id }', n: '${ $i }'}}}]\n"
        "  output: {as: '{event: $event, n: $i}'}\n  export: {as: '$context + {last: .}'}"
    )
    listen = found["/do/0/x"]
    assert isinstance(listen, Listen)
    assert listen.read == "envelope"
    assert listen.foreach is not None
    assert listen.foreach.first == "/do/0/x/foreach/do/0/note"
    assert found[listen.foreach.first].variables["event"] == ("/do/0/x", "item")
    assert found[listen.foreach.first].scope == "/do/0/x"
    assert listen.foreach.output.expression is not None
    assert listen.foreach.output.expression.reads == {"event", "i"}


def test_a_run_of_a_workflow_is_a_sub_flow() -> None:
    found = one("run: {workflow: {namespace: other, name: work, version: '0.1.0', input: {a: '${ .b }'}}}")
    assert isinstance(found, Subflow)
    assert (found.workflow, found.wait) == ("other/work@0.1.0", True)
    assert found.arguments is not None
    assert found.arguments.evaluate({"b": 2}, {}) == {"a": 2}
    latest = one("run: {workflow: {namespace: other, name: work, version: latest}, await: false}")
    assert (latest.workflow, latest.wait, latest.arguments) == ("other/work", False, None)


# -- extensions, compensation -------------------------------------------------------------------------------------

LOGGING = """use:
  extensions:
    - logging:
        extend: all
        when: $task.call == "f"
        before: [{log: {set: {m: '${ "before \\($task.reference)" }'}}}]
        after: [{log: {set: {m: '${ "after \\($task.reference)" }'}}}]
"""


def test_an_extended_task_has_its_advice_around_it() -> None:
    found = tasks("do: [{y: {call: f, output: {as: .a}, if: .b, then: exit}}]", LOGGING)
    outer = found["/do/0/x"]
    assert isinstance(outer, Extended)
    inner = found["/do/0/x/extended"]
    assert isinstance(inner, Do)
    assert (inner.scope, inner.next, inner.reference) == ("/do/0/x", None, "/do/0/x")
    assert inner.first == "/do/0/x/extended/do/0/y"
    nested, called = found[inner.first], found[f"{inner.first}/extended"]
    assert isinstance(nested, Extended)
    assert nested.condition is not None
    assert nested.then == "exit"
    assert called.condition is None
    assert nested.output.expression is None
    assert called.output.expression is not None
    assert nested.reference == called.reference == "/do/0/x/do/0/y"
    assert nested.before[0].first == f"{inner.first}/extensions/0/before/0/log"
    log = found[nested.before[0].first]
    assert isinstance(log, Set)
    assert log.reference == "/do/0/x/do/0/y"
    assert nested.before[0].when is not None


@pytest.mark.parametrize(
    ("extend", "extended"),
    [("all", True), ("composite", True), ("call", False), ("set", False), ("for", False)],
)
def test_an_extension_is_around_the_kinds_it_names(extend: str, extended: bool) -> None:
    rest = f"use: {{extensions: [{{e: {{extend: {extend}, before: [{{n: {{set: {{a: 1}}}}}}]}}}}]}}\n"
    assert (
        isinstance(one("do: [{y: {raise: {error: {type: https://a.b, status: 1}}}}]", rest), Extended)
        is extended
    )


def test_a_task_names_the_one_that_undoes_it() -> None:
    found = tasks(
        "call: book\nmetadata: {compensate: {call: cancel, with: {id: '${ .id }'}}}",
    )
    assert found["/do/0/x"].compensate == "/do/0/x/metadata/compensate"
    assert found["/do/0/x/metadata/compensate"].kind == "call"
    named = tasks("call: book\nmetadata: {compensate: undo}", "use: {functions: {undo: {set: {a: 1}}}}\n")
    assert isinstance(named["/do/0/x/metadata/compensate"], Set)
    assert "did you mean 'undo'?" in refusal(
        "call: book\nmetadata: {compensate: und}", "use: {functions: {undo: {set: {a: 1}}}}\n"
    )


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("swich: []", "but found 'swich' at /do/0/x (line 3); did you mean 'switch'?"),
        ("set: {a: 1}\nthn: end", "at /do/0/x (line 5); did you mean 'then'?"),
        ("for: {each: a}\ndo: [{y: {set: {a: 1}}}]", "Expected the property 'in'"),
        ("for: {in: .a}", "Expected the property 'do'"),
        ("for: {in: .a, each: context}\ndo: [{y: {set: {a: 1}}}]", "a name that no runtime argument has"),
        ("for: {in: .a, each: $a}\ndo: [{y: {set: {a: 1}}}]", "the name of a variable, without $"),
        ("for: {in: .a, each: a, at: a}\ndo: [{y: {set: {a: 1}}}]", "two names for item and index"),
        ("for: {in: $pet}\ndo: [{y: {set: {a: 1}}}]", "but found $pet"),
        ("fork: {}", "Expected the property 'branches'"),
        (
            "fork: {branches: [{a: {set: {b: 1}}}], compete: 1}",
            "Expected true or false but found the number 1",
        ),
        ("try: [{y: {call: f}}]", "Expected the property 'catch'"),
        ("catch: {}\nset: {a: 1}", "but found 'catch'"),
        ("try: [{y: {call: f}}]\ncatch: {errors: {with: {}}}", "at least one property of an error"),
        ("try: [{y: {call: f}}]\ncatch: {errors: {with: {status: '5'}}}", "Expected a whole number"),
        (
            "try: [{y: {call: f}}]\ncatch: {retry: {backoff: {}}}",
            "exactly one of constant, linear, exponential",
        ),
        ("try: [{y: {call: f}}]\ncatch: {retry: {delay: 5}}", "Expected an ISO 8601 duration"),
        ("try: [{y: {call: f}}]\ncatch: {retry: {jitter: {from: PT2S, to: PT1S}}}", "no longer than 'to'"),
        ("try: [{y: {call: f}}]\ncatch: {retry: {jitter: {from: PT2S}}}", "Expected the property 'to'"),
        ("try: [{y: {call: f}}]\ncatch: {retry: {limit: {attempt: {count: -1}}}}", "a whole number >= 0"),
        ("wait: 5 minutes", "Expected an ISO 8601 duration such as PT15M but found '5 minutes'"),
        ("wait: {second: 5}", "did you mean 'seconds'?"),
        ("set: {a: 1}\ntimeout: {}", "Expected the property 'after'"),
        ("set: {a: 1}\ntimeout: shrt", "the name of a timeout of use.timeouts"),
        ("emit: {event: {with: {type: t}}}", "Expected the property 'source'"),
        ("emit: {event: {with: {type: t, source: nowhere}}}", "Expected a URI with a scheme"),
        ("emit: {event: {with: {type: t, source: https://a.b, time: noon}}}", "Expected a time such as"),
        ("emit: {}", "Expected the property 'event'"),
        ("listen: {to: {any: []}, read: header}", "Expected one of data, envelope, raw"),
        ("listen: {}", "Expected the property 'to'"),
        ("run: {}", "exactly one of container, script, shell, workflow but found none"),
        ("run: {shell: {command: a}, script: {language: js, code: a}}", "but found script and shell"),
        ("run: {shell: {command: a}, return: stdot}", "did you mean 'stdout'?"),
        ("run: {shell: {}}", "Expected the property 'command'"),
        ("run: {script: {language: ruby, code: a}}", "one of js, javascript, python but found 'ruby'"),
        ("run: {script: {language: js}}", "exactly one of code, source"),
        ("run: {workflow: {name: a, namespace: b, version: '1'}}", "a semantic version or latest"),
        ("run: {container: {image: a, lifetime: {cleanup: eventually}}}", "Expected the property 'after'"),
        ("run: {container: {image: a, pullPolicy: often}}", "one of ifNotPresent, always, never"),
        ("call: f\nmetadata: {priority: hihg}", "did you mean 'high'?"),
        ("call: f\nmetadata: {concurrency: 0}", "Expected a whole number >= 1"),
        ("call: f\nmetadata: {rateLimit: {limit: 5}}", "Expected the property 'per'"),
        ("call: f\nmetadata: {heartbeat: soon}", "Expected an ISO 8601 duration"),
    ],
)
def test_a_wrong_property_is_refused_with_what_was_expected(body: str, message: str) -> None:
    assert message in refusal(body)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("{}", "exactly one of every, cron, after, on but found none"),
        ("{every: PT1S, cron: '* * * * *'}", "but found every and cron"),
        ("{cron: 'every day'}", "Expected a cron expression such as '0 0 * * *'"),
        ("{cron: '0 0 31 2 *'}", "Expected a cron expression"),
        ("{every: PT0S}", "an interval longer than nothing"),
        ("{every: '${ .a }'}", "Expected a constant duration but found an expression"),
        ("{evry: PT1S}", "did you mean 'every'?"),
    ],
)
def test_a_wrong_schedule_is_refused(schedule: str, message: str) -> None:
    assert message in refusal("set: {a: 1}", f"schedule: {schedule}\n")


# -- warnings -----------------------------------------------------------------------------------------------------


def test_what_is_never_reached_or_used_is_warned_about() -> None:
    definition = compile_definition(
        HEAD
        + "use: {errors: {e: {type: https://a.b, status: 1}}, timeouts: {t: {after: PT1S}}}\n"
        + "do:\n  - a: {set: {v: 1}, then: c}\n  - b: {set: {v: 2}}\n"
        + "  - c: {switch: [{one: {when: .x, then: end}}], timeout: t}\n  - d: {raise: {error: {type: https://a.b, status: 1}}}\n"
        + "  - e: {set: {v: 3}}\n"
    )
    assert [(warning.pointer, warning.line) for warning in definition.warnings] == [
        ("/use/errors/e", 2),
        ("/do/1/b", 5),
        ("/do/2/c", 6),
        ("/do/4/e", 8),
    ]
    assert definition.warnings[1].message == "The task 'b' is never reached at /do/1/b (line 5)"


def test_a_good_definition_has_no_warning() -> None:
    body = "switch: [{a: {when: .x, then: end}}, {b: {then: continue}}]"
    definition = compile_definition(
        text(body) + "  - y: {raise: {error: {type: https://a.b, status: 1}}, if: .z}\n  - z: {set: {a: 1}}\n"
    )
    assert definition.warnings == ()
    assert isinstance(definition.tasks["/do/0/x"], Switch)


# -- languages and decisions --------------------------------------------------------------------------------------


def test_the_expressions_of_a_definition_may_be_cel() -> None:
    rest = "evaluate: {language: cel}\n"
    found = one("set: {a: '${ data.n + 1 }'}\nif: data.n > 0", rest)
    assert found.value.evaluate({"n": 2}, {}) == {"a": 3}
    assert found.condition.evaluate({"n": 0}, {}) is False
    assert "Expected a CEL expression but" in refusal("set: {a: '${ data. }'}", rest)


def test_a_call_of_decision_is_a_table() -> None:
    found = one(
        "call: decision\nwith:\n  name: size\n  hitPolicy: first\n  inputs: [{name: n, expression: .n}]\n"
        "  outputs: [{name: size}]\n  rules: [{when: ['> 5'], then: [big]}, {when: ['-'], then: [small]}]"
    )
    assert isinstance(found, Decide)
    assert found.decide({"n": 7}, {})[0] == {"size": "big"}
