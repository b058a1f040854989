"""call: mcp, against servers made with the protocol's own SDK: over HTTP and as commands."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flowtrail.errors import TaskError
from mcp.server.mcpserver import MCPServer

from engine.settings import read_settings
from engine.tasks import configured, problems
from engine.tasks.mcp_calls import call
from tests.local_asgi import local_asgi
from tests.local_http import Answer, Request, as_json, local_http

SERVER = '''
import asyncio, os, sys
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("notes", version="1.2.3")

@server.tool()
async def add(a: int, b: int) -> int:
    """Adds."""
    return a + b

@server.tool()
async def fail() -> str:
    raise ValueError("not today")

@server.tool()
async def sleep() -> str:
    await asyncio.sleep(60)
    return ""

@server.tool()
async def large() -> str:
    return "x" * 300_000

@server.tool()
async def environment(name: str) -> str:
    return os.environ.get(name, "none")

@server.tool()
async def told(context: Context) -> str:
    request = context.request_context.request
    return request.headers.get("authorization", "") + " " + request.headers.get("x-own", "")

@server.resource("note://today")
def today() -> str:
    return "sunny"

@server.resource("note://{day}/mood")
def mood(day: str) -> str:
    return day

@server.prompt()
def greet(name: str) -> str:
    return f"Greet {name}"
'''


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    configured.configure(read_settings({"FLOWTRAIL_MCP_STDIO": "1"}))
    yield
    configured.configure(None)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    names: dict[str, Any] = {}
    exec(SERVER, names)
    made: MCPServer[Any] = names["server"]
    with local_asgi(made.streamable_http_app()) as url:
        yield f"{url}/mcp"


@pytest.fixture(params=["http", "stdio"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "http":
        return {"http": {"endpoint": request.getfixturevalue("server")}}
    return stdio(tmp_path)


def stdio(folder: Path) -> dict[str, Any]:
    (folder / "server.py").write_text(SERVER + "\nserver.run()\n")
    return {"stdio": {"command": sys.executable, "arguments": [str(folder / "server.py")]}}


def asked(transport: dict[str, Any], method: str, parameters: Any = None, **more: Any) -> Any:
    arguments = {"method": method, "transport": transport, **more}
    return asyncio.run(call(arguments if parameters is None else {**arguments, "parameters": parameters}))


def refused(
    transport: dict[str, Any], method: str = "tools/list", parameters: Any = None, **more: Any
) -> TaskError:
    with pytest.raises(TaskError) as found:
        asked(transport, method, parameters, **more)
    assert str(found.value.detail).startswith("Expected ")
    return found.value


def test_every_method_gives_the_servers_result(transport: dict[str, Any]) -> None:
    async def all_of_them() -> list[Any]:
        methods: list[tuple[str, Any]] = [
            ("tools/list", None),
            ("tools/call", {"name": "add", "arguments": {"a": 2, "b": 3}}),
            ("prompts/list", {}),
            ("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}}),
            ("resources/list", None),
            ("resources/read", {"uri": "note://today"}),
            ("resources/templates/list", None),
        ]
        made = []
        for method, parameters in methods:
            made.append(await call({"method": method, "parameters": parameters, "transport": transport}))
        return made

    tools, added, prompts, prompt, resources, read, templates = asyncio.run(all_of_them())
    assert {"add", "fail"} <= {tool["name"] for tool in tools["tools"]}
    assert added["content"] == [{"type": "text", "text": "5"}]
    assert added["structuredContent"] == {"result": 5}
    assert [each["name"] for each in prompts["prompts"]] == ["greet"]
    assert prompt["messages"][0]["content"]["text"] == "Greet Ada"
    assert [str(each["uri"]) for each in resources["resources"]] == ["note://today"]
    assert read["contents"][0]["text"] == "sunny"
    assert templates["resourceTemplates"][0]["uriTemplate"] == "note://{day}/mood"


def test_a_tool_that_fails_tells_so_in_its_result(server: str) -> None:
    told = asked({"http": {"endpoint": server}}, "tools/call", {"name": "fail", "arguments": {}})
    assert told["isError"] is True


def test_headers_and_authentication_are_sent(server: str) -> None:
    endpoint = {"uri": server.replace("/mcp", "/{path}"), "authentication": {"bearer": {"token": "t"}}}
    transport = {"http": {"endpoint": endpoint, "headers": {"x-own": "mine"}}}
    told = asked(transport, "tools/call", {"name": "told", "arguments": {}}, __input__={"path": "mcp"})
    assert told["content"][0]["text"] == "Bearer t mine"


def test_an_older_version_of_the_protocol_is_spoken_on_demand(server: str) -> None:
    told = asked({"http": {"endpoint": server}}, "tools/list", protocolVersion="2025-03-26")
    assert told["tools"]


def test_the_version_and_the_client_are_told() -> None:
    def answer(request: Request) -> Answer:
        body = request.json() if request.body else {}
        if body.get("method") == "initialize":
            about = {"serverInfo": {"name": "s", "version": "1"}, "capabilities": {}}
            version = body["params"]["protocolVersion"]
            return as_json(
                {"jsonrpc": "2.0", "id": body["id"], "result": {**about, "protocolVersion": version}}
            )
        if "id" not in body:
            return 202, {}, b""
        return as_json({"jsonrpc": "2.0", "id": body["id"], "result": {"tools": [], "nextCursor": "2"}})

    with local_http(answer) as http:
        client = {"name": "synapse", "version": "9"}
        told = asked({"http": {"endpoint": http.url}}, "tools/list", client=client)
        first = next(request for request in http.requests if request.body).json()
    assert told == {"tools": [], "nextCursor": "2"}
    assert first["params"]["protocolVersion"] == "2025-06-18"
    assert first["params"]["clientInfo"] == client


def test_the_servers_error_is_a_runtime_error(transport: dict[str, Any]) -> None:
    error = refused(transport, "prompts/get", {"name": "absent"})
    assert (error.type, error.status) == (problems.RUNTIME, 500)


def test_a_command_has_the_environment_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWTRAIL_SECRET_A", "hidden")
    transport = stdio(tmp_path)
    transport["stdio"]["environment"] = {"TOKEN": "t"}
    for name, expected in (("TOKEN", "t"), ("FLOWTRAIL_SECRET_A", "none")):
        told = asked(transport, "tools/call", {"name": "environment", "arguments": {"name": name}})
        assert told["content"][0]["text"] == expected


def test_time_is_limited(server: str) -> None:
    transport = {"http": {"endpoint": server}}
    sleep = {"name": "sleep", "arguments": {}}
    error = refused(transport, "tools/call", sleep, timeout={"milliseconds": 300})
    assert (error.type, error.status) == (problems.TIMEOUT, 408)


def test_a_large_answer_is_an_error(server: str) -> None:
    large = {"name": "large", "arguments": {}}
    assert refused({"http": {"endpoint": server}}, "tools/call", large).type == problems.RUNTIME


def test_commands_are_for_the_operator_to_enable(tmp_path: Path) -> None:
    configured.configure(read_settings({}))
    error = refused(stdio(tmp_path))
    assert error.type == problems.CONFIGURATION
    assert "FLOWTRAIL_MCP_STDIO" in str(error.detail)


@pytest.mark.parametrize(
    "transport",
    [
        {"http": {"endpoint": "http://127.0.0.1:1"}},
        {"stdio": {"command": "/nonexistent"}},
        {"stdio": {"command": "echo", "arguments": ["no JSON"]}},
    ],
)
def test_a_server_that_is_none_is_a_runtime_error(transport: dict[str, Any]) -> None:
    assert refused(transport).type == problems.RUNTIME


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_speaks_only_http_is_a_runtime_error(status: int) -> None:
    with local_http(lambda _: (status, {}, b"no")) as http:
        assert refused({"http": {"endpoint": http.url}}).type == problems.RUNTIME


def test_a_command_has_the_operators_time_whatever_the_call_says(tmp_path: Path) -> None:
    configured.configure(read_settings({"FLOWTRAIL_MCP_STDIO": "1", "FLOWTRAIL_RUN_WALL_S": "1"}))
    sleep = {"stdio": {"command": "sleep", "arguments": [100]}}
    error = refused(sleep, timeout={"hours": 1})
    assert (error.type, error.status) == (problems.TIMEOUT, 408)


def test_what_a_command_may_write_is_limited(tmp_path: Path) -> None:
    large = {"name": "large", "arguments": {}}
    assert refused(stdio(tmp_path), "tools/call", large).type == problems.RUNTIME
    little = {"FLOWTRAIL_MCP_STDIO": "1", "FLOWTRAIL_RUN_OUTPUT_BYTES_MAX": "4096"}
    configured.configure(read_settings(little))  # each line is read as a message: many take long
    assert refused({"stdio": {"command": "yes", "arguments": ["{}"]}}).type == problems.RUNTIME


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_gone(number: int) -> None:
    """A killed process dies when the kernel comes to it, which is after the kill was asked for."""
    end = time.monotonic() + 20
    while is_alive(number):
        assert time.monotonic() < end, f"process {number} lives"
        time.sleep(0.01)


def test_what_a_command_leaves_behind_is_killed_with_it(tmp_path: Path) -> None:
    place = tmp_path / "child"
    command = f"sleep 100 >/dev/null & echo $! > {place}"
    refused({"stdio": {"command": "sh", "arguments": ["-c", command]}})
    until_gone(int(place.read_text()))


def test_a_cancelled_call_kills_its_command(tmp_path: Path) -> None:
    place = tmp_path / "child"
    command = f"trap '' TERM; echo $$ > {place}.part; mv {place}.part {place}; while :; do sleep 100; done"
    transport = {"stdio": {"command": "sh", "arguments": ["-c", command]}}

    async def begun_and_cancelled() -> None:
        task = asyncio.create_task(call({"method": "tools/list", "transport": transport}))
        while not place.exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(begun_and_cancelled())
    until_gone(int(place.read_text()))


def test_private_networks_can_be_denied(server: str) -> None:
    configured.configure(read_settings({"FLOWTRAIL_HTTP_PRIVATE_NETWORKS": "deny"}))
    assert refused({"http": {"endpoint": server}}).type == problems.AUTHORIZATION


def test_parameters_are_an_object(server: str) -> None:
    assert refused({"http": {"endpoint": server}}, "tools/list", "text").type == problems.CONFIGURATION
