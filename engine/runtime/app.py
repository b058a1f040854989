"""The Faust application of one engine process: agent, signals, watchdog. `run` starts it and returns its exit code.

The agent only hands batches on; see ownership.py and partition.py for what happens to them. Group membership is
static (`--instance`): a process that is killed and restarted within the session comes back without a rebalance.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from typing import Any, Final

import faust
import structlog

from engine import collecting
from engine.core.batch import Definitions
from engine.runtime import kafka, metrics, topics
from engine.runtime.definitions import DefinitionLog
from engine.runtime.driver import CONSUMER_SETTINGS, Positions, RawSchema, Transport
from engine.runtime.inbox import Inbox
from engine.runtime.ownership import EXIT_DEFECT, Ownership, leave
from engine.runtime.partition import Limits, Partition, owned
from engine.runtime.watchdog import Watchdog
from engine.settings import Settings

log = structlog.get_logger("flowtrail.engine")

SWITCH_INTERVAL_S: Final = 0.0005


def limits_of(settings: Settings) -> Limits:
    return Limits(
        settings.batch_records_max,
        int(settings.ended_window_hours * 3600 * 1_000_000),
        int(settings.event_ttl_seconds * 1_000_000),
    )


def build(settings: Settings, definitions: Definitions, inbox: Inbox) -> Any:
    """The Faust app, wired. Nothing connects before it is started."""
    topic_name = settings.topic_prefix + topics.COMMANDS
    app = faust.App(
        f"{settings.topic_prefix}engine",
        broker=[f"kafka://{server}" for server in settings.kafka.split(",")],
        broker_session_timeout=settings.session_timeout_ms / 1000,
        consumer_group_instance_id=settings.instance,
        datadir=tempfile.mkdtemp(prefix="flowtrail-engine-"),
        **CONSUMER_SETTINGS,
    )
    app.flowtrail_positions = positions = Positions()
    app.transport = Transport(app.conf.broker_consumer, app)
    slots = asyncio.Semaphore(settings.commit_slots)
    limits = limits_of(settings)
    queues = topics.Queues(settings.kafka, settings.topic_prefix, settings.partitions, settings.replication)

    def make(number: int, **callbacks: Any) -> Partition:
        return owned(
            number,
            settings.kafka,
            settings.topic_prefix,
            settings.partitions,
            queues,
            definitions,
            limits,
            slots,
            **callbacks,
        )

    ownership = Ownership(app, positions, topic_name, make)
    # acks=False: Faust keeps no books of offsets at all
    commands = app.topic(topic_name, schema=RawSchema(), acks=False)

    @app.on_partitions_revoked.connect
    async def revoked(*_: Any, **__: Any) -> None:
        await ownership.revoked()

    @app.on_rebalance_complete.connect
    async def assigned(*_: Any, **__: Any) -> None:
        await ownership.assigned()

    @app.on_before_shutdown.connect
    async def closing(*_: Any, **__: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(None, inbox.close)
        await ownership.close()

    @app.agent(commands)
    async def decide(stream: Any) -> None:
        async for event in stream.noack().events():
            try:
                ownership.take(event.message.partition, event.value)
            except BaseException as defect:
                if isinstance(defect, asyncio.CancelledError | GeneratorExit):
                    raise
                leave(defect)

    @app.task
    async def watch() -> None:
        await Watchdog(app, ownership, settings.kafka, topic_name, settings.watchdog_s).run()

    return app


def run(settings: Settings, sandbox: Any = None) -> None:
    """Runs an engine until SIGTERM or SIGINT; ends the process by SystemExit."""
    # A command passes through four threads; each hand-over may wait for the interpreter lock this long (5 ms by default)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    topics.check_topics(kafka.admin_client(settings.kafka), settings.topic_prefix, settings.partitions)
    definitions = DefinitionLog(settings.kafka, settings.topic_prefix, sandbox=sandbox)
    definitions.start()
    definitions.catch_up(30)
    metrics.serve(settings.metrics_host, settings.metrics_port)
    inbox = Inbox(settings.kafka, settings.topic_prefix, settings.partitions, definitions, settings.instance)
    inbox.start()
    app = build(settings, definitions, inbox)
    log.info(
        "engine starting", instance=settings.instance, kafka=settings.kafka, prefix=settings.topic_prefix
    )
    collecting.settle()
    worker = faust.Worker(app, loglevel=logging.WARNING, redirect_stdouts=False, override_logging=False)
    try:
        worker.execute_from_commandline()
    except SystemExit as ended:
        if ended.code in (0, None):
            raise
        raise SystemExit(EXIT_DEFECT) from None  # Faust crashed, and has logged why: restart me
