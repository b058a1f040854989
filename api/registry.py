"""`/registry`: the schemas as Confluent's clients ask for them, read-only, and what an SDK needs to begin.

Ids come from fingerprints (schemas.registry), so every process of every version answers the same without a store.
A topic that carries two kinds has the newest event as its value subject; each record's name is a subject too.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form
from starlette.responses import Response

from api import bodies
from api.errors import Invalid, NotFound
from api.queues import check_name, topics_of
from api.wiring import Api, api_of
from engine.runtime import topics
from schemas.registry import TOPIC_OF_KIND, Schema, by_fingerprint, by_id, newest, released

router: Final = APIRouter(tags=["registry"])

_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_PRIMARY: Final = {
    "events": "event",
    "commands": "command",
    "definitions": "definition",
    "state": "snapshot",
    topics.CANCELLATIONS: "cancellation",
    topics.INBOX: "cloudevent",
}


def _answer(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type=_MEDIA_TYPE)


# -- subjects -------------------------------------------------------------------------------------------------------


def _kind_of(api: Api, subject: str) -> str:
    """The kind of records a subject stands for. Raises NotFound."""
    for schema in released():
        if subject == schema.name:
            return schema.kind
    prefix = api.settings.topic_prefix
    if subject.startswith(prefix) and subject.endswith("-value"):
        topic = subject.removeprefix(prefix).removesuffix("-value")
        if topic in _PRIMARY:
            return _PRIMARY[topic]
        if topic.startswith(topics.TASKS) and len(topic) > len(topics.TASKS):
            return "task"
    raise NotFound(
        f"Expected a subject of this registry but found {subject[:200]!r}",
        slug="unknown-subject",
        error_code=40401,
    )


def _versions_of(kind: str) -> list[Schema]:
    return [schema for schema in released() if schema.kind == kind]


def _subjects(api: Api) -> list[str]:
    prefix = api.settings.topic_prefix
    queues = {"default"} | api.ports.definitions.queues()
    of_topics = [*_PRIMARY, *(topics.queue_topic(queue) for queue in sorted(queues))]
    return [f"{prefix}{topic}-value" for topic in of_topics] + sorted({s.name for s in released()})


def _described(subject: str, schema: Schema) -> dict[str, Any]:
    return {
        "subject": subject,
        "version": schema.version,
        "id": schema.id,
        "schemaType": "AVRO",
        "schema": schema.text,
    }


@router.get("/registry/subjects", summary="Subjects")
async def subjects(request: Request) -> Response:
    return _answer(_subjects(api_of(request)))


@router.get("/registry/subjects/{subject}/versions", summary="Versions of a subject")
async def versions(request: Request, subject: str) -> Response:
    kind = _kind_of(api_of(request), subject)
    return _answer([schema.version for schema in _versions_of(kind)])


@router.get("/registry/subjects/{subject}/versions/{version}", summary="One version of a subject")
async def version_of(request: Request, subject: str, version: str) -> Response:
    return _answer(_described(subject, _find(api_of(request), subject, version)))


@router.get("/registry/subjects/{subject}/versions/{version}/schema", summary="The schema alone")
async def schema_of(request: Request, subject: str, version: str) -> Response:
    return Response(_find(api_of(request), subject, version).text, media_type=_MEDIA_TYPE)


def _find(api: Api, subject: str, version: str) -> Schema:
    kind = _kind_of(api, subject)
    if version in ("latest", "-1"):
        return newest(kind)
    for schema in _versions_of(kind):
        if version == str(schema.version):
            return schema
    raise NotFound(
        f"Expected a version of {subject} but found {version[:50]!r}",
        slug="unknown-version",
        error_code=40402,
    )


class LookUp(msgspec.Struct):
    schema: str
    schemaType: str = "AVRO"  # noqa: N815 - the wire's name


@router.post("/registry/subjects/{subject}", summary="Which version a schema is")
async def look_up(request: Request, subject: str) -> Response:
    kind = _kind_of(api_of(request), subject)
    found = await _same_schema(request)
    if found is None or found.kind != kind:
        raise NotFound(
            f"Expected a released schema of {subject} but this one is not",
            slug="unknown-schema",
            error_code=40403,
        )
    return _answer(_described(subject, found))


@router.post("/registry/subjects/{subject}/versions", summary="Register a schema: only what is released")
async def register(request: Request, subject: str) -> Response:
    """Clients that insist on registering get the id of a released schema; any other is refused."""
    kind = _kind_of(api_of(request), subject)
    found = await _same_schema(request)
    if found is None or found.kind != kind:
        raise Invalid(
            "Expected a released schema but this one is not; the registry is read-only",
            slug="read-only-registry",
            error_code=42205,
        )
    return _answer({"id": found.id})


async def _same_schema(request: Request) -> Schema | None:
    body = await request.body()
    asked = bodies.json_body(body, bodies.media_type(request), LookUp)
    try:
        canonical = to_parsing_canonical_form(json.loads(asked.schema))
        return by_fingerprint(bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")))
    except (ValueError, KeyError, TypeError, RecursionError, SchemaParseException, UnknownType):
        raise Invalid(
            "Expected an Avro schema but it is not", slug="invalid-schema", error_code=42201
        ) from None


# -- ids, configuration ---------------------------------------------------------------------------------------------


def _by_id(number: int) -> Schema:
    schema = by_id(number)
    if schema is None:
        raise NotFound(
            f"Expected the id of a released schema but found {number}",
            slug="unknown-schema",
            error_code=40403,
        )
    return schema


@router.get("/registry/schemas/ids/{number}", summary="A schema by its id")
async def schema_by_id(number: int) -> Response:
    return _answer({"schema": _by_id(number).text, "schemaType": "AVRO"})


@router.get("/registry/schemas/ids/{number}/schema", summary="A schema's text by its id")
async def text_by_id(number: int) -> Response:
    return Response(_by_id(number).text, media_type=_MEDIA_TYPE)


@router.get("/registry/schemas/ids/{number}/subjects", summary="Subjects that have a schema")
async def subjects_of(request: Request, number: int) -> Response:
    return _answer(_subjects_with(api_of(request), _by_id(number)))


@router.get("/registry/schemas/ids/{number}/versions", summary="Subjects and versions that are a schema")
async def versions_of(request: Request, number: int) -> Response:
    schema = _by_id(number)
    named = _subjects_with(api_of(request), schema)
    return _answer([{"subject": subject, "version": schema.version} for subject in named])


def _subjects_with(api: Api, schema: Schema) -> list[str]:
    return [subject for subject in _subjects(api) if _kind_of(api, subject) == schema.kind]


@router.get("/registry/schemas/types", summary="Schema languages")
async def types() -> Response:
    return _answer(["AVRO"])


@router.get("/registry/config", summary="Compatibility of the registry")
@router.get("/registry/config/{subject}", summary="Compatibility of a subject")
async def config(request: Request, subject: str | None = None) -> Response:
    if subject is not None:
        _kind_of(api_of(request), subject)
    return _answer({"compatibilityLevel": "BACKWARD_TRANSITIVE"})


@router.get("/registry/mode", summary="Mode of the registry")
@router.get("/registry/mode/{subject}", summary="Mode of a subject")
async def mode(request: Request, subject: str | None = None) -> Response:
    if subject is not None:
        _kind_of(api_of(request), subject)
    return _answer({"mode": "READONLY"})


# -- for SDKs -------------------------------------------------------------------------------------------------------


@router.get("/registry/bootstrap", summary="Brokers, topics and schemas: all an SDK needs to begin")
async def bootstrap(request: Request) -> Response:
    api = api_of(request)
    settings, prefix = api.settings, api.settings.topic_prefix
    kinds = {kind: newest(kind) for kind in TOPIC_OF_KIND}
    content = {
        "kafka": settings.worker_kafka or settings.kafka,
        "topic_prefix": prefix,
        "partitions": settings.partitions,
        "topics": {
            "commands": prefix + topics.COMMANDS,
            "events": prefix + topics.EVENTS,
            "definitions": prefix + topics.DEFINITIONS,
            "dead_letters": prefix + topics.DEAD_LETTERS,
            "tasks_prefix": prefix + topics.TASKS,
            "cancellations": prefix + topics.CANCELLATIONS,
            "inbox": prefix + topics.INBOX,
        },
        "schemas": {
            kind: {
                "id": schema.id,
                "fingerprint": schema.fingerprint.hex(),
                "version": schema.version,
                "schema": schema.text,
            }
            for kind, schema in kinds.items()
        },
    }
    return Response(msgspec.json.encode(content), media_type=bodies.JSON)


@router.post("/queues/{queue}", summary="Make sure that a queue's topics exist")
async def ensure_queue(request: Request, queue: str) -> Response:
    check_name(queue)
    api = api_of(request)
    await asyncio.to_thread(api.ports.queues.ensure, [queue])
    prefix = api.settings.topic_prefix
    content = {
        "queue": queue,
        "topic": prefix + topics.queue_topic(queue),
        "topics": [prefix + topic for topic in topics_of(queue)],
    }
    return Response(msgspec.json.encode(content), media_type=bodies.JSON)
