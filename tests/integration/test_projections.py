"""The read models on real Kafka and Postgres: exactly once, byte for byte, whatever is killed or away."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256

import msgspec
import psycopg
import pytest
from prometheus_client import REGISTRY

from engine.errors import AwayError, FlowtrailError
from engine.runtime import kafka
from projections import queries
from projections.batch import fold_batch
from projections.logged import Record
from projections.migrations import migrate
from projections.projector import Projector
from projections.readers import Reader, SyncReader
from projections.store import Store
from schemas import messages as m
from schemas.codec import encode_rejection
from schemas.registry import newest
from tests.conftest import Servers
from tests.integration.projection_log import (
    PARTITIONS,
    EventLog,
    history_of,
    projecting,
    rows,
    until,
)
from tests.unit.projection_events import ALICE, START, Trail

NASTY = (
    b'{"b":1,"a":2,"b":3}',
    b"[1.0,1.00,1e400,-0,-0.0,12345678901234567890123,0.1000]",
    b'"\\u0000 \\ud800 \\uDFFF \\/ \\" \\\\ \\n \\t \\b"',
    '"ünï €😀\u2028\x7f"'.encode(),
    b' { "a" :\t[ ] ,\r\n "\\\\N" : "\\\\." }\n',
    b'"\\\\N"',
    b'"' + b"\\\\" * 50_000 + b'"',
    b"null",
)


@pytest.fixture
def log(servers: Servers, prefix: str) -> EventLog:
    return EventLog(servers.kafka, prefix)


def flows(database: str) -> list[tuple[str, str, int]]:
    return rows(database, "SELECT flow_id, status, sequence FROM flowtrail.flows ORDER BY 1")


def retries() -> float:
    return REGISTRY.get_sample_value("flowtrail_projection_retries_total") or 0.0


def orders(count: int, start: int = 0) -> list[Trail]:
    return [Trail(f"f-{i:04d}", i % PARTITIONS).order() for i in range(start, start + count)]


def test_a_flow_in_the_log_becomes_rows_that_read_back_as_they_were(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    trail = Trail().order()
    log.commit(trail)
    refused = m.Rejection(
        "f-1", START, ALICE, m.Cause("c-r", 3, 999), "CancelFlow", "flow-ended", "Expected a\0b"
    )
    log.commit_records([Record(3, 0, b"f-1", encode_rejection(refused), newest("rejection").fingerprint)])
    with projecting(servers.kafka, migrated, prefix), SyncReader(migrated) as reader:
        until(lambda: reader.ask(queries.rejections()).items)
        flow = reader.ask(queries.get_flow("f-1"))
        assert flow is not None
        assert (flow.status, flow.sequence, flow.head) == ("completed", 6, trail.head.hex())
        assert (flow.namespace, flow.name, flow.version) == ("acme", "orders", "1.2.0")
        assert bytes(flow.input or b"") == b'{"n":1}'
        assert bytes(flow.transformed or b"") == b'{"n": 1, "x": []}'
        assert b'"output":{"paid":true}' in msgspec.json.encode(flow)
        prepare, route, charge = reader.ask(queries.tasks_of("f-1"))
        assert (prepare.name, bytes(prepare.input or b"")) == ("prepare", b'{"n": 1, "x": []}')
        assert (route.branch, bytes(route.input or b""), bytes(route.output or b"")) == (
            "gold",
            b'{"n":2}',
            b'{"n":2}',
        )
        assert (charge.status, charge.duration_ms, charge.ended_by) == (
            "completed",
            1.0,
            m.Actor("worker", "w-1"),
        )
        history = reader.ask(queries.history_of("f-1", after_sequence=1, limit=2))
        assert [(e.sequence, e.event_id, e.ce_type) for e in history] == [
            (2, "f-1/2", "io.serverlessworkflow.task.completed.v1"),
            (3, "f-1/3", "io.serverlessworkflow.task.completed.v1"),
        ]
        assert history[0].cause == m.Cause("c-f-1-2", 3, 102)
        assert [(p, s) for p, _, s in reader.ask(queries.positions_of_flow("f-1"))] == [
            (3, s) for s in range(1, 7)
        ]
        (rejection,) = reader.ask(queries.rejections(flow_id="f-1", code="flow-ended")).items
        assert (rejection.reason, rejection.command) == ("Expected a\N{SYMBOL FOR NULL}b", "CancelFlow")
        assert reader.ask(queries.ended_among(["f-1", "f-2"])) == {"f-1": "completed"}
        standing = {p.partition: p for p in reader.ask(queries.positions(log.topic))}
        assert (standing[3].command_offset, standing[0].next_offset) == (999, 0)


def test_payloads_come_out_as_the_bytes_that_went_in(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    for number, payload in enumerate(NASTY):
        trail = Trail(f"f-{number}")
        trail.add(m.FlowStarted(payload))
        trail.add(m.TaskScheduled("q", "f", arguments=payload), "/do/0/t", 1, 1)
        trail.add(m.TaskCompleted(result=payload, context=payload), "/do/0/t", 1, 1)
        trail.add(m.FlowCompleted(payload))
        log.commit(trail)
    with projecting(servers.kafka, migrated, prefix), SyncReader(migrated) as reader:
        until(
            lambda: len(reader.ask(queries.ended_among([f"f-{i}" for i in range(len(NASTY))]))) == len(NASTY)
        )
        for number, payload in enumerate(NASTY):
            flow = reader.ask(queries.get_flow(f"f-{number}"))
            (task,) = reader.ask(queries.tasks_of(f"f-{number}"))
            assert flow is not None
            found = [
                flow.input,
                flow.context,
                flow.output,
                task.arguments,
                task.result,
                task.input,
                task.output,
            ]
            assert [bytes(raw) for raw in found if raw is not None] == [payload] * 7
            first = reader.ask(queries.history_of(f"f-{number}"))[0]
            assert bytes(first.body) == b'{"input":' + payload + b',"engine_version":""}'
        assert reader.ask(queries.count_unreadable()) == 0


def test_aborted_records_stay_invisible_and_the_position_comes_to_the_end_over_markers(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    for trail in orders(8):
        log.abort(Trail(f"ghost-{trail.flow_id}", trail.partition).order())
        log.commit(trail)
    log.abort(Trail("ghost", 0).order())
    with projecting(servers.kafka, migrated, prefix):
        until(lambda: len(flows(migrated)) == 8)
        consumer = kafka.log_consumer(servers.kafka)
        ends = {
            p: consumer.get_watermark_offsets(kafka.TopicPartition(log.topic, p), timeout=10)[1]
            for p in range(PARTITIONS)
        }
        consumer.close()
        query = "SELECT partition, next_offset FROM flowtrail.projection_position"
        until(lambda: dict(rows(migrated, query)) == ends)
        until(
            lambda: REGISTRY.get_sample_value("flowtrail_projection_position", {"partition": "0"}) == ends[0]
        )
        assert REGISTRY.get_sample_value("flowtrail_projection_lag_events", {"partition": "0"}) == 0
    assert history_of(migrated) == [(f"f-{i:04d}", [1, 2, 3, 4, 5, 6]) for i in range(8)]


def test_a_batch_written_again_changes_nothing(migrated: str) -> None:
    """A kill between the commit and the next batch: the same records come again from the old position."""
    records = Trail().order().records()
    store, late = Store(migrated, "t.events"), Store(migrated, "t.events")
    for each in (store, late):
        each.prepare()
        assert each.positions([3]) == {3: 0}
    folded = fold_batch(records, {3: 0})
    assert store.apply(folded)
    assert not store.apply(folded)
    assert not late.apply(fold_batch(records[:2], {3: 0}))
    assert late.positions([3]) == {3: 18}
    assert history_of(migrated) == [("f-1", [1, 2, 3, 4, 5, 6])]
    store.close()
    late.close()


def test_a_flow_split_over_batches_ends_as_the_same_row_as_in_one(migrated: str) -> None:
    whole, split = Trail("a", 3).order().records(), Trail("b", 4).order().records()
    store = Store(migrated, "t.events")
    store.prepare()
    positions = store.positions([3, 4])
    for batch in (whole, *([record] for record in split)):
        folded = fold_batch(batch, positions)
        assert store.apply(folded)
        positions |= {partition: move.next_offset for partition, move in folded.moves.items()}
    store.close()
    columns = "status, sequence, started_at, updated_at, ended_at, input, transformed, context, output, first_offset"
    one, other = rows(migrated, f"SELECT {columns}, last_offset FROM flowtrail.flows ORDER BY flow_id")
    assert one == other
    columns = "task, status, scheduled_at, ended_at, actor_id, result, output, branch, queue, function, kind, sequence"
    found = rows(migrated, f"SELECT {columns} FROM flowtrail.tasks ORDER BY flow_id, task")
    assert found[:3] == found[3:]


def test_two_projectors_at_once_write_everything_once(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    with projecting(servers.kafka, migrated, prefix), projecting(servers.kafka, migrated, prefix):
        for start in range(0, 200, 20):
            log.commit(*orders(20, start))
        until(lambda: len(history_of(migrated)) == 200)
        until(lambda: all(status == "completed" for _, status, _ in flows(migrated)))
    assert history_of(migrated) == [(f"f-{i:04d}", [1, 2, 3, 4, 5, 6]) for i in range(200)]
    assert rows(migrated, "SELECT count(*) FROM flowtrail.tasks") == [(600,)]


def test_members_of_a_group_share_the_partitions_and_take_over_from_each_other(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    with projecting(servers.kafka, migrated, prefix, instance="p0") as first:
        log.commit(*orders(8))
        until(lambda: len(flows(migrated)) == 8)
        with projecting(servers.kafka, migrated, prefix, instance="p1") as second:
            until(lambda: len(first.partitions()) == len(second.partitions()) == PARTITIONS // 2)
            assert first.partitions().isdisjoint(second.partitions())
            log.commit(*orders(8, 8))
            until(lambda: len(flows(migrated)) == 16)
    assert history_of(migrated) == [(f"f-{i:04d}", [1, 2, 3, 4, 5, 6]) for i in range(16)]


def test_when_postgres_goes_away_in_the_middle_nothing_is_lost_or_doubled(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(migrated)["dbname"]

    def outage() -> float:
        """Refuses connections and ends those that are open; returns the retries counted before."""
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        return retries()

    with (
        psycopg.connect(servers.postgres, autocommit=True) as admin,
        projecting(servers.kafka, migrated, prefix),
    ):
        for start in range(0, 100, 10):
            log.commit(*orders(10, start))
            if start in (20, 60):
                before = outage()
            if start in (40, 80):
                until(lambda before=before: retries() > before)  # type: ignore[misc]
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
        until(lambda: len(history_of(migrated)) == 100)
    assert history_of(migrated) == [(f"f-{i:04d}", [1, 2, 3, 4, 5, 6]) for i in range(100)]


def test_a_projector_that_is_killed_again_and_again_writes_everything_once(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    environment = os.environ | {
        "FLOWTRAIL_KAFKA": servers.kafka,
        "FLOWTRAIL_POSTGRES": migrated,
        "FLOWTRAIL_TOPIC_PREFIX": prefix,
    }
    command = [sys.executable, "-c", "from cli.projections import app; app()", "run"]
    dice = random.Random(7)
    moved = "SELECT coalesce(sum(next_offset), 0) FROM flowtrail.projection_position"
    count = 0
    for stop in (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, env=environment)
        before = rows(migrated, moved)
        for _ in range(dice.randint(2, 6)):
            log.commit(*orders(10, count))
            count += 10
        until(lambda before=before: rows(migrated, moved) > before)  # type: ignore[misc]
        process.send_signal(stop)
        assert process.wait(30) == (0 if stop is signal.SIGTERM else -signal.SIGKILL)
    with projecting(servers.kafka, migrated, prefix):
        until(lambda: len(history_of(migrated)) == count)
        until(lambda: {status for _, status, _ in flows(migrated)} == {"completed"})
    assert history_of(migrated) == [(f"f-{i:04d}", [1, 2, 3, 4, 5, 6]) for i in range(count)]


def test_unreadable_records_are_kept_with_their_bytes_and_stop_nobody(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    long = Trail("".join(random.Random(1).choices("abcdefghij", k=10_000)), 2)
    long.add(m.FlowStarted(b"1"))
    log.commit_records(
        [
            *orders(1)[0].records(),
            Record(0, 0, b"k", b"garbage\0\xff", None),
            Record(0, 0, None, None, None),
            *long.records(),
            *Trail("after", 2).order().records(),
        ]
    )
    with projecting(servers.kafka, migrated, prefix), SyncReader(migrated) as reader:
        until(lambda: reader.ask(queries.count_unreadable()) == 3)
        until(lambda: len(flows(migrated)) == 2)
        kept = {u.code: u for u in reader.ask(queries.unreadable())}
    assert (kept["undecodable"].key, kept["undecodable"].value) == (b"k", b"garbage\0\xff")
    assert (kept["no-value"].key, kept["no-value"].value) == (None, None)
    assert "index" in kept["refused"].reason
    assert kept["refused"].value == long.records()[0].value


def test_a_log_that_does_not_hold_the_position_stops_the_projector(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    store = Store(migrated, log.topic)
    store.prepare()
    store.positions(range(PARTITIONS))
    store.close()
    with psycopg.connect(migrated) as connection:
        connection.execute("UPDATE flowtrail.projection_position SET next_offset = 5000 WHERE partition = 1")
    with pytest.raises(FlowtrailError, match=r"Expected .* to hold offset 5000"):
        Projector(servers.kafka, migrated, prefix).run()


def test_a_database_without_tables_is_reported_with_the_remedy(
    servers: Servers, database: str, prefix: str
) -> None:
    with pytest.raises(AwayError, match="run: flowtrail admin init"):
        Projector(servers.kafka, database, prefix).run()


def test_servers_that_are_away_at_start_are_waited_for(database: str, prefix: str) -> None:
    migrate(database)
    for kafka_servers, postgres in (
        ("127.0.0.1:1", database),
        ("127.0.0.1:1", "postgresql://flowtrail@127.0.0.1:1/flowtrail"),
    ):
        before = retries()
        with projecting(kafka_servers, postgres, prefix):
            until(lambda before=before: retries() > before)  # type: ignore[misc]


def test_history_goes_into_the_month_it_belongs_to(migrated: str) -> None:
    store = Store(migrated, "t.events")
    store.prepare()
    store.positions([3])
    position = 0
    for number, time in enumerate((START, START + 31 * 86_400_000_000, 0)):
        trail = Trail(f"f-{number}", offset=position, time=time)
        trail.add(m.FlowStarted(b"1"))
        assert store.apply(fold_batch(trail.records(), {3: position}))
        position = trail.offset
    store.close()
    found = rows(
        migrated,
        "SELECT flow_id, relname FROM flowtrail.history h JOIN pg_class c ON c.oid = h.tableoid ORDER BY 1",
    )
    assert found == [
        ("f-0", "history_2026_01"),
        ("f-1", "history_2026_02"),
        ("f-2", "history_other"),
    ]


@pytest.fixture
def many(migrated: str) -> Iterator[str]:
    """Thirty flows of two definitions, two a microsecond, without Kafka."""
    records, offset = [], 0
    for number in range(30):
        trail = Trail(f"f-{number:02d}", 0, offset, START + number // 2)
        trail.add(m.FlowStarted(b"1"), definition="acme/orders@1.0.0" if number % 3 else "acme/returns@1.0.0")
        if number % 2:
            trail.add(
                m.TaskCompleted(branch=f"b{number % 4}"), "/do/0/s", 1, 1, definition="acme/orders@1.0.0"
            )
            trail.add(m.FlowCompleted(b"2"))
        records += trail.records()
        offset = trail.offset
    store = Store(migrated, "t.events")
    store.prepare()
    store.positions([0])
    store.apply(fold_batch(records, {0: 0}))
    yield migrated
    store.close()


async def _pages(reader: Reader, **filters: str) -> list[str]:
    found, cursor = [], None
    while True:
        page = await reader.ask(queries.list_flows(cursor=cursor, limit=7, **filters))  # type: ignore[arg-type]
        found += [flow.id for flow in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_pages_hold_every_flow_once_newest_first_and_filters_narrow_them(many: str) -> None:
    import asyncio

    async def ask() -> None:
        async with Reader(many) as reader:
            every = [f"f-{n:02d}" for n in range(29, -1, -1)]
            assert await _pages(reader) == every
            assert await _pages(reader, status="completed") == every[::2]
            assert await _pages(reader, definition="acme/returns") == every[2::3]
            assert await _pages(reader, definition="acme/returns@1.0.0", status="running") == every[5::6]
            assert await _pages(reader, id_prefix="f-1") == [f"f-{n}" for n in range(19, 9, -1)]
            assert await _pages(reader, namespace="other") == []
            assert await reader.ask(queries.get_flow("f-30")) is None

    asyncio.run(ask())


def test_counts_and_durations_of_a_definition(many: str) -> None:
    with SyncReader(many) as reader:
        assert reader.ask(queries.counts_by_status("acme/orders")) == {"completed": 10, "running": 10}
        assert {(c.branch, c.flows) for c in reader.ask(queries.counts_by_branch("acme/orders@1.0.0"))} == {
            ("b1", 8),
            ("b3", 7),
        }
        assert reader.ask(queries.counts_by_branch("acme/orders@1.0")) == []
        durations = reader.ask(queries.durations("acme/orders"))
        assert (durations.flows, durations.p50_ms, durations.p99_ms) == (10, 2.0, 2.0)
        assert reader.ask(queries.durations("acme/none")).p50_ms is None


def test_the_pool_recovers_when_postgres_ended_its_connections(many: str) -> None:
    import asyncio

    async def ask() -> None:
        async with Reader(many) as reader:
            assert await reader.ask(queries.get_flow("f-01")) is not None
            rows(
                many,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()",
            )
            assert await reader.ask(queries.get_flow("f-01")) is not None

    asyncio.run(ask())


def test_status_tells_the_lag_and_ends_with_1_when_the_projector_is_not_running(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    from projections.standing import read_standing

    log.commit(*orders(4))
    assert read_standing(servers.kafka, migrated, prefix, 10).stale
    with projecting(servers.kafka, migrated, prefix):
        until(lambda: read_standing(servers.kafka, migrated, prefix, 10).lag == 0)
    standing = read_standing(servers.kafka, migrated, prefix, 0)
    assert (standing.stale, standing.unreadable, len(standing.partitions)) == (False, 0, PARTITIONS)
    command = [sys.executable, "-c", "from cli.projections import app; app()", "status", "--json"]
    environment = os.environ | {
        "FLOWTRAIL_KAFKA": servers.kafka,
        "FLOWTRAIL_POSTGRES": migrated,
        "FLOWTRAIL_TOPIC_PREFIX": prefix,
    }
    told = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (told.returncode, msgspec.json.decode(told.stdout)["lag"]) == (0, 0)
    log.commit(*orders(4, 4))
    told = subprocess.run([*command, "--stale-after", "0"], env=environment, capture_output=True, check=False)
    assert told.returncode == 1
    assert msgspec.json.decode(told.stdout)["lag"] >= 24


def test_the_head_in_the_read_model_is_the_hash_of_the_stored_event(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    trail = Trail("f-1", 0)
    last = trail.add(m.FlowStarted(b"1"))
    log.commit(trail)
    with projecting(servers.kafka, migrated, prefix):
        until(lambda: flows(migrated))
    assert rows(migrated, "SELECT encode(head, 'hex') FROM flowtrail.flows") == [
        (sha256(last.value).hexdigest(),)
    ]
