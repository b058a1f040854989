"""call: asyncapi over real Kafka: messages are published, a subscription consumes those that come after it began."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from flowtrail.errors import TaskError

from engine.tasks import problems
from engine.tasks.asyncapi import call
from tests.conftest import Servers


def described(folder: Path, kafka: str, topic: str, **operation: Any) -> dict[str, Any]:
    document = {
        "asyncapi": "3.0.0",
        "servers": {"log": {"host": kafka, "protocol": "kafka"}},
        "channels": {"chat": {"address": topic}},
        "operations": {"chat": {"action": "send", "channel": {"$ref": "#/channels/chat"}, **operation}},
    }
    place = folder / f"{topic}.json"
    place.write_text(json.dumps(document))
    return {"document": {"endpoint": f"file://{place}"}, "operation": "chat"}


async def create(kafka: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 3, 1)])
    finally:
        await admin.close()


async def say(arguments: dict[str, Any], number: int) -> None:
    message = {"payload": {"n": number}, "headers": {"correlationId": f"c{number}"}}
    assert await call({**arguments, "message": message}) is None


def test_a_subscription_gets_what_is_published_after_it_began(
    servers: Servers, prefix: str, tmp_path: Path
) -> None:
    arguments = described(tmp_path, servers.kafka, f"{prefix}chat")

    async def exchanged() -> list[Any]:
        await create(servers.kafka, f"{prefix}chat")
        await say(arguments, -1)
        subscription = {
            "filter": "${ .payload.n % 2 == 1 }",
            "consume": {"amount": 2, "for": {"seconds": 60}},
        }
        consuming = asyncio.create_task(call({**arguments, "subscription": subscription}))
        number = 0
        while not consuming.done():
            await say(arguments, number)
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(consuming), 0.1)
        return await consuming

    first, second = asyncio.run(exchanged())
    assert first["payload"]["n"] % 2 == second["payload"]["n"] % 2 == 1
    assert first["headers"] == {"correlationId": f"c{first['payload']['n']}"}
    assert first["correlationId"] == f"c{first['payload']['n']}"


def test_a_group_goes_on_where_it_was(servers: Servers, prefix: str, tmp_path: Path) -> None:
    group = {"kafka": {"groupId": {"const": f"{prefix}group"}}}
    arguments = described(tmp_path, servers.kafka, f"{prefix}grouped", bindings=group)

    async def exchanged() -> list[list[Any]]:
        await create(servers.kafka, f"{prefix}grouped")
        for number in range(3):
            await say(arguments, number)
        subscription = {"consume": {"amount": 3, "for": {"seconds": 60}}}
        first = await call({**arguments, "subscription": subscription})
        await say(arguments, 3)
        subscription = {"consume": {"amount": 1, "for": {"seconds": 60}}}
        return [first, await call({**arguments, "subscription": subscription})]

    first, second = asyncio.run(exchanged())
    assert sorted(message["payload"]["n"] for message in first) == [0, 1, 2]
    assert [message["payload"]["n"] for message in second] == [3]


def test_a_topic_that_is_not_there_is_a_configuration_error(
    servers: Servers, prefix: str, tmp_path: Path
) -> None:
    arguments = described(tmp_path, servers.kafka, f"{prefix}absent")
    with pytest.raises(TaskError) as found:
        asyncio.run(call({**arguments, "subscription": {"consume": {"amount": 1}}}))
    assert found.value.type == problems.CONFIGURATION


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as found:
        asyncio.run(say(described(tmp_path, "127.0.0.1:1", "chat"), 1))
    assert (found.value.type, found.value.status) == (problems.COMMUNICATION, 503)
