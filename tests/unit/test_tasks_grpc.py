"""call: grpc, against a gRPC server in this process: both directions of messages, statuses, limits, where it may go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from flowtrail.errors import TaskError
from google.protobuf import message_factory  # type: ignore[import-untyped]

from engine.settings import read_settings
from engine.tasks import configured, fetching, problems
from engine.tasks.grpc_calls import call
from engine.tasks.protos import service_of
from tests.local_http import local_http

PROTO = """
syntax = "proto3";
package greeter.v1;
import "shapes/point.proto";
import "google/protobuf/timestamp.proto";
// import "absent.proto";
message Greeting {
  string name = 1;
  int32 how_many = 2;
  shapes.Point at = 3;
  google.protobuf.Timestamp when = 4;
}
message Answer { string text = 1; repeated string notes = 2; int64 big = 3; bool done = 4; }
service Greeter {
  rpc SayHello (Greeting) returns (Answer);
  rpc Repeat (Greeting) returns (stream Answer);
  rpc Collect (stream Greeting) returns (Answer);
}
"""
POINT = 'syntax = "proto3"; package shapes; message Point { double x = 1; }'


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    configured.configure(read_settings({"FLOWTRAIL_HTTP_READ_S": "0.5", "FLOWTRAIL_HTTP_CONNECT_S": "0.5"}))
    fetching.forget()
    yield
    configured.configure(None)


@pytest.fixture
def proto(tmp_path: Path) -> str:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "point.proto").write_text(POINT)
    (tmp_path / "greeter.proto").write_text(PROTO)
    return f"file://{tmp_path}/greeter.proto"


async def served(proto: str, **arguments: Any) -> Any:
    """Calls a server of this event loop that greets, repeats, collects and fails by the name it is given."""
    service = await service_of({"endpoint": proto}, "Greeter", {})
    methods = service.methods_by_name
    greeting = message_factory.GetMessageClass(methods["SayHello"].input_type)
    answer = message_factory.GetMessageClass(methods["SayHello"].output_type)

    async def say(request: Any, context: Any) -> Any:
        if request.name in grpc.StatusCode.__members__:
            await context.abort(grpc.StatusCode[request.name], "s3cret of the server")
        if request.name == "slow":
            await asyncio.sleep(30)
        if request.name == "nonsense":
            return b"\xff\xff\xff"
        if request.name == "large":
            return answer(text="x" * 300_000)
        told = dict(context.invocation_metadata()).get("authorization", "nobody")
        return answer(text=f"Hello {request.name} of {told} at {request.at.x:g}", big=2**40)

    async def repeat(request: Any, _context: Any) -> AsyncIterator[Any]:
        for number in range(request.how_many):
            yield answer(text=f"{number}")

    async def collect(requests: AsyncIterator[Any], _context: Any) -> Any:
        return answer(text=",".join([request.name async for request in requests]))

    def wired(message: Any) -> Any:
        return message if isinstance(message, bytes) else message.SerializeToString()

    wire = {"request_deserializer": greeting.FromString, "response_serializer": wired}
    server = grpc.aio.server()
    handlers = {
        "SayHello": grpc.unary_unary_rpc_method_handler(say, **wire),
        "Repeat": grpc.unary_stream_rpc_method_handler(repeat, **wire),
        "Collect": grpc.stream_unary_rpc_method_handler(collect, **wire),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        place = {
            "name": "greeter.v1.Greeter",
            "host": "127.0.0.1",
            "port": port,
            **arguments.pop("service", {}),
        }
        if rewrite := arguments.pop("rewrite", None):
            configured.configure(
                read_settings(
                    {
                        "FLOWTRAIL_HTTP_REWRITE": rewrite.format(port),
                        "FLOWTRAIL_HTTP_PRIVATE_NETWORKS": "deny",
                    }
                )
            )
        return await call({"proto": {"endpoint": proto}, "service": place, "method": "SayHello", **arguments})
    finally:
        await server.stop(0)


def refused(proto: str, **arguments: Any) -> TaskError:
    with pytest.raises(TaskError) as found:
        asyncio.run(served(proto, **arguments))
    return found.value


def test_a_method_is_called_with_arguments_and_an_authentication(proto: str) -> None:
    told = asyncio.run(
        served(
            proto,
            arguments={"name": "Ada", "at": {"x": 1.5}, "when": "2026-01-01T00:00:00Z"},
            service={"authentication": {"bearer": {"token": "abc"}}},
        )
    )
    assert told == {
        "text": "Hello Ada of Bearer abc at 1.5",
        "notes": [],
        "big": "1099511627776",
        "done": False,
    }


def test_the_package_of_a_service_may_be_left_out(proto: str) -> None:
    assert asyncio.run(served(proto, service={"name": "Greeter"}))["done"] is False


def test_streamed_answers_are_a_list(proto: str) -> None:
    told = asyncio.run(served(proto, method="Repeat", arguments={"howMany": 3}))
    assert [answer["text"] for answer in told] == ["0", "1", "2"]
    assert asyncio.run(served(proto, method="Repeat", arguments={})) == []


def test_a_method_that_streams_its_requests_gets_one(proto: str) -> None:
    assert asyncio.run(served(proto, method="Collect", arguments={"name": "a"}))["text"] == "a"


@pytest.mark.parametrize(
    ("name", "status"),
    [("NOT_FOUND", 404), ("UNAUTHENTICATED", 401), ("INTERNAL", 500), ("UNAVAILABLE", 503)],
)
def test_a_status_is_a_communication_error(proto: str, name: str, status: int) -> None:
    error = refused(proto, arguments={"name": name})
    assert (error.type, error.status) == (problems.COMMUNICATION, status)
    assert name in str(error.detail)
    assert "s3cret" not in str(error.detail)


def test_no_answer_in_time_is_a_timeout(proto: str) -> None:
    error = refused(proto, arguments={"name": "slow"})
    assert (error.type, error.status) == (problems.TIMEOUT, 408)


def test_a_large_answer_is_a_communication_error(proto: str) -> None:
    assert refused(proto, arguments={"name": "large"}).type == problems.COMMUNICATION


def test_an_answer_that_is_none_is_a_communication_error(proto: str) -> None:
    error = refused(proto, arguments={"name": "nonsense"})
    assert (error.type, error.status) == (problems.COMMUNICATION, 500)


@pytest.mark.parametrize("token", ["s3cret\nx", "s3crét"])
def test_a_token_that_no_header_can_carry_is_a_configuration_error(proto: str, token: str) -> None:
    error = refused(proto, service={"authentication": {"bearer": {"token": token}}})
    assert error.type == problems.CONFIGURATION
    assert "s3cr" not in str(error.detail)


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "Absent"},
        {"service": {"port": "many"}},
        {"service": {"name": "Absent"}},
        {"arguments": {"absent": 1}},
        {"arguments": {"how_many": "many"}},
        {"service": {"authentication": {"digest": {"username": "u", "password": "p"}}}},
    ],
)
def test_what_the_proto_does_not_have_is_a_configuration_error(proto: str, arguments: dict[str, Any]) -> None:
    error = refused(proto, **arguments)
    assert (error.type, error.status) == (problems.CONFIGURATION, 400)
    assert str(error.detail).startswith("Expected ")


def test_a_file_that_is_no_proto_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "x.proto").write_text("nonsense")
    error = refused(f"file://{tmp_path}/x.proto")
    assert error.type == problems.CONFIGURATION
    assert "x.proto:1:1" in str(error.detail)


def test_a_proto_files_name_is_no_option_of_the_compiler(tmp_path: Path) -> None:
    options = f"--plugin=protoc-gen-x={tmp_path}/run\n--x_out=.\nreal.proto\n"
    (tmp_path / "run").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "options.proto").write_text(options)
    (tmp_path / "real.proto").write_text('syntax = "proto3";')
    for name in ("@options.proto", "--version.proto"):
        (tmp_path / name).write_text('import "options.proto";\nimport "real.proto";')
        assert refused(f"file://{tmp_path}/{name}").type == problems.CONFIGURATION
    assert not (tmp_path / "ran").exists()


def test_imports_do_not_leave_the_folder_in_disguise(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "point.proto").write_text(POINT)
    for name in (f"file:{tmp_path}/point.proto", "%2e%2e/point.proto", "point\x01.proto", "x.proto/y.proto"):
        (tmp_path / "own" / "x.proto").write_text(f'syntax = "proto3";\nimport "{name}";')
        error = refused(f"file://{tmp_path}/own/x.proto")
        assert error.type == problems.CONFIGURATION
        assert str(error.detail).startswith(("Expected a file at", "Expected imports beside"))


def test_a_name_that_is_a_file_and_a_folder_is_a_configuration_error() -> None:
    content = {"/x.proto": 'syntax = "proto3";\nimport "x.proto/y.proto";', "/x.proto/y.proto": POINT}
    with local_http(lambda request: (200, {}, content[request.path].encode())) as server:
        assert refused(f"{server.url}/x.proto").type == problems.CONFIGURATION


def test_what_a_message_requires_must_be_given(tmp_path: Path) -> None:
    text = 'syntax = "proto2"; message Q { required string name = 1; } service Greeter { rpc SayHello(Q) returns(Q); }'
    (tmp_path / "old.proto").write_text(text)
    given = {"proto": {"endpoint": f"file://{tmp_path}/old.proto"}, "method": "SayHello"}
    with pytest.raises(TaskError, match="Expected name of Q") as found:
        asyncio.run(call({**given, "service": {"name": "Greeter", "host": "127.0.0.1", "port": 1}}))
    assert found.value.type == problems.CONFIGURATION


def test_imports_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "x.proto").write_text('syntax = "proto3"; import "../secret.proto";')
    (tmp_path / "y.proto").write_text('syntax = "proto3";\nimport "../secret.proto";')
    for name in ("x", "y"):
        assert refused(f"file://{tmp_path}/{name}.proto").type == problems.CONFIGURATION


def test_protos_are_read_from_http_with_their_imports(proto: str) -> None:
    content = {"/api/greeter.proto": PROTO, "/api/shapes/point.proto": POINT}
    with local_http(lambda request: (200, {}, content[request.path].encode())) as server:
        assert asyncio.run(served(f"{server.url}/api/greeter.proto"))["text"].startswith("Hello")


def test_nobody_there_is_unavailable(proto: str) -> None:
    error = refused(proto, service={"port": 1})
    assert (error.type, error.status) == (problems.COMMUNICATION, 503)


def test_private_networks_can_be_denied_and_rewrite_rules_still_lead_there(proto: str) -> None:
    service = {"host": "greeter.example", "port": 443}
    told = asyncio.run(served(proto, service=service, rewrite="https://greeter.example=http://127.0.0.1:{}"))
    assert told["text"].startswith("Hello")
    error = refused(proto, rewrite="https://greeter.example=http://127.0.0.1:1")
    assert (error.type, error.status) == (problems.AUTHORIZATION, 403)
