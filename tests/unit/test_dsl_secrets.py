"""Authentication policies and secrets: what a call is given, and what no program and no data can do with them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError, ExpressionError
from engine.dsl.model import Call
from engine.dsl.secrets import MARKS

HEAD = "document: {dsl: '1.0.3', namespace: test, name: sample, version: '1.0.0'}\n"


def text(body: str, rest: str = "") -> str:
    indented = "\n".join(f"      {line}" for line in body.splitlines())
    return f"{HEAD}{rest}do:\n  - x:\n{indented}\n"


def given(body: str, data: Any = None, rest: str = "", **arguments: Any) -> Any:
    """The arguments of the call `x`."""
    task = compile_definition(text(body, rest)).tasks["/do/0/x"]
    assert isinstance(task, Call)
    assert task.arguments is not None
    return task.arguments.evaluate({} if data is None else data, arguments)


def refusal(body: str, rest: str = "") -> str:
    with pytest.raises(DefinitionError) as caught:
        compile_definition(text(body, rest))
    return "\n".join(problem.message for problem in caught.value.problems)


HTTP = "call: http\nwith: {method: get, endpoint: {uri: https://a.b, authentication: %s}}"
OAUTH2 = (
    "{authority: 'http://a.b/{realm}', endpoints: {token: /t, revocation: /r, introspection: /i}, grant: client_credentials,"
    " client: {id: a, secret: b, assertion: c, authentication: private_key_jwt}, request: {encoding: application/json},"
    " issuers: [a], scopes: [b], audiences: [c], username: d, password: e, subject: {token: a, type: b}, actor: {token: a, type: b}}"
)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("{basic: {username: a, password: '${ .p }'}}", {"basic": {"username": "a", "password": "word"}}),
        ("{digest: {username: a, password: b}}", {"digest": {"username": "a", "password": "b"}}),
        ("{bearer: {token: '${ .p }'}}", {"bearer": {"token": "word"}}),
        ("{basic: {use: s}}", {"basic": "⟦secret:s⟧"}),
        ("{oauth2: {use: s}}", {"oauth2": "⟦secret:s⟧"}),
        ("{bearer: {token: '${ $secrets.s.token }'}}", {"bearer": {"token": "⟦secret:s/token⟧"}}),
        ("{use: reusable}", {"bearer": {"token": "word"}}),
        ("{oidc: {authority: https://a.b, grant: password, client: {id: a}}}", None),
        (f"{{oauth2: {OAUTH2}}}", None),
    ],
)
def test_an_authentication_is_a_whole_policy_with_its_secrets_sealed(policy: str, expected: Any) -> None:
    rest = "use: {secrets: [s], authentications: {reusable: {bearer: {token: '${ .p }'}}}}\n"
    found = given(HTTP % policy, {"p": "word"}, rest)["endpoint"]["authentication"]
    assert expected is None or found == expected


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("{basic: {username: a}}", "Expected the property 'password'"),
        ("{beaer: {token: a}}", "did you mean 'bearer'?"),
        ("{}", "exactly one of basic, bearer, digest, oauth2, oidc but found none"),
        ("{use: petStor}", "did you mean 'petStore'?"),
        ("{certificate: {}}", "certificate authentication"),
        (
            "{oauth2: {authority: https://a.b, grant: client_credential}}",
            "did you mean 'client_credentials'?",
        ),
        ("{oauth2: {grant: password}}", "Expected the property 'authority'"),
        ("{oidc: {authority: https://a.b, grant: password, endpoints: {}}}", "but found 'endpoints'"),
    ],
)
def test_a_wrong_authentication_is_refused(policy: str, message: str) -> None:
    rest = "use: {authentications: {petStore: {bearer: {token: a}}}}\n"
    assert message in refusal(HTTP % policy, rest)


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("$secrets.s", "⟦secret:s⟧"),
        ("$secrets.s.a.b", "⟦secret:s/a/b⟧"),
        ('$secrets["my-secret"]["x/y"]', "⟦secret:my-secret/x~1y⟧"),
        ('"Bearer \\($secrets.s.t)"', "Bearer ⟦secret:s/t⟧"),
        ('"a" + $secrets.s.a + .b', "a⟦secret:s/a⟧c"),
        ("{a: $secrets.s.a, b: [$secrets.s.b, .b]}", {"a": "⟦secret:s/a⟧", "b": ["⟦secret:s/b⟧", "c"]}),
        ("$authorization.scheme", "⟦authorization:scheme⟧"),
        ("$secrets.other", "⟦secret:/other⟧"),
    ],
)
def test_a_secret_is_sealed_where_a_call_is_given_it(program: str, result: Any) -> None:
    rest = "use: {secrets: [s, my-secret]}\n"
    assert given(f"call: f\nwith:\n  v: |-\n    ${{ {program} }}", {"b": "c"}, rest) == {"v": result}


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("$secrets.s | length", "but found |"),
        ("$secrets.s.a == .b", "but found =="),
        ("$secrets.s | @base64", "but found |"),
        ("$secrets", "Expected $secrets with a secret's name"),
        ("$secrets[.name]", "Expected a constant name after $secrets"),
        ("[$secrets.s, $secrets.s.a]", "as a whole or parts of it"),
        ("if .a then $secrets.s else null end", "but found if"),
    ],
)
def test_a_program_may_only_place_a_secret(program: str, found: str) -> None:
    assert found in refusal(f"call: f\nwith:\n  v: ${{ {program} }}", "use: {secrets: [s]}\n")


@pytest.mark.parametrize(
    "body",
    ["set: {a: '${ $secrets.s }'}", "set: {a: 1}\nif: $secrets.s == 1", "call: f\noutput: {as: $secrets.s}"],
)
def test_a_secret_is_refused_elsewhere(body: str) -> None:
    assert "Expected $secrets only in the arguments of a call or run" in refusal(
        body, "use: {secrets: [s]}\n"
    )


def test_data_cannot_bring_a_reference_into_a_call() -> None:
    rest = "use: {secrets: [s]}\n"
    with pytest.raises(ExpressionError, match="without references to secrets"):
        given("call: f\nwith: {v: '${ .v }'}", {"v": {"deep": ["x⟦secret:s⟧"]}}, rest)
    with pytest.raises(ExpressionError, match="without references to secrets"):
        given(
            "call: http\nwith: {method: get, endpoint: 'https://a.b/{v}'}",
            {"v": "⟦authorization:parameter⟧"},
            rest,
        )
    body = "call: f\ninput: {from: {v: '${ $secrets.s }'}}\nwith: {v: '${ .v }'}"
    assert given(body, {"v": "⟦secret:s⟧"}, rest) == {"v": "⟦secret:s⟧"}


def test_an_input_that_becomes_the_arguments_is_checked_too() -> None:
    task = compile_definition(text("call: f")).tasks["/do/0/x"]
    assert isinstance(task, Call)
    assert task.arguments is None
    assert task.check_input is not None
    task.check_input({"v": "nothing special ⟦"})
    with pytest.raises(ExpressionError, match="without references to secrets"):
        task.check_input({"v": ["⟦secret:s⟧"]})
    assert any(mark in orjson.dumps({"v": "⟦secret:s⟧"}) for mark in MARKS)
