"""AsyncAPI over Kafka: the only user of aiokafka outside of the engine's runtime.

A publication is over when all replicas have it. A subscription reads committed records from the moment it begins; where
the operation's binding names a group, it goes on where the group is and commits what it took when it ends. With private
networks denied, the servers the document names must be public; which addresses those then advertise is not checked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpcore2
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

from engine.tasks import problems
from engine.tasks.asyncapi_documents import Place
from engine.tasks.asyncapi_messages import Received, bytes_of, header_text, payload_of
from engine.tasks.authentication import Authorization
from engine.tasks.configured import configured
from engine.tasks.networks import Refused, public_address

PORT: Final = 9092
ASSIGNED_POLL_S: Final = 0.02
_MECHANISMS: Final = {"scramSha256": "SCRAM-SHA-256", "scramSha512": "SCRAM-SHA-512"}


async def publish(
    place: Place, authorization: Authorization | None, payload: Any, headers: Mapping[str, Any]
) -> None:
    options = await _connection(place, authorization)
    producer = AIOKafkaProducer(
        **options, acks="all", request_timeout_ms=int(configured().http_connect_s * 1000)
    )
    sent = [(name, header_text(value).encode()) for name, value in headers.items() if value is not None]
    async with _failures(place):
        try:
            await _started(producer, place)
            content = None if payload is None else bytes_of(payload, headers)
            await producer.send_and_wait(_topic(place), content, headers=sent)
        finally:
            await producer.stop()


@contextlib.asynccontextmanager
async def subscribed(
    place: Place, authorization: Authorization | None
) -> AsyncIterator[AsyncIterator[Received]]:
    """Messages from now on, or from where the group is."""
    options = await _connection(place, authorization)
    group = place.binding(place.operation, "groupId")
    consumer = AIOKafkaConsumer(
        **options,
        group_id=None if group is None else str(group),
        auto_offset_reset="latest" if group is None else "earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_bytes=configured().http_response_bytes_max,
    )
    topic = _topic(place)
    async with _failures(place):
        try:
            await _started(consumer, place)
            if topic not in await consumer.topics():
                raise problems.configuration(f"Expected topic {topic!r} at {place.host} but there is none")
            consumer.subscribe([topic])
            if group is None:
                await _stand_at_the_end(consumer, place)
            yield _messages(consumer)
            if group is not None:
                await consumer.commit()
        finally:
            await consumer.stop()


async def _started(its_client: AIOKafkaConsumer | AIOKafkaProducer, place: Place) -> None:
    try:
        async with asyncio.timeout(configured().http_connect_s):
            await its_client.start()
    except TimeoutError:
        raise problems.timeout(f"Expected Kafka at {place.host} to answer but connect timeout") from None


async def _stand_at_the_end(consumer: AIOKafkaConsumer, place: Place) -> None:
    """Without a group the client takes all partitions, as soon as it has heard of them."""
    try:
        async with asyncio.timeout(configured().http_connect_s):
            while not consumer.assignment():  # noqa: ASYNC110 - the client tells nobody
                await asyncio.sleep(ASSIGNED_POLL_S)
            await consumer.seek_to_end()
    except TimeoutError:
        raise problems.timeout(
            f"Expected Kafka at {place.host} to tell the topic's partitions but it does not"
        ) from None


async def _messages(consumer: AIOKafkaConsumer) -> AsyncIterator[Received]:
    """One at a time: what was fetched and not taken is not committed either."""
    while True:
        record = await consumer.getone()
        headers = {name: _text(value) for name, value in record.headers}
        yield Received(payload_of(record.value), headers, len(record.value or b""))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _topic(place: Place) -> str:
    return str(place.binding(place.channel, "topic") or place.address)


async def _connection(place: Place, authorization: Authorization | None) -> dict[str, Any]:
    settings = configured()
    servers = []
    for server in place.host.split(","):
        host, colon, port = server.strip().rpartition(":")
        if not colon:
            host, port = port, str(PORT)
        if not port.isdecimal():
            raise problems.configuration(f"Expected host:port of a Kafka server but found {server[:128]!r}")
        if settings.http_private_networks == "deny":
            await _check_public(host.strip("[]"), int(port))
        servers.append(f"{host}:{port}")
    options: dict[str, Any] = {
        "bootstrap_servers": servers,
        "client_id": "flowtrail",
    }
    if place.secure:
        options["ssl_context"] = ssl.create_default_context()
    options["security_protocol"] = "SSL" if place.secure else "PLAINTEXT"
    if authorization is not None:
        options["security_protocol"] = "SASL_SSL" if place.secure else "SASL_PLAINTEXT"
        options |= _sasl(place, authorization)
    return options


def _sasl(place: Place, authorization: Authorization) -> dict[str, Any]:
    match authorization.scheme:
        case "Basic":
            user, _, password = base64.b64decode(authorization.parameter).decode().partition(":")
            mechanism = next(
                (_MECHANISMS[name] for name in sorted(place.schemes & set(_MECHANISMS))), "PLAIN"
            )
            return {
                "sasl_mechanism": mechanism,
                "sasl_plain_username": user,
                "sasl_plain_password": password,
            }
        case "Digest":
            raise problems.configuration("Expected an authentication that Kafka can carry but found digest")
        case _:
            return {
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_provider": _Token(authorization.parameter),
            }


class _Token(AbstractTokenProvider):  # type: ignore[misc]
    """A token that was fetched before."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


async def _check_public(host: str, port: int) -> None:
    try:
        await public_address(host, port)
    except Refused as problem:
        raise problems.authorization(str(problem)) from None
    except httpcore2.ConnectError:
        raise problems.communication(
            f"Expected an address of {host} but there is none", problems.UNAVAILABLE
        ) from None


@contextlib.asynccontextmanager
async def _failures(place: Place) -> AsyncIterator[None]:
    try:
        yield
    except (KafkaError, ssl.SSLError) as problem:
        raise problems.communication(
            f"Expected Kafka at {place.host} to do what it is asked but {type(problem).__name__}",
            problems.UNAVAILABLE,
        ) from None
