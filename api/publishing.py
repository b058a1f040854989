"""`POST /definitions`: from a text to a version every node knows, once.

The order is the point: topics of its queues first (a task must find its topic), then the claim on the version (two
publishers cannot both win), then the record, then this process has read it back (the next request finds it). A crash
in between leaves nothing that publishing the same text again does not finish.
"""

from __future__ import annotations

import asyncio
import time

import orjson

from api.bodies import JSON, check_json
from api.errors import Conflict
from api.keyring import Caller
from api.wiring import Api
from engine.dsl.catalogs import resolve
from engine.dsl.compile import compile_definition
from engine.dsl.model import Call, Definition
from engine.dsl.source import parse
from engine.errors import AwayError
from engine.runtime.topics import DEFINITIONS
from engine.tasks.catalog_files import reader
from schemas import messages as m
from schemas.codec import SCHEMA_HEADER, encode_definition
from schemas.registry import newest

_FINGERPRINT = newest("definition").fingerprint


def queues_of(definition: Definition) -> list[str]:
    return sorted({task.queue for task in definition.tasks.values() if isinstance(task, Call) and task.queue})


async def compiled(api: Api, body: bytes, media_type: str) -> Definition:
    """Raises DefinitionError with every problem, or Invalid. Compiling is slow enough for a thread.

    Its document is whole: what it names in the operator's catalogs has been put into it.
    """
    if media_type == JSON:
        check_json(body, "a definition in JSON")
    return await asyncio.to_thread(_compiled, body, api.settings.catalogs)


def _compiled(body: bytes, catalogs: str) -> Definition:
    return compile_definition(resolve(parse(body), reader(catalogs)))


async def publish(
    api: Api, caller: Caller, body: bytes, media_type: str
) -> tuple[Definition, m.PublishedDefinition, bool]:
    """The definition, its record, and whether it is new. Raises Conflict when the version has other content."""
    definition = await compiled(api, body, media_type)
    known = api.ports.definitions.published(definition.id)
    if known is not None:
        _same(definition, known.hash)
        return definition, known, False
    await asyncio.to_thread(api.ports.queues.ensure, queues_of(definition))
    _same(definition, await api.ports.store.claim_definition(definition.id, definition.hash))
    record = m.PublishedDefinition(
        definition=definition.id,
        hash=definition.hash,
        document=canonical(definition),
        source=body.decode("utf-8-sig"),
        media_type=media_type,
        published_at=time.time_ns() // 1000,
        published_by=caller.id,
    )
    headers = [(SCHEMA_HEADER, _FINGERPRINT)]
    await api.ports.log.send(DEFINITIONS, definition.id, encode_definition(record), headers)
    caught_up = await asyncio.to_thread(api.ports.definitions.catch_up, 10.0)
    read = api.ports.definitions.published(definition.id)
    if read is None:
        why = "it is not there" if caught_up else "Kafka does not answer"
        raise AwayError(f"Expected to read {definition.id} back but {why}; publish the same text again")
    _same(definition, read.hash)
    return definition, read, True


def _same(definition: Definition, digest: bytes) -> None:
    if definition.hash != digest:
        raise Conflict(
            f"Expected {definition.id} to be unpublished or to have the same content but it was published with other "
            f"content (hash {digest.hex()}, this one {definition.hash.hex()}); give it a new version",
            slug="version-exists",
        )


def canonical(definition: Definition) -> bytes:
    """The document's canonical JSON, of which the hash is."""
    return orjson.dumps(definition.document, option=orjson.OPT_SORT_KEYS)
