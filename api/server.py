"""The API's process: real ports, uvicorn, and an end that leaves nobody hanging.

Neither Kafka nor Postgres needs to be up: the process starts, /readyz says what is missing, and requests get a 503
until it is back.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.commandlog import KafkaLog
from api.forgetting import forget_old_claims
from api.keys import read_pepper
from api.past import KafkaPast
from api.ports import Ports
from api.queues import KafkaQueues
from api.store import PostgresStore
from api.wiring import Api
from engine.errors import InputError
from engine.runtime.definitions import DefinitionLog
from engine.settings import Settings
from engine.tasks import catalog_files
from projections.readers import Reader

log = structlog.get_logger("flowtrail.api")

_CONNECTIONS_MAX = 16
_POSTGRES_TIMEOUT_S = 3.0
_STOP_WITHIN_S = 10
_CLOSE_WITHIN_S = 1.0
_RECONNECT_S = 5.0


def build(settings: Settings) -> FastAPI:
    """The application over real servers; its lifespan opens and closes them."""
    catalog_files.reader(
        settings.catalogs
    )  # a folder that is not there is refused now, not when somebody publishes
    reader = Reader(settings.postgres, connections_max=_CONNECTIONS_MAX, timeout_s=_POSTGRES_TIMEOUT_S)
    # the pool backs off longer and longer; given up early, the next request begins anew and recovery takes seconds
    reader.pool.reconnect_timeout = _RECONNECT_S
    commands = KafkaLog(settings.kafka, settings.topic_prefix)
    definitions = DefinitionLog(settings.kafka, settings.topic_prefix)
    ports = Ports(
        reads=reader,
        store=PostgresStore(reader.pool),
        log=commands,
        definitions=definitions,
        queues=KafkaQueues(settings.kafka, settings.topic_prefix, settings.partitions, settings.replication),
        past=KafkaPast(settings.kafka, settings.topic_prefix, settings.postgres),
        pepper=read_pepper(settings.api_pepper, settings.data),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await reader.open()
        commands.start()
        definitions.start()
        forgetting = asyncio.create_task(forget_old_claims(ports.store))
        try:
            yield
        finally:
            forgetting.cancel()
            await asyncio.to_thread(commands.close)
            await _close_within(definitions.close, _CLOSE_WITHIN_S)
            await reader.close()

    return create_app(settings, ports, lifespan)


async def _close_within(close: Callable[[], None], seconds: float) -> None:
    """A reader of a Kafka that is away cannot be interrupted; its thread dies with the process."""
    closing = threading.Thread(target=close, name="closing", daemon=True)
    closing.start()
    await asyncio.to_thread(closing.join, seconds)


class _Server(uvicorn.Server):
    """Releases waiting requests when it is told to stop, and then ends with 0: uvicorn's own would die of the signal."""

    def __init__(self, config: uvicorn.Config, api: Api) -> None:
        super().__init__(config)
        self._api = api

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(sig).name)
        self._api.waiters.release()
        self.force_exit = self.should_exit  # the second signal means: at once
        self.should_exit = True


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises InputError when the address cannot be bound."""
    app = build(settings)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    server = _Server(config, app.state.api)
    try:
        socket = config.bind_socket()
    except SystemExit:
        raise InputError(
            f"Expected to bind {settings.api_host}:{settings.api_port} but it is taken or not ours; "
            "set FLOWTRAIL_API_PORT"
        ) from None
    host, port = socket.getsockname()[:2]
    log.info("serving", url=f"http://{host}:{port}")
    server.run(sockets=[socket])
