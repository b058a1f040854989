"""A part of the read models rebuilt, the rest copied; and rebuilds killed at every stage. Real Kafka and Postgres."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import psycopg
import pytest

from engine.errors import InputError
from engine.runtime.topics import partition_of
from replay.beside import AGAIN, NEW, Part, parse_part
from replay.rebuild import rebuild, roll_back
from schemas import messages as m
from tests.conftest import Servers
from tests.integration.projection_log import PARTITIONS, EventLog, projecting, rows
from tests.integration.projection_log import until as awaited
from tests.unit.projection_events import START, Trail
from tests.unit.replay_logs import rejection

LATE = START + 3_600_000_000
LATE_TEXT = "2026-01-01T01:00:00Z"
KILLED_BEFORE_SWAP = """
import os, signal, sys
from replay import rebuild
def killed(*_): os.kill(os.getpid(), signal.SIGKILL)
rebuild._Rebuilding.swap = killed
from cli.main import main
main()
"""


@pytest.fixture
def log(servers: Servers, prefix: str) -> EventLog:
    return EventLog(servers.kafka, prefix)


def early(number: int) -> Trail:
    return Trail(name := f"early-{number:04d}", partition_of(name, PARTITIONS))


def late(number: int) -> Trail:
    return Trail(name := f"late-{number:04d}", partition_of(name, PARTITIONS), time=LATE)


def events(database: str) -> int:
    return int(rows(database, "SELECT count(*) FROM flowtrail.history")[0][0])


def damage(database: str, statement: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(statement.encode())


def status_of(database: str, flow_id: str) -> str:
    return str(rows(database, f"SELECT status FROM flowtrail.flows WHERE flow_id = '{flow_id}'")[0][0])


class Command:
    """`flowtrail projections rebuild` as a process."""

    def __init__(self, servers: Servers, database: str, prefix: str) -> None:
        self._environment = os.environ | {
            "FLOWTRAIL_KAFKA": servers.kafka,
            "FLOWTRAIL_POSTGRES": database,
            "FLOWTRAIL_TOPIC_PREFIX": prefix,
        }

    def begin(self, *words: str, program: tuple[str, ...] = ("-m", "cli.main")) -> subprocess.Popen[str]:
        command = [sys.executable, *program, "projections", "rebuild", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment, stdout=pipe, stderr=pipe, text=True)

    def report(self, *words: str, code: int = 0) -> dict[str, Any]:
        process = self.begin(*words, "--json")
        told, problem = process.communicate(timeout=120)
        assert process.returncode == code, problem
        report: dict[str, Any] = json.loads(told)
        return report


@pytest.fixture
def command(servers: Servers, migrated: str, prefix: str) -> Command:
    return Command(servers, migrated, prefix)


def test_one_read_model_is_rebuilt_and_the_others_are_copied(
    servers: Servers, migrated: str, prefix: str, log: EventLog, command: Command
) -> None:
    log.commit(*(early(number).order() for number in range(30)))
    log.commit_records(rejection(f"early-{number:04d}") for number in range(5))
    with projecting(servers.kafka, migrated, prefix):
        awaited(lambda: events(migrated) == 180)
        awaited(lambda: rows(migrated, "SELECT count(*) FROM flowtrail.rejections") == [(5,)])
        damage(migrated, "DELETE FROM flowtrail.history WHERE flow_id = 'early-0007' AND sequence = 2")
        damage(migrated, "DELETE FROM flowtrail.tasks WHERE flow_id = 'early-0003' AND task = '/do/1/route'")
        found = command.report("rejections")
        assert found["swapped"]
        assert found["tables"].keys() == {"rejections"}
        assert found["copied"] == {"flows": 30, "tasks": 89, "history": 179, "unreadable": 0, "broken": 0}
        found = command.report("tasks", code=1)
        assert found["tables"].keys() == {"flows", "tasks", "broken"}
        assert found["tables"]["tasks"]["first"] == "early-0003 /do/1/route 1 1"
        assert found["tables"]["flows"]["first"] is None
        assert not found["swapped"]
        assert command.report("tasks", "--accept-differences", code=1)["resumed"]
        assert rows(migrated, "SELECT count(*) FROM flowtrail.tasks") == [(90,)]
        assert events(migrated) == 179
        process = command.begin("history", "--accept-differences")
        told, _ = process.communicate(timeout=120)
        assert "DIFFERENT, first at" in told
        assert "tasks               90 rows  copied, not rebuilt" in told
        assert process.returncode == 1
        assert events(migrated) == 180
        roll_back(migrated)
        log.commit(early(30).order())
        awaited(lambda: rows(migrated, "SELECT count(*) FROM flowtrail.flows") == [(31,)])
        assert events(migrated) == 185
    assert command.report("history", "--accept-differences", code=1)["swapped"]
    assert rebuild(servers.kafka, migrated, prefix).equal


def test_flows_with_an_event_since_a_time_are_rebuilt_and_the_others_are_copied(
    servers: Servers, migrated: str, prefix: str, log: EventLog, command: Command
) -> None:
    going_on = [early(number) for number in range(10, 14)]
    for trail in going_on:
        trail.add(m.FlowStarted(b"1"))
    log.commit(*(early(number).order() for number in range(10)), *going_on)
    for trail in going_on[:2]:
        trail.time = LATE
        trail.add(m.TaskCompleted(output=b"2"), "/do/0/a", 1, 1)
    log.commit(*(late(number).order() for number in range(8)), *going_on[:2])
    with projecting(servers.kafka, migrated, prefix):
        awaited(lambda: events(migrated) == 60 + 4 + 48 + 2)
        damage(migrated, "UPDATE flowtrail.flows SET status = 'faulted' WHERE flow_id = 'early-0003'")
        found = command.report("--since", LATE_TEXT)
        assert (found["flows"], found["swapped"], found["resumed"]) == (10, True, False)
        counts = {name: (table["rows"], table["copied"]) for name, table in found["tables"].items()}
        assert counts["flows"] == (10, 12)
        assert counts["history"] == (8 * 6 + 2 * 2, 62)
        assert found["copied"] == {"unreadable": 0}
        assert found["records"] == 52
        assert status_of(migrated, "early-0003") == "faulted"  # a copy: nothing is known against it
        damage(migrated, "UPDATE flowtrail.flows SET status = 'faulted' WHERE flow_id = 'late-0003'")
        found = command.report("flows", "--since", LATE_TEXT, code=1)
        assert found["tables"]["flows"]["first"] == "late-0003"
        assert found["tables"].keys() == {"flows", "tasks", "broken"}
        for trail in going_on:
            trail.add(m.FlowCompleted(b"3"))
        log.commit(*going_on)  # those that were copied go on as well
        awaited(lambda: events(migrated) == 118)
        found = command.report("flows", "--since", LATE_TEXT, "--accept-differences", code=1)
        assert (found["resumed"], found["swapped"], found["flows"]) == (True, True, 10)
        assert status_of(migrated, "late-0003") == "completed"
        assert {status_of(migrated, f"early-{n:04d}") for n in range(10, 14)} == {"completed"}
        assert rows(migrated, "SELECT to_regclass('flowtrail.chosen')") == [(None,)]
    report = rebuild(servers.kafka, migrated, prefix)
    assert {name: table.first for name, table in report.tables.items() if not table.equal} == {
        "flows": "early-0003"
    }


def test_a_rebuild_killed_at_any_stage_goes_on_and_gives_the_same(
    servers: Servers, migrated: str, prefix: str, log: EventLog, command: Command
) -> None:
    log.commit(*(late(number).order() for number in range(1000)))
    with projecting(servers.kafka, migrated, prefix):
        awaited(lambda: events(migrated) == 6000)
    moved = f"SELECT sum(next_offset) > 0 FROM {NEW}.projection_position WHERE projection = "
    made = f"SELECT to_regclass('{NEW}.projection_position') IS NOT NULL"
    tables: list[dict[str, str]] = []
    for words, projection in ((["--since", LATE_TEXT], AGAIN), ([], "main")):
        killed = command.begin(*words, "--rate", "2000")  # while it folds
        awaited(lambda: rows(migrated, made)[0][0])
        awaited(lambda projection=projection: rows(migrated, f"{moved}'{projection}'")[0][0])  # type: ignore[misc]
        killed.kill()
        killed.communicate()
        killed = command.begin(*words, program=("-c", KILLED_BEFORE_SWAP))  # proved, not yet in place
        _, problem = killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL, problem
        first = rows(migrated, "SELECT 'flowtrail.flows'::regclass::oid")
        done = command.report(*words)
        assert (done["resumed"], done["records"], done["swapped"]) == (True, 0, True)
        assert rows(migrated, "SELECT 'flowtrail.flows'::regclass::oid") != first
        tables.append({name: table["rebuilt_sha256"] for name, table in done["tables"].items()})
    again = command.report()
    assert (again["resumed"], again["records"]) == (False, 6000)
    uninterrupted = {name: table["rebuilt_sha256"] for name, table in again["tables"].items()}
    assert tables[1] == uninterrupted
    assert tables[0] == {name: uninterrupted[name] for name in tables[0]}  # every flow is late


def test_a_rebuild_of_another_part_than_the_one_that_was_interrupted_begins_anew(
    servers: Servers, migrated: str, prefix: str, log: EventLog, command: Command
) -> None:
    log.commit(*(late(number).order() for number in range(20)))
    with projecting(servers.kafka, migrated, prefix):
        awaited(lambda: events(migrated) == 120)
    killed = command.begin("flows", program=("-c", KILLED_BEFORE_SWAP))
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    report = rebuild(servers.kafka, migrated, prefix, Part("history"))
    assert (report.resumed, report.equal, report.tables.keys()) == (False, True, {"history"})


def test_bad_parts_are_refused_before_anything_is_touched() -> None:
    with pytest.raises(
        InputError, match="Expected one of main, flows, tasks, history, rejections but found 'x'"
    ):
        parse_part("x", None)
    with pytest.raises(InputError, match="Expected --since to be a time but found the sequence number 7"):
        parse_part("main", "7")
    with pytest.raises(InputError, match="Expected --since to be a sequence number, an RFC 3339 time"):
        parse_part("main", "yesterday")
