"""Routes of definitions: publish, validate, list, get. Publishing itself is in publishing.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.errors import Invalid, NotFound
from api.publishing import compiled, publish, queues_of
from api.wiring import Api, api_of, caller_of
from engine.dsl.model import Definition
from engine.runtime.definitions import version_key
from projections.queries import LIMIT_MAX
from schemas import messages as m

router: Final = APIRouter(prefix="/definitions", tags=["definitions"])


class DefinitionView(msgspec.Struct):
    """One published version. `hash` is the SHA-256 of its canonical JSON."""

    definition: str
    namespace: str
    name: str
    version: str
    title: str | None
    hash: str
    queues: list[str]
    media_type: str
    published_at: datetime
    published_by: str


def _view(api: Api, record: m.PublishedDefinition, definition: Definition | None = None) -> DefinitionView:
    found = definition or api.ports.definitions.find(record.definition)
    assert found is not None, "a published definition is compiled"
    return DefinitionView(
        definition=record.definition,
        namespace=found.namespace,
        name=found.name,
        version=found.version,
        title=found.title,
        hash=record.hash.hex(),
        queues=queues_of(found),
        media_type=record.media_type,
        published_at=datetime.fromtimestamp(record.published_at / 1_000_000, UTC),
        published_by=record.published_by,
    )


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, media_type=bodies.JSON, headers=headers)


@router.post("", summary="Publish a version of a definition", status_code=201)
async def publish_definition(request: Request) -> Response:
    """YAML or JSON. The same content again answers 200; other content under the same version 409."""
    api = api_of(request)
    body = await request.body()
    kind = bodies.definition_media_type(bodies.media_type(request), body)
    definition, record, new = await publish(api, caller_of(request), body, kind)
    location = f"/definitions/{definition.namespace}/{definition.name}/{definition.version}"
    return _json(_view(api, record, definition), 201 if new else 200, {"Location": location})


@router.post("/validate", summary="Check a definition without publishing it")
async def validate_definition(request: Request) -> Response:
    """A definition that is not valid answers 422 with every problem, as publishing it would."""
    body = await request.body()
    kind = bodies.definition_media_type(bodies.media_type(request), body)
    definition = await compiled(api_of(request), body, kind)
    return _json(
        {
            "valid": True,
            "definition": definition.id,
            "hash": definition.hash.hex(),
            "queues": queues_of(definition),
            "warnings": [msgspec.to_builtins(warning) for warning in definition.warnings],
        }
    )


@router.get("", summary="List every published version")
async def list_definitions(
    request: Request,
    namespace: Annotated[str | None, Query(max_length=100)] = None,
    name: Annotated[str | None, Query(max_length=100)] = None,
    cursor: Annotated[str | None, Query(max_length=300, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
) -> Response:
    api = api_of(request)
    found = [
        record
        for record in api.ports.definitions.all()
        if (cursor is None or _order(record.definition) > _order_of_cursor(cursor))
        and namespace in (None, record.definition.partition("/")[0])
        and name in (None, record.definition.partition("/")[2].partition("@")[0])
    ]
    following = found[limit - 1].definition if len(found) > limit else None
    return _json({"definitions": [_view(api, record) for record in found[:limit]], "next": following})


@router.get("/{namespace}/{name}", summary="The versions of a definition, oldest first")
async def versions(request: Request, namespace: str, name: str) -> Response:
    api = api_of(request)
    found = [
        r for r in api.ports.definitions.all() if r.definition.partition("@")[0] == f"{namespace}/{name}"
    ]
    if not found:
        raise _unknown(f"{namespace}/{name}")
    views = [_view(api, record) for record in found]
    return _json({"namespace": namespace, "name": name, "newest": views[-1].version, "versions": views})


@router.get("/{namespace}/{name}/{version}", summary="A definition's document, or its source by Accept")
async def definition(request: Request, namespace: str, name: str, version: str) -> Response:
    """application/json answers the canonical document; application/yaml or text/plain the text its author wrote."""
    api = api_of(request)
    reference = f"{namespace}/{name}" if version == "latest" else f"{namespace}/{name}@{version}"
    found = api.ports.definitions.find(reference)
    record = None if found is None else api.ports.definitions.published(found.id)
    if record is None:
        raise _unknown(f"{namespace}/{name}@{version}")
    headers = {"ETag": f'"{record.hash.hex()}"', "Vary": "Accept"}
    if _wants_source(request.headers.get("accept", "")):
        return Response(record.source.encode(), media_type=record.media_type, headers=headers)
    return Response(record.document, media_type=bodies.JSON, headers=headers)


def _wants_source(accept: str) -> bool:
    """Whether text comes before JSON among what the caller accepts."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in (bodies.JSON, "*/*", "application/*"):
            return False
        if "yaml" in kind or kind.startswith("text/"):
            return True
    return False


def _order(definition_id: str) -> tuple[Any, ...]:
    name, _, version = definition_id.partition("@")
    return name, version_key(version)


def _order_of_cursor(cursor: str) -> tuple[Any, ...]:
    try:
        return _order(cursor)
    except ValueError:
        raise Invalid(
            f"Expected the cursor of a page that was answered before but found {cursor[:100]!r}",
            slug="invalid-parameter",
        ) from None


def _unknown(reference: str) -> NotFound:
    return NotFound(
        f"Expected a published definition but found {reference[:300]!r}", slug="unknown-definition"
    )
