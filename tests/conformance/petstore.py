"""A stand-in for the public HTTP services that conformance features call, on loopback.

It speaks the parts of the pet store's interface that a definition may name (pets, store, users, its own Swagger document)
and a few plain echoes; whatever it does not know is a 404. It keeps nothing between requests, so scenarios cannot
influence each other. Rewrite rules of the executor lead here (HOSTS).
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

HOSTS: Final = ("petstore.swagger.io", "petstore3.swagger.io", "httpbin.org")
STATUSES: Final = ("available", "pending", "sold")
PETS_MAX: Final = 12


def pet(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "category": {"id": 1, "name": "Dogs"},
        "name": f"Pet {number}",
        "photoUrls": [f"https://petstore.swagger.io/photos/{number}.png"],
        "tags": [{"id": 1, "name": "friendly"}],
        "status": STATUSES[(number - 1) % len(STATUSES)],
    }


PETS: Final = [pet(number) for number in range(1, PETS_MAX + 1)]
NOT_FOUND: Final = {"code": 1, "type": "error", "message": "Not found"}


def _parameter(name: str, place: str, kind: str, required: bool = True) -> dict[str, Any]:
    if place == "body":
        return {"name": name, "in": place, "required": required, "schema": {"type": kind}}
    if kind == "array":
        items = {"type": "string"}
        return {"name": name, "in": place, "required": required, "type": kind, "items": items}
    return {"name": name, "in": place, "required": required, "type": kind}


def _operation(name: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": {"description": "done"}, "404": {"description": "there is none"}}
    media = ["application/json"]
    found = {"operationId": name, "produces": media, "parameters": list(parameters), "responses": answers}
    return found | ({"consumes": media} if any(p["in"] == "body" for p in parameters) else {})


def swagger() -> dict[str, Any]:
    """The service's own document, Swagger 2.0."""
    return {
        "swagger": "2.0",
        "info": {"title": "Pet store", "version": "1.0.0"},
        "host": "petstore.swagger.io",
        "basePath": "/v2",
        "schemes": ["https"],
        "paths": {
            "/pet": {
                "post": _operation("addPet", _parameter("body", "body", "object")),
                "put": _operation("updatePet", _parameter("body", "body", "object")),
            },
            "/pet/findByStatus": {
                "get": _operation("findPetsByStatus", _parameter("status", "query", "array"))
            },
            "/pet/findByTags": {"get": _operation("findPetsByTags", _parameter("tags", "query", "array"))},
            "/pet/{petId}": {
                "get": _operation("getPetById", _parameter("petId", "path", "integer")),
                "delete": _operation("deletePet", _parameter("petId", "path", "integer")),
            },
            "/store/inventory": {"get": _operation("getInventory")},
            "/store/order": {"post": _operation("placeOrder", _parameter("body", "body", "object"))},
            "/store/order/{orderId}": {
                "get": _operation("getOrderById", _parameter("orderId", "path", "integer"))
            },
            "/user/{username}": {
                "get": _operation("getUserByName", _parameter("username", "path", "string"))
            },
        },
    }


def _openapi() -> dict[str, Any]:
    """The same in OpenAPI 3, as the newer host has it."""
    paths: dict[str, dict[str, Any]] = {}
    for path, methods in swagger()["paths"].items():
        paths[path] = {}
        for method, operation in methods.items():
            plain = [p for p in operation["parameters"] if p["in"] != "body"]
            given = [
                {"name": p["name"], "in": p["in"], "required": p["required"], "schema": {"type": p["type"]}}
                for p in plain
            ]
            made = {"operationId": operation["operationId"], "parameters": given}
            if len(plain) != len(operation["parameters"]):
                made["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
            paths[path][method] = made | {"responses": operation["responses"]}
    servers = [{"url": "https://petstore3.swagger.io/api/v3"}]
    info = {"title": "Pet store", "version": "1.0.0"}
    return {"openapi": "3.0.4", "info": info, "servers": servers, "paths": paths}


class Request:
    """What an answer may depend on."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        split = urlsplit(target)
        self.method = method
        self.path = re.sub(r"^/(v2|api/v3)", "", split.path)
        self.query = parse_qs(split.query)
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def listed(self, name: str) -> list[str]:
        return [part for value in self.query.get(name, []) for part in value.split(",")]


def answer(request: Request) -> tuple[int, Any]:
    """(status, JSON) of the pet store."""
    path, method = request.path, request.method
    if path == "/swagger.json":
        return 200, swagger()
    if path in ("/openapi.json", "/openapi.yaml"):
        return 200, _openapi()
    if path == "/pet/findByStatus":
        wanted = request.listed("status")
        return 200, [found for found in PETS if found["status"] in wanted]
    if path == "/pet/findByTags":
        return 200, PETS if "friendly" in request.listed("tags") else []
    if path in ("/pet", "/store/order", "/user") and method in ("POST", "PUT"):
        return (200, request.json) if isinstance(request.json, dict) else (400, NOT_FOUND)
    if path == "/store/inventory":
        return 200, {status: sum(p["status"] == status for p in PETS) for status in STATUSES}
    if found := re.fullmatch(r"/pet/(\d+)", path):
        return _one_pet(method, int(found[1]))
    if found := re.fullmatch(r"/store/order/(\d+)", path):
        return 200, {"id": int(found[1]), "petId": 1, "quantity": 1, "status": "placed", "complete": False}
    if found := re.fullmatch(r"/user/(\w+)", path):
        return 200, {"id": 1, "username": found[1], "email": f"{found[1]}@example.com"}
    return _echo(request)


def _one_pet(method: str, number: int) -> tuple[int, Any]:
    if not 1 <= number <= PETS_MAX:
        return 404, {"code": 1, "type": "error", "message": "Pet not found"}
    if method == "DELETE":
        return 200, {"code": 200, "type": "unknown", "message": str(number)}
    return 200, pet(number)


def _echo(request: Request) -> tuple[int, Any]:
    """Answers that say what was sent, or that check a credential."""
    sent = request.headers.get("authorization", "")
    if found := re.fullmatch(r"/status/(\d{3})", request.path):
        return int(found[1]), {"status": int(found[1])}
    if found := re.fullmatch(r"/basic-auth/([^/]+)/([^/]+)", request.path):
        wanted = base64.b64encode(f"{found[1]}:{found[2]}".encode()).decode()
        allowed = sent == f"Basic {wanted}"
        return (200, {"authenticated": True, "user": found[1]}) if allowed else (401, NOT_FOUND)
    if request.path == "/bearer":
        scheme, _, token = sent.partition(" ")
        allowed = scheme == "Bearer" and bool(token)
        return (200, {"authenticated": True, "token": token}) if allowed else (401, NOT_FOUND)
    if request.path in ("/get", "/post", "/put", "/patch", "/delete", "/anything"):
        args = {name: values[0] if len(values) == 1 else values for name, values in request.query.items()}
        return 200, {"args": args, "headers": request.headers, "json": request.json, "method": request.method}
    return 404, NOT_FOUND


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        assert self.command is not None
        status, content = answer(Request(self.command, self.path, headers, self.rfile.read(length)))
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = respond

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@contextmanager
def standing_in() -> Iterator[str]:
    """The stand-in runs; gives the rewrite rules that lead to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield ",".join(f"{scheme}://{host}={address}" for host in HOSTS for scheme in ("https", "http"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
