"""Calls and runs: functions every runtime has, of workers, of use.functions and of catalogs."""

from __future__ import annotations

from typing import Any

import pytest

from engine.dsl.catalogs import resolve, resolve_document
from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.dsl.model import Approval, Call, Do, Duration, For, Limit, Raise, Set, Task
from engine.dsl.source import parse

HEAD = "document: {dsl: '1.0.3', namespace: test, name: sample, version: '1.0.0'}\n"
SECOND = 1_000_000


def text(body: str, rest: str = "") -> str:
    indented = "\n".join(f"      {line}" for line in body.splitlines())
    return f"{HEAD}{rest}do:\n  - x:\n{indented}\n"


def tasks(body: str, rest: str = "") -> dict[str, Task]:
    return dict(compile_definition(text(body, rest)).tasks)


def one(body: str, rest: str = "") -> Any:
    return tasks(body, rest)["/do/0/x"]


def given(body: str, data: Any = None, rest: str = "", **arguments: Any) -> Any:
    """The arguments of the call `x`."""
    task = one(body, rest)
    assert isinstance(task, Call)
    assert task.arguments is not None
    return task.arguments.evaluate({} if data is None else data, arguments)


def refusal(body: str, rest: str = "") -> str:
    with pytest.raises(DefinitionError) as caught:
        compile_definition(text(body, rest))
    return "\n".join(problem.message for problem in caught.value.problems)


# -- functions every runtime has ----------------------------------------------------------------------------------

DOCUMENT = "document: {endpoint: https://a.b/doc.json}"
VALID = [
    ("http", "{method: get, endpoint: 'https://a.b/{id}'}"),
    (
        "http",
        "{method: post, endpoint: '${ .uri }', headers: '${ .h }', query: '${ .q }', body: [1], output: raw}",
    ),
    (
        "http",
        "{method: put, endpoint: {uri: '${ .uri }'}, headers: {a: b, n: 5}, query: {q: '${ .q }'}, redirect: true}",
    ),
    (
        "openapi",
        f"{{{DOCUMENT}, operationId: find, parameters: {{status: [a]}}, output: response, redirect: true}}",
    ),
    (
        "openapi",
        "{document: {name: d, endpoint: {uri: https://a.b}}, operationId: f, authentication: {bearer: {token: t}}}",
    ),
    (
        "grpc",
        "{proto: {endpoint: file://app/g.proto}, service: {name: a.B, host: localhost, port: 5011}, method: M}",
    ),
    (
        "grpc",
        "{proto: {endpoint: file://g}, service: {name: B, host: h, authentication: {bearer: {token: t}}}, method: M, arguments: {a: 1}}",
    ),
    ("asyncapi", f"{{{DOCUMENT}, operation: o, message: {{payload: {{a: 1}}, headers: {{h: v}}}}}}"),
    (
        "asyncapi",
        f"{{{DOCUMENT}, channel: c, protocol: kafka, message: {{payload: {{}}}}, authentication: {{bearer: {{token: t}}}}}}",
    ),
    ("asyncapi", f"{{{DOCUMENT}, operation: o, server: {{name: s, variables: {{e: dev}}}}, message: {{}}}}"),
    (
        "asyncapi",
        f"{{{DOCUMENT}, operation: o, subscription: {{consume: {{amount: 5, for: {{seconds: 10}}}}}}}}",
    ),
    (
        "mcp",
        "{method: tools/list, transport: {http: {endpoint: https://a.b, headers: {a: b}}}, timeout: PT5S}",
    ),
    (
        "mcp",
        (
            "{protocolVersion: '2025-06-18', method: tools/call, parameters: '${ .p }', timeout: {seconds: 1}, "
            "transport: {stdio: {command: npx, arguments: [a, 5], environment: {A: b}}, options: {o: v}}, "
            "client: {name: c, version: '1'}}"
        ),
    ),
    ("a2a", "{method: message/send, agentCard: {endpoint: https://a.b}, parameters: {message: {parts: []}}}"),
    ("a2a", "{method: tasks/get, server: https://a.b, parameters: '${ .p }'}"),
    (
        "a2a",
        "{method: 'agent/getAuthenticatedExtendedCard', server: {uri: https://a.b, authentication: {bearer: {token: t}}}}",
    ),
]


@pytest.mark.parametrize(("function", "arguments"), VALID)
def test_a_function_every_runtime_has_goes_to_the_built_in_workers(function: str, arguments: str) -> None:
    found = one(f"call: {function}\nwith: {arguments}")
    assert isinstance(found, Call)
    assert (found.function, found.queue, found.kind) == (function, "builtin", "call")
    data = {"uri": "https://a.b", "h": {}, "q": "x", "p": {}, "id": 7, "more": 1}
    assert found.arguments is not None
    assert "__input__" in found.arguments.evaluate(data, {})


def test_arguments_are_evaluated_beside_the_input_that_uri_templates_expand() -> None:
    assert given(
        "call: http\nwith: {method: get, endpoint: 'https://a.b/{id}/{no}', body: '${ .n }'}",
        {"id": 7, "n": [1]},
    ) == {
        "method": "get",
        "endpoint": "https://a.b/{id}/{no}",
        "body": [1],
        "__input__": {"id": 7},
    }


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("http", "{method: get, endpont: https://a.b}", "did you mean 'endpoint'?"),
        ("http", "{method: get}", "Expected the property 'endpoint'"),
        ("http", "{method: get, endpoint: nowhere}", "Expected a URI with a scheme, or an expression"),
        ("http", "{method: get, endpoint: 5}", "Expected an endpoint (a URI, an expression or an object)"),
        ("http", "{method: get, endpoint: https://a.b, output: contnt}", "did you mean 'content'?"),
        ("http", "{method: get, endpoint: https://a.b, redirect: 5}", "Expected true or false"),
        ("http", "{method: get, endpoint: https://a.b, headers: [a]}", "Expected an object but found a list"),
        (
            "http",
            "{method: get, endpoint: {uri: https://a.b, authentication: {use: a}}}",
            "of use.authentications",
        ),
        ("openapi", f"{{{DOCUMENT}}}", "Expected the property 'operationId'"),
        (
            "grpc",
            "{proto: {endpoint: file://g}, service: {name: B, host: h, port: 70000}, method: M}",
            "from 0 to 65535",
        ),
        ("asyncapi", f"{{{DOCUMENT}, operation: o}}", "exactly one of message, subscription but found none"),
        (
            "asyncapi",
            f"{{{DOCUMENT}, operation: o, channel: c, message: {{}}}}",
            "but found operation and channel",
        ),
        (
            "asyncapi",
            f"{{{DOCUMENT}, operation: o, protocol: kafca, message: {{}}}}",
            "did you mean 'kafka'?",
        ),
        (
            "asyncapi",
            f"{{{DOCUMENT}, operation: o, subscription: {{consume: {{}}}}}}",
            "exactly one of amount, while, until",
        ),
        ("mcp", "{method: tools/list}", "Expected the property 'transport'"),
        (
            "mcp",
            "{method: tools/lst, transport: {http: {endpoint: https://a.b}}}",
            "did you mean 'tools/list'?",
        ),
        ("mcp", "{method: tools/list, transport: {}}", "exactly one of http, stdio"),
        ("a2a", "{method: message/send}", "Expected agentCard or server but found none"),
    ],
)
def test_wrong_arguments_are_refused(function: str, arguments: str, message: str) -> None:
    assert message in refusal(f"call: {function}\nwith: {arguments}")


def test_a_subscription_gives_its_conditions_as_text_and_what_they_read() -> None:
    found = given(
        f"call: asyncapi\nwith: {{{DOCUMENT}, operation: o, subscription: {{filter: '${{ .id == $context.id }}', "
        "consume: {while: '${ ($context.seen | length) < 5 }', for: PT5S}}}",
        {},
        context={"id": 5},
    )
    assert found["subscription"] == {
        "filter": "${ .id == $context.id }",
        "consume": {"while": "${ ($context.seen | length) < 5 }", "for": "PT5S"},
    }
    assert found["__arguments__"] == {"context": {"id": 5}}


def test_a_subscriptions_foreach_goes_over_the_messages() -> None:
    found = tasks(
        f"call: asyncapi\nwith:\n  {DOCUMENT}\n  operation: o\n  subscription:\n    consume: {{amount: 5}}\n"
        "    foreach:\n      item: message\n      do: [{note: {set: {m: '${ $message }'}}}]\n"
        "      output: {as: '$message.payload'}\nthen: end"
    )
    scope, call, loop = (found[f"/do/0/x{path}"] for path in ("", "/subscribe", "/foreach"))
    assert isinstance(scope, Do)
    assert isinstance(call, Call)
    assert isinstance(loop, For)
    assert (scope.first, scope.then, call.next, loop.next) == (call.pointer, "end", loop.pointer, None)
    assert found[loop.first].variables["message"] == (loop.pointer, "item")
    assert scope.output.expression is not None
    assert scope.output.expression.evaluate([{"payload": 1}, {"payload": 2}], {}) == [1, 2]


# -- runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "function", "expected"),
    [
        (
            "{shell: {command: 'echo $1', stdin: '${ . }', arguments: [a, '${ .b }'], environment: {X: y}}, return: all}",
            "run.shell",
            {
                "command": "echo $1",
                "stdin": {"b": 1},
                "arguments": ["a", 1],
                "environment": {"X": "y"},
                "return": "all",
            },
        ),
        (
            "{script: {language: python, code: 'print(1)', arguments: {n: '${ .b }'}}}",
            "run.script",
            {"language": "python", "code": "print(1)", "arguments": {"n": 1}, "return": "stdout"},
        ),
        (
            "{script: {language: js, source: {endpoint: 'file:///s.js'}}, return: code}",
            "run.script",
            {"language": "js", "source": {"endpoint": "file:///s.js"}, "return": "code"},
        ),
        (
            "{container: {image: alpine, name: '${ \"n\" }', command: ls, ports: {80: 8080}, volumes: {a: /b},"
            " lifetime: {cleanup: eventually, after: {minutes: 30}}, pullPolicy: always}, return: none}".replace(
                "80:", "'80':"
            ),
            "run.container",
            {
                "image": "alpine",
                "name": "n",
                "command": "ls",
                "ports": {"80": 8080},
                "volumes": {"a": "/b"},
                "lifetime": {"cleanup": "eventually", "after": {"minutes": 30}},
                "pullPolicy": "always",
                "return": "none",
            },
        ),
    ],
)
def test_a_process_goes_to_workers_that_enable_it(run: str, function: str, expected: Any) -> None:
    found = one(f"run: {run}")
    assert isinstance(found, Call)
    assert (found.function, found.queue, found.kind, found.wait) == (function, "process", "run", True)
    assert found.arguments is not None
    assert found.arguments.evaluate({"b": 1}, {}) == {**expected, "__input__": {}}
    assert one("run: {shell: {command: a}, await: false}").wait is False


# -- metadata -----------------------------------------------------------------------------------------------------


def test_metadata_settles_how_a_call_is_scheduled() -> None:
    found = one(
        "call: f\nmetadata: {queue: q, priority: high, heartbeat: PT10S, attempts: 5,"
        " concurrency: {limit: 3, key: '${ .k }'}, rateLimit: {limit: 10, per: PT1M}}"
    )
    assert (found.queue, found.priority, found.heartbeat, found.attempts) == (
        "q",
        "high",
        Duration(0, 10 * SECOND),
        5,
    )
    concurrency, rate = found.limits
    assert (concurrency.name, concurrency.concurrency, concurrency.key.source) == ("q:f", 3, "${ .k }")
    assert rate == Limit("q:f", None, rate=10, per=60 * SECOND)
    together = one("call: f\nmetadata: {concurrency: 2, rateLimit: {limit: 10, per: PT1M}}").limits
    assert together == (Limit("default:f", None, 2, 10, 60 * SECOND),)


def test_an_approval_has_a_request_for_people_and_a_form() -> None:
    found = one(
        "call: approval\nwith: {title: '${ .t }', assignees: [a], due: P2D, form: {type: object, required: [ok]}}"
    )
    assert isinstance(found, Approval)
    assert found.form is not None
    assert found.form.problem({}) is not None
    assert found.request.evaluate({"t": "Yes?"}, {}) == {
        "title": "Yes?",
        "assignees": ["a"],
        "due": "P2D",
        "form": {"type": "object", "required": ["ok"]},
    }
    assert "did you mean 'assignees'?" in refusal("call: approval\nwith: {asignees: [a]}")


# -- reusable functions -------------------------------------------------------------------------------------------


def test_a_function_is_put_in_place_of_its_call() -> None:
    found = one(
        "call: double\nwith: {n: '${ .value + $input.value }'}\ninput: {from: .deep}\nthen: end",
        "use: {functions: {double: {set: {result: '${ .n * 2 }'}}}}\n",
    )
    assert isinstance(found, Set)
    assert (found.pointer, found.then, found.kind) == ("/do/0/x", "end", "set")
    assert found.input.expression is not None
    assert found.input.expression.reads == frozenset()
    assert found.input.expression.evaluate({"deep": {"value": 3}}, {}) == {"n": 6}


def test_a_function_with_transforms_of_its_own_becomes_a_scope() -> None:
    found = tasks(
        "call: f\nwith: {n: 1}\noutput: {as: .outer}",
        "use: {functions: {f: {set: {a: 1}, input: {schema: {document: {required: [n]}}}, output: {as: .inner}}}}\n",
    )
    scope, inner = found["/do/0/x"], found["/do/0/x/function/f"]
    assert isinstance(scope, Do)
    assert (scope.first, inner.scope, inner.next) == (inner.pointer, scope.pointer, None)
    assert inner.input.schema is not None
    assert scope.output.expression is not None


def test_a_function_keeps_the_task_that_undoes_it() -> None:
    rest = "use: {functions: {book: {call: reserve, metadata: {compensate: {call: cancel}, queue: q}}}}\n"
    found = tasks("call: book", rest)
    inner = found["/do/0/x/function/book"]
    assert isinstance(inner, Call)
    assert inner.queue == "q"
    assert inner.compensate is not None
    assert isinstance(found[inner.compensate], Call)


def test_functions_may_call_functions_but_not_themselves() -> None:
    rest = "use: {functions: {a: {call: b}, b: {do: [{y: {call: work}}]}}}\n"
    assert isinstance(tasks("call: a", rest)["/do/0/x/do/0/y"], Call)
    endless = "use: {functions: {a: {call: b}, b: {do: [{y: {call: a}}]}}}\n"
    assert "functions that do not call themselves but found 'a' at /use/functions/a (line 2)" in refusal(
        "call: a", endless
    )


def test_a_wrong_function_is_refused_once_where_it_is_written() -> None:
    message = refusal(
        "do: [{y: {call: f}}, {z: {call: f}}]", "use: {functions: {f: {call: http, with: {method: get}}}}\n"
    )
    assert message == "Expected the property 'endpoint' but it is missing at /use/functions/f/with (line 2)"


def test_functions_that_multiply_are_stopped() -> None:
    functions = {
        f"f{n}": {"fork": {"branches": [{f"b{i}": {"call": f"f{n + 1}"}} for i in range(9)]}}
        for n in range(9)
    }
    document = parse(text("call: f0")).value | {"use": {"functions": {**functions, "f9": {"set": {"a": 1}}}}}
    with pytest.raises(DefinitionError) as caught:
        compile_definition(document)
    assert "Expected at most 20000 tasks" in str(caught.value)


def test_a_name_close_to_a_function_is_warned_about() -> None:
    definition = compile_definition(text("call: htp"))
    assert [warning.message for warning in definition.warnings] == [
        "'htp' is taken for a function of workers; did you mean 'http'? at /do/0/x/call (line 4)"
    ]


# -- catalogs -----------------------------------------------------------------------------------------------------

FUNCTION = "input: {schema: {document: {required: [message]}}}\ncall: write-log\nwith: {m: '${ .message }'}\n"
FILES = {
    "file:///catalog/functions/log/1.0.0/function.yaml": FUNCTION,
    "catalog:/functions/log/2.0.0/function.yaml": "call: log:1.0.0@global\nwith: {message: hi}\n",
    "file:///schemas/order.json": '{"type": "object", "required": ["id"]}',
    "https://raw.githubusercontent.com/o/r/refs/heads/main/functions/log/1.0.0/function.yaml": FUNCTION,
}
GLOBAL = "use: {catalogs: {global: {endpoint: {uri: 'file:///catalog'}}}}\n"


def read(uri: str) -> str | None:
    if uri in FILES:
        return FILES[uri]
    if uri.startswith("https:"):
        return None
    raise FileNotFoundError(2, "No such file", uri)


def test_a_cataloged_function_is_put_into_the_document() -> None:
    source = resolve(parse(text("call: log:1.0.0@global\nwith: {message: hi}", GLOBAL)), read)
    definition = compile_definition(source)
    assert list(definition.document["use"]["functions"]) == ["log:1.0.0@global"]
    call = definition.tasks["/do/0/x/function/log:1.0.0@global"]
    assert isinstance(call, Call)
    assert call.function == "write-log"
    assert definition.warnings == ()
    again = compile_definition(definition.document)
    assert again.hash == definition.hash


def test_the_default_catalog_needs_no_definition_and_functions_may_call_others() -> None:
    document = parse(text("call: log:2.0.0@default", GLOBAL)).value
    resolved = resolve_document(document, read)
    assert sorted(resolved["use"]["functions"]) == ["log:1.0.0@global", "log:2.0.0@default"]
    assert "functions" not in document["use"]
    assert compile_definition(resolved).warnings == ()


def test_the_page_of_a_repository_is_read_as_its_raw_text() -> None:
    body = "call: https://github.com/o/r/tree/main/functions/log/1.0.0/function.yaml\nwith: {message: hi}"
    assert len(resolve(parse(text(body)), read).value["use"]["functions"]) == 1


def test_a_schema_of_a_file_is_put_into_the_document() -> None:
    body = "set: {a: 1}\ninput: {schema: {format: json, resource: {endpoint: 'file:///schemas/order.json'}}}"
    task = compile_definition(resolve(parse(text(body)), read)).tasks["/do/0/x"]
    assert task.input.schema is not None
    assert task.input.schema.problem({}) == "Expected the property 'id' but it is missing at /"


def test_what_a_catalog_should_have_and_has_not_is_refused() -> None:
    with pytest.raises(DefinitionError) as caught:
        resolve(parse(text("call: log:9.0.0@global", GLOBAL)), read)
    (problem,) = caught.value.problems
    assert "functions/log/9.0.0/function.yaml but No such file at /do/0/x/call (line 5)" in problem.message
    assert "did you mean 'global'?" in refusal("call: log:1.0.0@globl", GLOBAL)


def test_what_was_not_read_is_warned_about_and_its_call_fails() -> None:
    definition = compile_definition(
        resolve(
            parse(text("call: https://a.b/f@v1.0.0\ninput: {schema: {resource: {endpoint: https://a.b/s}}}")),
            read,
        )
    )
    task = definition.tasks["/do/0/x"]
    assert isinstance(task, Raise)
    assert task.error.evaluate({}, {})["type"].endswith("/errors/configuration")
    assert task.input.schema is not None
    assert "was not read" in str(task.input.schema.problem({}))
    assert ["was not read" in warning.message for warning in definition.warnings] == [True, True]
