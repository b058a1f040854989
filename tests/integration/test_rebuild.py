"""Read models made again beside those in use, while a projector goes on and readers read. Real Kafka and Postgres."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from engine.errors import InputError
from projections import queries
from projections.readers import SyncReader
from replay import helping
from replay import rebuild as room
from replay.beside import BEFORE, NEW
from replay.rebuild import rebuild, roll_back
from replay.verify import Scope, verify_all
from tests.conftest import Servers
from tests.integration.projection_log import EventLog, projecting, rows
from tests.integration.projection_log import until as awaited
from tests.unit.replay_logs import order, records, rejection


@pytest.fixture
def log(order_log: EventLog) -> EventLog:
    return order_log


def written(log: EventLog, first: int, count: int) -> None:
    flows = [records(order(f"f-{i}", n=i, end=i % 3 > 0)) for i in range(first, first + count)]
    for part in (slice(0, 5), slice(5, 8)):
        log.commit_records(record for flow in flows for record in flow[part])
    log.commit_records(rejection(f"f-{i}") for i in range(first, first + count, 10))


def events(database: str) -> int:
    return int(rows(database, "SELECT count(*) FROM flowtrail.history")[0][0])


def events_of(count: int, first: int = 0) -> int:
    return sum(8 if i % 3 else 6 for i in range(first, first + count))


def schemas(database: str) -> set[str]:
    return {
        name for (name,) in rows(database, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'flowtrail%'")
    }


def right(servers: Servers, database: str, prefix: str) -> bool:
    scope = Scope(kafka=servers.kafka, prefix=prefix, postgres=database, processes=1)
    return verify_all(scope).right


class Reading:
    """A reader with prepared statements, all the time; keeps what it saw and what failed."""

    def __init__(self, database: str) -> None:
        self.counts: list[int] = []
        self.problems: list[BaseException] = []
        self._database = database
        self._stop = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[Reading]:
        thread = threading.Thread(target=self._read)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(30)

    def _read(self) -> None:
        try:
            with (
                SyncReader(self._database) as reader,
                psycopg.connect(self._database, autocommit=True) as again,
            ):
                while not self._stop.is_set():
                    assert reader.ask(queries.get_flow("f-1")) is not None
                    row = again.execute("SELECT count(*) FROM flowtrail.history", prepare=True).fetchone()
                    assert row is not None
                    self.counts.append(row[0])
        except BaseException as problem:
            self.problems.append(problem)


def test_read_models_are_rebuilt_equal_and_put_in_place_while_flows_arrive_and_readers_read(
    servers: Servers, migrated: str, prefix: str, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        helping, "_SPAWNED_MIN", 100
    )  # a process with threads begins its helper only for much
    written(log, 0, 300)
    total = 300
    with ExitStack() as stack:
        stack.enter_context(projecting(servers.kafka, migrated, prefix))
        awaited(lambda: events(migrated) == events_of(300))
        reading = stack.enter_context(Reading(migrated).going_on())
        before = rows(migrated, "SELECT 'flowtrail.history'::regclass::oid")
        stop = threading.Event()
        made = [300]

        def arriving() -> None:
            while not stop.is_set():
                written(log, made[0], 10)
                made[0] += 10

        thread = threading.Thread(target=arriving)
        thread.start()
        try:
            report = rebuild(servers.kafka, migrated, prefix)
        finally:
            stop.set()
            thread.join(30)
        total = made[0]
        assert report.equal
        assert report.swapped
        assert report.records >= 300 * 6
        assert {name: table.rows for name, table in report.tables.items()}["history"] >= events_of(300)
        assert rows(migrated, "SELECT 'flowtrail.history'::regclass::oid") != before
        assert schemas(migrated) >= {"flowtrail", BEFORE}
        assert NEW not in schemas(migrated)
        awaited(lambda: events(migrated) == events_of(total))
    assert reading.problems == []
    assert reading.counts == sorted(reading.counts)
    assert right(servers, migrated, prefix)


def test_a_difference_is_found_named_and_not_put_in_place_unless_accepted(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log, 0, 30)
    with projecting(servers.kafka, migrated, prefix):
        awaited(lambda: events(migrated) == events_of(30))
        with psycopg.connect(migrated) as connection:
            connection.execute("UPDATE flowtrail.flows SET status = 'completed' WHERE flow_id = 'f-12'")
            connection.execute("DELETE FROM flowtrail.history WHERE flow_id = 'f-7' AND sequence = 3")
        report = rebuild(servers.kafka, migrated, prefix)
        assert (report.equal, report.swapped) == (False, False)
        assert report.tables["flows"].first == "f-12"
        assert report.tables["history"].rebuilt_rows == report.tables["history"].rows + 1
        assert report.tables["tasks"].equal
        assert not right(servers, migrated, prefix)
        again = rebuild(servers.kafka, migrated, prefix, swap_different=True)
        assert (again.resumed, again.swapped, again.records) == (True, True, 0)
        assert right(servers, migrated, prefix)
        written(log, 30, 3)
        awaited(lambda: events(migrated) == events_of(33))
        roll_back(migrated)
        written(log, 33, 3)  # the old ones stand behind: the projector folds what they lack
        awaited(lambda: rows(migrated, "SELECT count(*) FROM flowtrail.flows")[0][0] == 36)
        assert rows(migrated, "SELECT status FROM flowtrail.flows WHERE flow_id = 'f-12'") == [("completed",)]
    with pytest.raises(InputError, match="there are none"):
        roll_back(migrated)


def test_a_killed_rebuild_goes_on_where_it_was(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log, 0, 2000)
    with projecting(servers.kafka, migrated, prefix):
        awaited(lambda: events(migrated) == events_of(2000))
    environment = os.environ | {
        "FLOWTRAIL_KAFKA": servers.kafka,
        "FLOWTRAIL_POSTGRES": migrated,
        "FLOWTRAIL_TOPIC_PREFIX": prefix,
    }
    command = [sys.executable, "-m", "cli.main", "projections", "rebuild", "--json"]
    killed = subprocess.Popen([*command, "--rate", "2000"], env=environment, stdout=subprocess.DEVNULL)
    awaited(lambda: NEW in schemas(migrated))
    awaited(lambda: rows(migrated, f"SELECT sum(next_offset) > 0 FROM {NEW}.projection_position")[0][0])
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["resumed"]
    assert 0 < report["records"] < events_of(2000)
    assert report["swapped"]
    assert right(servers, migrated, prefix)


def test_two_rebuilds_at_once_are_refused(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log, 0, 3)
    began = time.monotonic()
    with room._alone(migrated), pytest.raises(InputError, match="another one is running"):
        rebuild(servers.kafka, migrated, prefix)
    assert time.monotonic() - began < 30
