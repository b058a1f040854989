"""`call: openapi` and the documents it reads, against a server on the loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flowtrail import TaskError

from engine.settings import read_settings
from engine.tasks import documents, fetching, openapi, problems
from engine.tasks.configured import configure
from tests.local_http import Answer, LocalHttp, Request, as_json, local_http


def parameter(name: str, place: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": {"type": "string"}, **more}


THREE = {
    "openapi": "3.1.0",
    "servers": [{"url": "/{stage}/", "variables": {"stage": {"default": "v1"}}}],
    "components": {
        "parameters": {"Page": parameter("page", "query")},
        "schemas": {"Pet": {"type": "object", "properties": {"name": {}, "age": {}}}},
        "securitySchemes": {"key": {"type": "apiKey", "in": "query", "name": "api_key"}},
    },
    "paths": {
        "/pets/{id}": {
            "parameters": [parameter("id", "path", required=True), parameter("trace", "header")],
            "get": {
                "operationId": "getPet",
                "parameters": [
                    {"$ref": "#/components/parameters/Page"},
                    parameter("tags", "query"),
                    parameter("ids", "query", explode=False),
                    parameter("filter", "query", style="deepObject"),
                    parameter("session", "cookie"),
                ],
            },
        },
        "/pets": {
            "post": {
                "operationId": "addPet",
                "servers": [{"url": "other"}],
                "requestBody": {
                    "required": True,
                    "content": {
                        "text/plain": {},
                        "application/json": {"schema": {"$ref": "#/components/schemas/Pet"}},
                    },
                },
            },
            "put": {
                "operationId": "uploadPet",
                "requestBody": {"content": {"multipart/form-data": {"schema": {"properties": {"name": {}}}}}},
            },
        },
    },
}
TWO = {
    "swagger": "2.0",
    "basePath": "/v2",
    "paths": {
        "/pet/findByStatus": {
            "get": {
                "operationId": "findPetsByStatus",
                "parameters": [
                    {"name": "status", "in": "query", "collectionFormat": "multi", "required": True}
                ],
            }
        },
        "/pet": {
            "post": {"operationId": "addPet", "parameters": [{"name": "pet", "in": "body"}]},
            "put": {
                "operationId": "sendForm",
                "consumes": ["application/x-www-form-urlencoded"],
                "parameters": [{"name": "name", "in": "formData"}],
            },
        },
    },
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    configure(read_settings({}))
    fetching.forget()
    yield
    configure(None)


@pytest.fixture
def server() -> Iterator[LocalHttp]:
    with local_http(answered) as found:
        yield found


def answered(request: Request) -> Answer:
    match request.path:
        case "/three.json":
            if request.headers.get("if-none-match") == '"1"':
                return 304, {}, b""
            return as_json(THREE, etag='"1"')
        case "/two.yaml":
            return 200, {}, yaml.safe_dump(TWO).encode()
        case "/moved":
            return 302, {"location": "/three.json"}, b""
        case "/loop":
            return 302, {"location": "/loop"}, b""
        case "/nonsense":
            return 200, {}, b"- a"
        case "/absent":
            return 404, {}, b""
    return as_json(
        {
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "body": request.body.decode(),
        }
    )


def call(server: LocalHttp, operation: str, document: str = "/three.json", **parameters: Any) -> Any:
    async def once() -> Any:
        try:
            return await openapi.call(
                {
                    "document": {"endpoint": server.url + document},
                    "operationId": operation,
                    "parameters": parameters,
                }
            )
        finally:
            await fetching.close()

    return asyncio.run(once())


def failure(server: LocalHttp, operation: str, document: str = "/three.json", **parameters: Any) -> TaskError:
    with pytest.raises(TaskError) as caught:
        call(server, operation, document, **parameters)
    return caught.value


def test_parameters_go_where_the_document_says(server: LocalHttp) -> None:
    found = call(
        server,
        "getPet",
        id="a/b",
        trace="t1",
        page=2,
        tags=["x", "y"],
        ids=[1, 2],
        filter={"age": 3},
        session="s1",
        api_key="k",
    )
    target = "/v1/pets/a%2Fb?page=2&tags=x&tags=y&ids=1%2C2&filter%5Bage%5D=3&api_key=k"
    assert (found["method"], found["target"]) == ("GET", target)
    assert (found["headers"]["trace"], found["headers"]["cookie"]) == ("t1", "session=s1")


def test_the_body_is_given_whole_or_by_its_properties(server: LocalHttp) -> None:
    for given in ({"body": {"name": "milou"}}, {"name": "milou"}):
        found = call(server, "addPet", **given)
        assert found["target"] == "/other/pets"
        assert (found["headers"]["content-type"], found["body"]) == ("application/json", '{"name":"milou"}')


def test_a_multipart_body_has_a_part_for_each_field(server: LocalHttp) -> None:
    found = call(server, "uploadPet", name="milou")
    assert found["headers"]["content-type"].startswith("multipart/form-data; boundary=")
    assert 'name="name"\r\n\r\nmilou\r\n' in found["body"]


def test_version_2_is_called_at_its_base_path(server: LocalHttp) -> None:
    found = call(server, "findPetsByStatus", "/two.yaml", status=["available", "sold"])
    assert found["target"] == "/v2/pet/findByStatus?status=available&status=sold"
    assert call(server, "addPet", "/two.yaml", pet={"id": 1})["body"] == '{"id":1}'
    assert call(server, "sendForm", "/two.yaml", name="a b")["body"] == "name=a+b"


def test_what_the_operation_does_not_know_or_lacks_is_refused(server: LocalHttp) -> None:
    assert "does not know 'wrong'" in str(failure(server, "getPet", id=1, wrong=2).detail)
    assert "'id'" in str(failure(server, "getPet").detail)
    assert "body" in str(failure(server, "addPet").detail)
    assert "operation 'nope'" in str(failure(server, "nope").detail)
    assert {request.path for request in server.requests} == {"/three.json"}


def test_a_document_is_read_once_and_then_asked_for_by_its_tag(
    server: LocalHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads() -> int:
        return [request.path for request in server.requests].count("/three.json")

    call(server, "getPet", id=1)
    call(server, "getPet", id=1)
    assert reads() == 1
    monkeypatch.setattr(fetching, "FRESH_S", 0.0)
    assert call(server, "getPet", id=1)["method"] == "GET"
    assert reads() == 2
    assert server.requests[-2].headers["if-none-match"] == '"1"'


def test_a_document_may_have_moved_but_not_for_ever(server: LocalHttp) -> None:
    assert call(server, "getPet", "/moved", id=1)["method"] == "GET"
    assert "redirects" in str(failure(server, "getPet", "/loop", id=1).detail)


def test_a_document_that_is_none_or_absent_is_told(server: LocalHttp) -> None:
    assert failure(server, "getPet", "/nonsense").type == problems.CONFIGURATION
    absent = failure(server, "getPet", "/absent")
    assert (absent.type, absent.status) == (problems.COMMUNICATION, 404)


def test_a_document_of_another_version_is_refused(server: LocalHttp, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({"swagger": "1.2"}))
    with pytest.raises(TaskError, match=r"version 2\.0 or 3\.x"):
        asyncio.run(
            openapi.call({"document": {"endpoint": (tmp_path / "old.json").as_uri()}, "operationId": "x"})
        )


def test_files_are_read_below_the_operators_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.json").write_text("1")
    (tmp_path / "outside.json").write_text("2")
    configure(read_settings({"FLOWTRAIL_FILES_DIR": str(folder)}))
    for uri in ("file:///a.json", "file://a.json", (folder / "a.json").as_uri()):
        assert fetching.fetch_blocking(uri) == b"1"
    for uri in ((tmp_path / "outside.json").as_uri(), "file:///../outside.json"):
        with pytest.raises(TaskError):
            fetching.fetch_blocking(uri)
    (folder / "link.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(TaskError):
        fetching.fetch_blocking("file:///link.json")


def test_a_document_beyond_the_limit_is_refused(server: LocalHttp, tmp_path: Path) -> None:
    configure(read_settings({}, http_document_bytes_max=1024))
    (tmp_path / "large").write_bytes(b"x" * 1025)
    for uri in ((tmp_path / "large").as_uri(), f"{server.url}/three.json"):
        with pytest.raises(TaskError, match="at most 1024 bytes"):
            fetching.fetch_blocking(uri)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000 + b"]" * 100_000, b"a: &a {x: 1}\nb: {<<: *a}\n"],
    ids=["depth", "merge keys"],
)
def test_a_document_that_would_end_the_process_is_refused(content: bytes) -> None:
    with pytest.raises(TaskError, match="Expected JSON or YAML of an object") as found:
        documents.parse(content, "http://x/y")
    assert found.value.type == problems.CONFIGURATION
