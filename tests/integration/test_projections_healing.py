"""Rows damaged by hand, and logs with gaps: the next event of a flow makes its rows what the log gives. Real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psycopg
import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from engine.runtime.topics import partition_of
from projections import queries
from projections.logged import Record
from projections.readers import SyncReader
from replay.rebuild import rebuild
from schemas import messages as m
from schemas.codec import encode_event
from tests.conftest import Servers
from tests.integration.projection_log import PARTITIONS, EventLog, projecting, rows
from tests.integration.projection_log import until as awaited
from tests.unit.projection_events import Trail
from tests.unit.replay_logs import order, records, rejection

DAMAGES = {
    "f-row": (
        "DELETE FROM flowtrail.flows WHERE flow_id = 'f-row'",
        "Expected a row at event 5 but found none",
    ),
    "f-task": (
        "DELETE FROM flowtrail.tasks WHERE flow_id = 'f-task' AND task = '/do/0/prepare'",
        "Expected 3 rows in tasks but found 2",
    ),
    "f-scheduled": (
        "DELETE FROM flowtrail.tasks WHERE flow_id = 'f-scheduled' AND task = '/do/2/charge'",
        "Expected 3 rows in tasks but found 2",
    ),
    "f-back": (
        "UPDATE flowtrail.flows SET sequence = 3 WHERE flow_id = 'f-back'",
        "Expected the row at event 5 but it is at 3",
    ),
    "f-ahead": (
        "UPDATE flowtrail.flows SET sequence = 7, status = 'completed' WHERE flow_id = 'f-ahead'",
        "Expected the row at event 5 but it is at 7",
    ),
    "f-head": (
        "UPDATE flowtrail.flows SET head = 'x', input = '{}' WHERE flow_id = 'f-head'",
        "Expected the row to hold the hash that event 6 follows but it holds another",
    ),
    "f-all": (
        "; ".join(
            f"DELETE FROM flowtrail.{table} WHERE flow_id = 'f-all'"
            for table in ("flows", "tasks", "history", "rejections")
        ),
        "Expected a row at event 5 but found none",
    ),
}


@pytest.fixture
def log(order_log: EventLog) -> EventLog:
    return order_log


def healed_total() -> float:
    return REGISTRY.get_sample_value("flowtrail_projection_healed_total") or 0.0


def events(database: str) -> int:
    return int(rows(database, "SELECT count(*) FROM flowtrail.history")[0][0])


def status(servers: Servers, database: str, prefix: str, *words: str) -> str:
    environment = os.environ | {
        "FLOWTRAIL_KAFKA": servers.kafka,
        "FLOWTRAIL_POSTGRES": database,
        "FLOWTRAIL_TOPIC_PREFIX": prefix,
    }
    command = [sys.executable, "-m", "cli.main", "projections", "status", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_next_event_of_a_flow_heals_its_rows_and_they_are_what_a_rebuild_gives(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    names = [*DAMAGES, "f-right"]
    flows = {name: records(order(name)) for name in names}
    log.commit_records(record for flow in flows.values() for record in flow[:5])
    log.commit_records(rejection(name) for name in names)
    before = healed_total()
    with projecting(servers.kafka, migrated, prefix):
        awaited(lambda: events(migrated) == 5 * len(names))
        awaited(lambda: rows(migrated, "SELECT count(*) FROM flowtrail.rejections") == [(len(names),)])
        for statement, _ in DAMAGES.values():
            with psycopg.connect(migrated) as connection:
                connection.execute(statement.encode())
        log.commit_records(record for flow in flows.values() for record in flow[5:])
        awaited(lambda: events(migrated) == 8 * len(names))
    healings = dict(rows(migrated, "SELECT flow_id, found FROM flowtrail_api.healings"))
    assert healings == {name: found for name, (_, found) in DAMAGES.items()}
    assert healed_total() - before == len(DAMAGES)
    told = json.loads(status(servers, migrated, prefix, "--json"))
    assert (told["healed"], told["broken"]) == (len(DAMAGES), 0)
    assert {one["flow_id"] for one in told["healings"]} == set(DAMAGES)
    assert "f-back: Expected the row at event 5 but it is at 3" in status(servers, migrated, prefix)
    report = rebuild(servers.kafka, migrated, prefix)
    assert report.equal, report.tables
    assert report.swapped


def test_a_gap_in_the_log_itself_marks_its_flow_and_the_others_go_on(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    flows = {
        name: records(order(name))
        for name in ("f-gap", "f-again", "f-altered", "f-garbled", "f-twice", "f-right")
    }
    altered = order("f-altered").log[2]
    flows["f-gap"].pop(3)
    flows["f-again"].insert(5, flows["f-again"][1])
    flows["f-altered"][2].value = encode_event(replace(altered.event, trace="00-another"))
    flows["f-garbled"][4].value = b"garbled"
    flows["f-twice"] += records(order("f-twice", n=2))  # begun again, long after its end
    elsewhere = (partition_of("f-right", PARTITIONS) + 1) % PARTITIONS
    stray = Record(elsewhere, -1, b"f-right", flows["f-right"][3].value, flows["f-right"][3].fingerprint)
    other_key = flows["f-right"][2]
    misplaced = Record(other_key.partition, -1, b"f-left", other_key.value, other_key.fingerprint)
    longest = max(map(len, flows.values()))
    count = 0
    with projecting(servers.kafka, migrated, prefix):
        for at in range(longest):
            found = [flow[at] for flow in flows.values() if at < len(flow)]
            log.commit_records(
                found
            )  # one event of each flow in a batch: every break is at a batch's beginning
            count += len(found) - (at == 4)
            awaited(lambda count=count: events(migrated) == count)  # type: ignore[misc]
        log.commit_records([stray, misplaced])
        awaited(lambda: events(migrated) == count + 1)
        awaited(lambda: rows(migrated, "SELECT count(*) FROM flowtrail.unreadable") == [(2,)])
    assert dict(rows(migrated, "SELECT flow_id, found FROM flowtrail.broken")) == {
        "f-gap": "Expected event 4 but found event 5",
        "f-again": "Expected event 6 but found event 2",
        "f-altered": "Expected event 4 to hold the hash of the one before it but it holds another",
        "f-garbled": "Expected event 5 but found event 6",
        "f-twice": "Expected event 9 but found event 1",
        "f-right": f"Expected its events in partition {partition_of('f-right', PARTITIONS)} but found one in {elsewhere}",
    }
    with SyncReader(migrated) as reader:
        flow = reader.ask(queries.get_flow("f-gap"))
    assert flow is not None
    assert flow.broken == "Expected event 4 but found event 5"
    ended = rows(migrated, "SELECT status, sequence FROM flowtrail.flows GROUP BY 1, 2")
    assert ended == [("completed", 8)]
    healed = rows(migrated, "SELECT flow_id, count(*) FROM flowtrail_api.healings GROUP BY 1 ORDER BY 1")
    assert healed == [("f-again", 1), ("f-altered", 1), ("f-gap", 1), ("f-garbled", 1), ("f-twice", 1)]
    assert json.loads(status(servers, migrated, prefix, "--json"))["broken"] == 6
    report = rebuild(servers.kafka, migrated, prefix)  # folds them in one batch
    assert {name: table.first for name, table in report.tables.items() if not table.equal} == {}


def test_a_flow_whose_record_postgres_refuses_goes_on(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    trail = Trail("f-1", partition_of("f-1", PARTITIONS))
    trail.add(m.FlowStarted(b"1"))
    trail.add(
        m.TaskCompleted(output=b"2"), "/do/0/" + "".join(map(str, range(20_000))), 1, 1
    )  # too long for an index
    trail.add(m.TaskCompleted(output=b"3"), "/do/1/b", 1, 1)
    with projecting(servers.kafka, migrated, prefix):
        log.commit(trail)
        awaited(lambda: events(migrated) == 2)
        trail.add(m.FlowCompleted(b"3"))
        log.commit(trail)
        awaited(lambda: events(migrated) == 3)
    assert rows(migrated, "SELECT status, sequence, tasks FROM flowtrail.flows") == [("completed", 4, 1)]
    assert rows(migrated, "SELECT code FROM flowtrail.unreadable") == [("refused",)]
    assert rows(migrated, "SELECT found FROM flowtrail.broken") == [("Expected event 2 but found event 3",)]
    assert rebuild(servers.kafka, migrated, prefix).equal
