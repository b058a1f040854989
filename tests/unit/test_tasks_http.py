"""`call: http` against a server on the loopback."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from flowtrail import TaskError

from engine.settings import read_settings
from engine.tasks import connections, http, problems
from engine.tasks.configured import configure
from tests.local_http import Answer, LocalHttp, Request, as_json, local_http


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    configure(read_settings({}))
    yield
    configure(None)


@pytest.fixture
def server() -> Iterator[LocalHttp]:
    with local_http(answered) as found:
        yield found


def answered(request: Request) -> Answer:
    match request.path.split("/")[1:]:
        case ["echo", *_]:
            return as_json(
                {
                    "method": request.method,
                    "target": request.target,
                    "headers": request.headers,
                    "body": request.body.decode(),
                }
            )
        case ["status", code]:
            return as_json({"title": "as asked"}, int(code), location="/echo")
        case ["text"]:
            return 200, {"content-type": "text/plain; charset=latin-1"}, "grün".encode("latin-1")
        case ["bytes"]:
            return 200, {"content-type": "application/octet-stream"}, b"\x00\x01"
        case ["nothing"]:
            return 204, {}, b""
        case ["large"]:
            return 200, {"content-type": "text/plain"}, b"x" * 300_000
        case ["bomb"]:
            return 200, {"content-encoding": "gzip"}, gzip.compress(b"x" * 3_000_000)
        case ["cookie"]:
            return as_json({}, set_cookie="session=other; Path=/")
        case ["broken"]:
            return 200, {"content-type": "application/json"}, b"{"
    return 404, {}, b""


def run(step: Coroutine[Any, Any, Any]) -> Any:
    async def once() -> Any:
        try:
            return await step
        finally:
            await connections.close()

    return asyncio.run(once())


def get(server: LocalHttp, path: str, **arguments: Any) -> Any:
    return run(http.call({"method": "get", "endpoint": server.url + path, **arguments}))


def failure(server: LocalHttp, path: str, **arguments: Any) -> TaskError:
    with pytest.raises(TaskError) as caught:
        get(server, path, **arguments)
    return caught.value


def test_the_content_of_json_is_its_value(server: LocalHttp) -> None:
    assert get(server, "/echo")["method"] == "GET"


def test_a_template_expands_properties_of_the_input(server: LocalHttp) -> None:
    values = {"petId": 7, "name": "a b/c", "flag": True, "none": None, "pet.id": "x"}
    found = get(server, "/echo/{petId}/{name}/{flag}/{none}/{absent}/{pet.id}", __input__=values)
    assert found["target"] == "/echo/7/a%20b%2Fc/true///x"


def test_a_template_refuses_an_object(server: LocalHttp) -> None:
    problem = failure(server, "/echo/{pet}", __input__={"pet": {"id": 1}})
    assert (problem.type, problem.status) == (problems.EXPRESSION, 400)


def test_a_query_is_added_to_that_of_the_endpoint(server: LocalHttp) -> None:
    found = get(server, "/echo?a=1", query={"b": [1, 2], "c": True, "d": None, "e": "x y&z"})
    assert found["target"] == "/echo?a=1&b=1&b=2&c=true&e=x%20y%26z"


def test_a_body_is_json_unless_its_type_says_otherwise(server: LocalHttp) -> None:
    def body(value: Any, kind: str | None) -> tuple[str, str]:
        headers = {"Content-Type": kind} if kind else {}
        found = get(server, "/echo", method="post", body=value, headers=headers)
        return found["headers"]["content-type"], found["body"]

    assert body({"a": "ü"}, None) == ("application/json", '{"a":"ü"}')
    assert body("plain", "text/plain") == ("text/plain", "plain")
    assert body("text", None) == ("application/json", '"text"')
    form = "application/x-www-form-urlencoded"
    assert body({"a": [1, 2], "b": "x y"}, form) == (form, "a=1&a=2&b=x+y")
    assert body(False, None) == ("application/json", "false")


def test_each_output_is_what_the_reference_says(server: LocalHttp) -> None:
    assert get(server, "/text") == "grün"
    assert get(server, "/bytes") == base64.b64encode(b"\x00\x01").decode()
    assert get(server, "/nothing") is None
    assert base64.b64decode(get(server, "/text", output="raw")) == "grün".encode("latin-1")
    found = get(
        server, "/echo?api_key=hidden", output="response", headers={"X-A": "1", "Authorization": "Bearer t"}
    )
    assert found["statusCode"] == 200
    assert (found["request"]["method"], found["request"]["uri"]) == ("GET", f"{server.url}/echo?api_key")
    assert found["request"]["headers"] == {"x-a": "1", "accept": "application/json, */*;q=0.8"}
    assert found["headers"]["content-type"] == "application/json"
    assert found["content"]["headers"]["authorization"] == "Bearer t"


@pytest.mark.parametrize("status", [301, 400, 401, 404, 500, 503])
def test_a_status_that_is_not_2xx_is_a_communication_error_of_it(server: LocalHttp, status: int) -> None:
    problem = failure(server, f"/status/{status}?token=hidden")
    assert (problem.type, problem.status) == (problems.COMMUNICATION, status)
    assert "hidden" not in str(problem.detail)


def test_redirect_allows_3xx_and_does_not_follow(server: LocalHttp) -> None:
    found = get(server, "/status/302", redirect=True, output="response")
    assert (found["statusCode"], found["headers"]["location"]) == (302, "/echo")
    assert failure(server, "/status/404", redirect=True).status == 404
    assert len(server.requests) == 2


def test_an_answer_beyond_the_limit_is_an_error(server: LocalHttp) -> None:
    for path in ("/large", "/bomb"):
        assert "at most 262144 bytes" in str(failure(server, path).detail)


def test_json_that_is_none_is_an_error(server: LocalHttp) -> None:
    assert failure(server, "/broken").type == problems.COMMUNICATION


@pytest.mark.parametrize(
    "content", [b'{"a": NaN}', b"[-Infinity]", b'"\\ud800"', b'["\\uDC00"]', b"[" * 100_000]
)
def test_what_the_log_cannot_keep_is_no_json(content: bytes) -> None:
    with pytest.raises(ValueError):
        http.json_of(content)


def test_escaped_pairs_are_characters() -> None:
    assert http.json_of(b'["\\ud83d\\ude00", 1e5]') == ["\U0001f600", 100000.0]


def test_nobody_listening_is_503() -> None:
    with local_http(answered) as gone:
        pass
    problem = failure(gone, "/echo")
    assert (problem.type, problem.status) == (problems.COMMUNICATION, 503)


def test_a_silent_server_times_out() -> None:
    async def silent() -> TaskError:
        async def wait(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _reader.read()
            writer.close()

        configure(read_settings({}, http_read_s=0.1))
        listener = await asyncio.start_server(wait, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(TaskError) as caught:
            await http.call({"method": "GET", "endpoint": f"http://127.0.0.1:{port}/"})
        listener.close()
        return caught.value

    problem = run(silent())
    assert (problem.type, problem.status) == (problems.TIMEOUT, 408)


@pytest.mark.parametrize("endpoint", ["ftp://a/b", "nonsense", "http://", "", None, {"uri": 1}])
def test_an_endpoint_that_is_none_is_a_configuration_error(endpoint: Any) -> None:
    with pytest.raises(TaskError) as caught:
        run(http.call({"method": "GET", "endpoint": endpoint}))
    assert caught.value.type == problems.CONFIGURATION


def test_headers_that_http_cannot_carry_are_not_told(server: LocalHttp) -> None:
    for value in ("s3cret\r\nX: y", "s3cret-ü€"):
        problem = failure(server, "/echo", headers={"X-Key": value})
        assert "s3cret" not in f"{problem} {problem.detail}"
        assert problem.type == problems.CONFIGURATION


def test_a_cookie_of_one_call_is_not_sent_by_the_next(server: LocalHttp) -> None:
    async def both() -> Any:
        await http.call({"method": "GET", "endpoint": f"{server.url}/cookie"})
        return await http.call({"method": "GET", "endpoint": f"{server.url}/echo"})

    assert "cookie" not in run(both())["headers"]


def test_rewrite_rules_lead_elsewhere_and_stay_unseen(server: LocalHttp) -> None:
    rule = f"https://petstore.example/v2={server.url}/echo"
    configure(read_settings({"FLOWTRAIL_HTTP_REWRITE": rule}))
    found = run(
        http.call(
            {"method": "GET", "endpoint": "https://petstore.example/v2/pet/1?x=y", "output": "response"}
        )
    )
    assert found["request"]["uri"] == "https://petstore.example/v2/pet/1?x=y"
    assert found["content"]["target"] == "/echo/pet/1?x=y"
    assert found["content"]["headers"]["host"] == server.url.removeprefix("http://")


def test_private_networks_can_be_denied(server: LocalHttp) -> None:
    configure(read_settings({"FLOWTRAIL_HTTP_PRIVATE_NETWORKS": "deny"}))
    for place in (server.url, server.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(TaskError) as caught:
            run(http.call({"method": "GET", "endpoint": f"{place}/echo"}))
        assert (caught.value.type, caught.value.status) == (problems.AUTHORIZATION, 403)
    assert server.requests == []


def test_where_a_rule_leads_is_reached_though_private_networks_are_denied(server: LocalHttp) -> None:
    configure(
        read_settings(
            {
                "FLOWTRAIL_HTTP_PRIVATE_NETWORKS": "deny",
                "FLOWTRAIL_HTTP_REWRITE": f"https://a.example={server.url}",
            }
        )
    )
    assert run(http.call({"method": "GET", "endpoint": "https://a.example/echo"}))["method"] == "GET"


def test_proxies_of_the_environment_are_not_used(server: LocalHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert get(server, "/echo")["method"] == "GET"
