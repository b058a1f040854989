"""Authentication policies against a server that checks them, and an authority that gives tokens."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from flowtrail import TaskError

from engine.settings import read_settings
from engine.tasks import connections, http, oauth, problems
from engine.tasks.authentication import authorize
from engine.tasks.configured import configure
from tests.local_http import Answer, LocalHttp, Request, as_json, local_http

SECRET = "s3cret-of-the-client"
CHALLENGE = 'Digest realm="r", nonce="n0", qop="auth", algorithm=SHA-256, opaque="o"'


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    configure(read_settings({}))
    oauth.forget()
    yield
    configure(None)


@pytest.fixture
def server() -> Iterator[LocalHttp]:
    with local_http(answered) as found:
        yield found


def answered(request: Request) -> Answer:
    sent = request.headers.get("authorization", "")
    match request.path:
        case "/echo":
            return as_json({"authorization": sent, "headers": request.headers, "body": request.body.decode()})
        case "/digest":
            return (
                as_json(sent)
                if sent.startswith("Digest ")
                else as_json(None, 401, www_authenticate=CHALLENGE)
            )
        case "/realm/.well-known/openid-configuration":
            return as_json({"token_endpoint": f"http://{request.headers['host']}/oauth2/token"})
        case "/refused/oauth2/token":
            return as_json({"error": "invalid_client", "error_description": SECRET}, 401)
        case "/broken/oauth2/token":
            return as_json({}, 502)
        case "/opaque/oauth2/token":
            return as_json({"access_token": "opaque"})
        case "/oauth2/token" | "/custom":
            token = jwt.encode({"iss": "https://issuer.example"}, "k" * 32, algorithm="HS256")
            return as_json({"access_token": token, "token_type": "bearer", "expires_in": 3600})
    return 404, {}, b""


def call(server: LocalHttp, policy: Any, path: str = "/echo", **arguments: Any) -> Any:
    async def once() -> Any:
        try:
            endpoint = {"uri": server.url + path, "authentication": policy}
            return await http.call({"method": "GET", "endpoint": endpoint, **arguments})
        finally:
            await connections.close()

    return asyncio.run(once())


def failure(server: LocalHttp, policy: Any) -> TaskError:
    with pytest.raises(TaskError) as caught:
        call(server, policy)
    assert SECRET not in f"{caught.value} {caught.value.detail}"
    return caught.value


def tokens_asked(server: LocalHttp) -> list[Request]:
    return [request for request in server.requests if request.method == "POST"]


def client(server: LocalHttp, **more: Any) -> dict[str, Any]:
    return {
        "authority": server.url,
        "grant": "client_credentials",
        "client": {"id": "me", "secret": SECRET},
        **more,
    }


def test_basic_and_bearer_are_sent_as_headers(server: LocalHttp) -> None:
    expected = "Basic " + base64.b64encode("ann:pä:ss".encode()).decode()
    assert call(server, {"basic": {"username": "ann", "password": "pä:ss"}})["authorization"] == expected
    assert call(server, {"bearer": {"token": "t0"}})["authorization"] == "Bearer t0"


def test_a_policy_from_a_secret_may_be_an_object_text_or_a_bare_token(server: LocalHttp) -> None:
    assert call(server, {"bearer": '{"token": "t1"}'})["authorization"] == "Bearer t1"
    assert call(server, {"bearer": "t2"})["authorization"] == "Bearer t2"
    assert call(server, {"basic": {"username": "ann", "password": 1234}})["authorization"].startswith(
        "Basic "
    )


def test_digest_answers_the_servers_challenge(server: LocalHttp) -> None:
    sent = call(server, {"digest": {"username": "ann", "password": SECRET}}, "/digest")
    assert 'username="ann"' in sent
    assert 'uri="/digest"' in sent
    assert SECRET not in sent


def test_an_authorization_can_be_placed_elsewhere(server: LocalHttp) -> None:
    found = call(
        server,
        {"bearer": {"token": "t3"}},
        headers={"X-Parameter": "⟦authorization:parameter⟧"},
        body={"scheme": "⟦authorization:scheme⟧"},
        method="POST",
    )
    assert found["headers"]["x-parameter"] == "t3"
    assert found["body"] == '{"scheme":"Bearer"}'


def test_a_secret_that_is_absent_is_forbidden(server: LocalHttp) -> None:
    with pytest.raises(TaskError) as caught:
        call(server, None, headers={"X-Key": "⟦secret:absent⟧"})
    assert (caught.value.type, caught.value.status) == (problems.authorization("").type, 403)


@pytest.mark.parametrize(
    "policy",
    [
        {"basic": {"username": "ann"}},
        {"basic": "not json"},
        {"certificate": {}},
        {"basic": {}, "bearer": {}},
        {"bearer": {"token": [SECRET]}},
        {"oauth2": {"authority": "http://127.0.0.1:1", "grant": "authorization_code", "client": {"id": "a"}}},
        {
            "oauth2": {
                "authority": "http://127.0.0.1:1",
                "grant": "client_credentials",
                "client": {"secret": SECRET},
            }
        },
    ],
)
def test_a_policy_that_cannot_be_meant_is_a_configuration_error(server: LocalHttp, policy: Any) -> None:
    assert failure(server, policy).type == problems.CONFIGURATION
    assert server.requests == []


def test_client_credentials_are_posted_and_the_token_is_kept(server: LocalHttp) -> None:
    policy = {"oauth2": client(server, scopes=["a", "b"], audiences=["x", "y"])}
    assert call(server, policy)["authorization"].startswith("Bearer ey")
    call(server, policy)
    (asked,) = tokens_asked(server)
    assert asked.path == "/oauth2/token"
    assert asked.form == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "audience": ["x", "y"],
        "client_id": ["me"],
        "client_secret": [SECRET],
    }


def test_the_endpoint_and_the_encoding_can_be_chosen(server: LocalHttp) -> None:
    more = {"endpoints": {"token": "/custom"}, "request": {"encoding": "application/json"}}
    call(server, {"oauth2": client(server, **more)})
    (asked,) = tokens_asked(server)
    assert (asked.path, asked.headers["content-type"]) == ("/custom", "application/json")
    assert asked.json()["client_secret"] == SECRET


def test_a_client_can_identify_itself_in_each_way(server: LocalHttp) -> None:
    def asked(**given: str) -> Request:
        oauth.forget()
        call(server, {"oauth2": client(server, client={"id": "me", **given})})
        return tokens_asked(server)[-1]

    basic = asked(secret=SECRET, authentication="client_secret_basic")
    assert basic.headers["authorization"] == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert "client_secret" not in basic.form
    signed = asked(secret=SECRET, authentication="client_secret_jwt").form["client_assertion"][0]
    key = SECRET.encode().ljust(32, b"\0")
    claims = jwt.decode(signed, key, algorithms=["HS256"], audience=f"{server.url}/oauth2/token")
    assert (claims["iss"], claims["sub"]) == ("me", "me")
    assert asked(assertion="a.b.c", authentication="private_key_jwt").form["client_assertion"] == ["a.b.c"]
    assert asked(authentication="none").form == {"grant_type": ["client_credentials"], "client_id": ["me"]}


def test_the_other_grants_send_what_they_need(server: LocalHttp) -> None:
    def asked(**given: Any) -> dict[str, list[str]]:
        oauth.forget()
        call(server, {"oauth2": {"authority": server.url, **given}})
        return tokens_asked(server)[-1].form

    assert asked(grant="password", username="ann", password="p") == {
        "grant_type": ["password"],
        "username": ["ann"],
        "password": ["p"],
    }
    token = {"token": "t", "type": "urn:t"}
    assert asked(grant="refresh_token", subject=token)["refresh_token"] == ["t"]
    exchanged = asked(grant=oauth.TOKEN_EXCHANGE, subject=token, actor={"token": "u", "type": "urn:u"})
    assert exchanged["subject_token"] == ["t"]
    assert exchanged["actor_token_type"] == ["urn:u"]


def test_oidc_finds_the_endpoint_in_the_discovery_document(server: LocalHttp) -> None:
    for authority in (f"{server.url}/realm", f"{server.url}/realm/.well-known/openid-configuration"):
        policy = {"oidc": client(server, authority=authority)}
        assert call(server, policy)["authorization"].startswith("Bearer ")
    assert [r.path for r in server.requests].count("/realm/.well-known/openid-configuration") == 1


def test_an_authority_that_refuses_is_an_authentication_error_without_its_words(server: LocalHttp) -> None:
    problem = failure(server, {"oauth2": client(server, authority=f"{server.url}/refused")})
    assert (problem.type, problem.status) == (problems.AUTHENTICATION, 401)
    assert "(invalid_client)" in str(problem.detail)


def test_an_authority_that_fails_is_a_communication_error(server: LocalHttp) -> None:
    problem = failure(server, {"oauth2": client(server, authority=f"{server.url}/broken")})
    assert (problem.type, problem.status) == (problems.COMMUNICATION, 502)


def test_a_token_of_another_issuer_is_refused(server: LocalHttp) -> None:
    good = client(server, issuers=["https://issuer.example"])
    assert call(server, {"oauth2": good})["authorization"]
    for given in (
        client(server, issuers=["https://other.example"]),
        client(server, issuers=["https://issuer.example"], authority=f"{server.url}/opaque"),
    ):
        assert failure(server, {"oauth2": given}).type == problems.AUTHENTICATION


def test_a_token_without_a_lifetime_is_not_kept(server: LocalHttp) -> None:
    policy = {"oauth2": client(server, authority=f"{server.url}/opaque")}
    call(server, policy)
    call(server, policy)
    assert len(tokens_asked(server)) == 2


def test_nobody_prints_an_authorization() -> None:
    found = asyncio.run(authorize({"bearer": {"token": SECRET}}))
    assert SECRET not in repr(found)
