"""Replay on real Kafka and Postgres: a true log is proved, every harm to it is named, a flow is rebuilt at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from engine.errors import AwayError, FlowtrailError, InputError
from projections.logged import Record
from replay.findings import Report
from replay.flow import index_of, rebuild
from replay.moment import Moment
from replay.processes import run as run_processes
from replay.verify import Scope, verify_all, verify_one
from schemas import messages as m
from tests.conftest import Servers
from tests.integration.projection_log import EventLog, projecting, rows, until
from tests.unit.replay_logs import PARTITIONS, event, order, placed, records, rejection, with_body

ROOT = Path(__file__).parents[2]
AWAY = "127.0.0.1:1"


@pytest.fixture
def log(order_log: EventLog) -> EventLog:
    return order_log


def written(log: EventLog, count: int = 30) -> None:
    """Flows f-0 … whose decisions mingle; every third has not ended; a few rejections; several transactions."""
    flows = [records(order(f"f-{i}", n=i, text=f"tab\t\\ ü \x08{i}", end=i % 3 > 0)) for i in range(count)]
    for part in (slice(0, 4), slice(4, 6), slice(6, 8)):
        log.commit_records(record for flow in flows for record in flow[part])
    log.commit_records(rejection(f"f-{i}") for i in range(0, count, 10))


def scope_of(servers: Servers, prefix: str, postgres: str | None = None, **given: Any) -> Scope:
    return Scope(kafka=servers.kafka, prefix=prefix, postgres=postgres, **({"processes": 1} | given))


def project(servers: Servers, database: str, prefix: str, events: int) -> None:
    """Runs a projector until it has folded `events`."""
    with projecting(servers.kafka, database, prefix):
        until(lambda: rows(database, "SELECT count(*) FROM flowtrail.history") == [(events,)])


def flowtrail(
    *words: str, kafka: str, postgres: str = "", prefix: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {
        "FLOWTRAIL_KAFKA": kafka,
        "FLOWTRAIL_POSTGRES": postgres or f"postgresql://nobody@{AWAY}/x",
        "FLOWTRAIL_TOPIC_PREFIX": prefix,
    }
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "replay", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def named(report: Report) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in report.different:
        found.setdefault(finding.flow_id, set()).add(finding.kind)
    return found


# -- verify ---------------------------------------------------------------------------------------------------------


def test_a_true_log_and_its_read_model_are_verified(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log)
    log._producer.begin_transaction()
    log._producer.produce(log.topic, b"never committed", b"f-1", 0)
    log._producer.flush(10)
    log._producer.abort_transaction(30)
    events = 20 * 8 + 10 * 6
    project(servers, migrated, prefix, events)
    done = flowtrail("verify", "--all", "--json", kafka=servers.kafka, postgres=migrated, prefix=prefix)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["flows"], report["verified"], report["events"]) == (30, 30, events)
    assert (report["rejections"], report["different"], report["processes"]) == (3, [], 1)
    assert report["events_per_second"] > 0
    model = report["read_model"]
    assert (model["checked"], model["behind"], model["different"]) == (30, 0, [])
    assert model["rows"] == 30 + 30 * 4 + events + 3
    told: list[tuple[int, int]] = []
    scope = scope_of(servers, prefix, migrated, processes=2, records_per_process=1)
    shared = verify_all(scope, lambda read, of: told.append((read, of)))
    assert (shared.processes, shared.verified, shared.events, shared.right) == (2, 30, events, True)
    assert shared.read_model is not None
    assert shared.read_model.rows == model["rows"]
    assert events <= told[-1][0] <= told[-1][1]


def test_every_harm_to_the_log_is_found_and_named(servers: Servers, prefix: str, log: EventLog) -> None:
    flows = {name: records(run) for name in HARMS if (run := order(name))}
    for name, harm in HARMS.items():
        harm(flows[name])
    log.commit_records(record for flow in flows.values() for record in flow)
    report = verify_all(scope_of(servers, prefix))
    assert named(report) == {
        "altered": {"decision"},
        "altered-result": {"chain"},
        "dropped": {"sequence"},
        "swapped": {"sequence"},
        "copied": {"sequence"},
        "inserted": {"sequence"},
        "misplaced": {"partition"},
        "garbage": {"unreadable", "sequence"},
        "other-key": {"key"},
    }
    assert not report.right
    assert report.read_model is None
    done = flowtrail("verify", "--all", "--no-read-model", kafka=servers.kafka, prefix=prefix)
    assert done.returncode == 1
    assert "different: dropped event 5 [partition " in done.stdout
    assert "event 4 is not in the log" in done.stdout


def _alter(log: list[Record]) -> None:
    log[1] = event(with_body(order("altered"), 2, m.TaskCompleted(output=b"{}")), "altered")


def _alter_result(log: list[Record]) -> None:
    body = m.TaskCompleted(result=b'{"n":1,"amount":99}', context=b'{"n":1,"text":"a","paid":true}')
    log[4] = event(with_body(order("altered-result"), 5, body), "altered-result")


def _misplace(log: list[Record]) -> None:
    log.append(event(log[0].value or b"", "misplaced", (log[0].partition + 1) % PARTITIONS))


HARMS: dict[str, Callable[[list[Record]], Any]] = {
    "altered": _alter,
    "altered-result": _alter_result,
    "dropped": lambda log: log.pop(3),
    "swapped": lambda log: log.insert(3, log.pop(4)),
    "copied": lambda log: log.insert(5, log[4]),
    "inserted": lambda log: log.insert(5, records(order("inserted", n=20))[4]),
    "misplaced": _misplace,
    "garbage": lambda log: log.__setitem__(4, event(b"\0\1", "garbage")),
    "other-key": lambda log: log.__setitem__(
        2, Record(log[2].partition, -1, b"another", log[2].value, log[2].fingerprint)
    ),
}


@pytest.mark.parametrize("name", ["misplaced", "copied", "altered"])
def test_one_flow_is_verified_alone_wherever_its_records_lie(
    servers: Servers, prefix: str, log: EventLog, name: str
) -> None:
    harmed = records(order(name))
    HARMS[name](harmed)
    written(log, 6)
    log.commit_records(harmed)
    scope = scope_of(servers, prefix)
    report = verify_one(scope, name)
    assert (set(named(report)), report.right) == ({name}, False)
    right = verify_one(scope, "f-1")
    assert (right.flows, right.verified, right.events, right.right) == (1, 1, 8, True)
    with pytest.raises(InputError, match="Expected flow f-99 to be in the log"):
        verify_one(scope, "f-99")


def test_a_read_model_that_was_changed_is_found_row_by_row(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log, 12)
    project(servers, migrated, prefix, 8 * 8 + 4 * 6)
    changes = (
        "UPDATE flowtrail.flows SET output = '{\"sent\":[1]}' WHERE flow_id = 'f-1'",
        "UPDATE flowtrail.flows SET partition = 99 WHERE flow_id = 'f-10'",
        "DELETE FROM flowtrail.flows WHERE flow_id = 'f-2'",
        "DELETE FROM flowtrail.tasks WHERE flow_id = 'f-4' AND task = '/do/2/charge'",
        "UPDATE flowtrail.history SET body = '{}' WHERE flow_id = 'f-5' AND sequence = 3",
        "DELETE FROM flowtrail.history WHERE flow_id = 'f-7' AND sequence = 8",
        "UPDATE flowtrail.rejections SET reason = 'none' WHERE flow_id = 'f-0'",
        (
            "INSERT INTO flowtrail.flows (flow_id, definition, namespace, name, version, definition_hash, status, sequence, "
            "head, started_at, updated_at, actor_kind, actor_id, command_id, partition, first_offset, last_offset) "
            "SELECT 'made-up', definition, namespace, name, version, definition_hash, status, sequence, head, started_at, "
            "updated_at, actor_kind, actor_id, command_id, 2, 0, 0 FROM flowtrail.flows WHERE flow_id = 'f-1'"
        ),
        "INSERT INTO flowtrail.unreadable VALUES (0, -1, now(), NULL, NULL, 'defect', 'made up')",
    )
    with psycopg.connect(migrated) as connection:
        for change in changes:
            connection.execute(change.encode())
    report = verify_all(scope_of(servers, prefix, migrated, grace_s=0))
    assert report.different == []
    assert report.read_model is not None
    texts = {str(finding) for finding in report.read_model.different}

    def one(*words: str) -> bool:
        return sum(all(word in text for word in words) for text in texts) == 1

    assert one("flows f-1:", """Expected output '{"sent": [1, 2]}' but found '{"sent":[1]}'"""), texts
    assert one("flows f-10:", "but found '99'"), texts
    assert one("flows partition 99:", "Expected a partition below 4"), texts
    assert one("flows f-2:", "Expected a row but found none"), texts
    assert one("tasks f-2:", "Expected a row of the flow in flows"), texts
    assert one("tasks f-4 /do/2/charge 1", "Expected a row but found none"), texts
    assert one("history f-5 3 ", "but found '{}'"), texts
    assert one("history f-7 8 ", "Expected a row but found none"), texts
    assert one("rejections ", "Expected reason", "but found 'none'"), texts
    assert one("flows made-up:", "the log has no such flow"), texts
    assert one("unreadable 0 -1:", "defect: made up"), texts
    assert not report.right
    alone = verify_one(scope_of(servers, prefix, migrated, grace_s=0), "f-5")
    assert alone.read_model is not None
    assert [f.table for f in alone.read_model.different] == ["history"]
    stranger = verify_one(scope_of(servers, prefix, migrated, grace_s=0), "made-up")
    assert stranger.read_model is not None
    assert [f.text[:15] for f in stranger.read_model.different] == ["Expected no row"]


def test_a_read_model_that_is_behind_is_waited_for_and_otherwise_said_to_be_behind(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log, 6)
    project(servers, migrated, prefix, 44)
    log.commit_records(records(order("late")))
    log.commit_records([rejection("late")])
    behind = verify_all(scope_of(servers, prefix, migrated, grace_s=0.3))
    assert behind.read_model is not None
    assert (behind.read_model.behind, behind.read_model.different, behind.right) == (9, [], False)
    assert (behind.verified, behind.read_model.checked) == (7, 7)
    with projecting(servers.kafka, migrated, prefix):
        report = verify_all(scope_of(servers, prefix, migrated, grace_s=60))
    assert report.right, report
    assert verify_one(scope_of(servers, prefix, migrated, grace_s=0.3), "late").right


def test_a_log_that_grows_is_verified_while_it_grows(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            flows = [records(order(f"g-{number + i}")) for i in range(5)]
            for part in (slice(0, 4), slice(4, 6), slice(6, 8)):  # a decision is never cut in two
                log.commit_records(record for flow in flows for record in flow[part])
            number += 5

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with projecting(servers.kafka, migrated, prefix):
            seen = []
            for _ in range(4):
                report = verify_all(scope_of(servers, prefix, migrated, grace_s=60))
                assert report.right, report
                seen.append(report.events)
            assert seen[-1] > seen[0]
    finally:
        stop.set()
        writer.join()


def test_what_no_read_model_can_hold_is_no_difference_of_the_read_model(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log, 6)
    flow = records(order("garbage"))
    HARMS["garbage"](flow)
    log.commit_records(flow)
    project(servers, migrated, prefix, 44 + 7)
    report = verify_all(scope_of(servers, prefix, migrated))
    assert set(named(report)) == {"garbage"}
    assert report.read_model is not None
    assert (report.read_model.unreadable, report.read_model.different) == (1, [])


class Dying:
    """A job that a process does not survive."""

    def verify(self, partition: int, passed: Callable[[int], None]) -> int:
        passed(1)
        if partition:
            os._exit(9)
        return partition


class Away:
    def verify(self, partition: int, passed: Callable[[int], None]) -> int:
        raise AwayError("Expected Kafka to answer but it is away")


def test_a_process_that_dies_is_an_error_and_never_a_part_left_out() -> None:
    with pytest.raises(FlowtrailError, match="Expected every process to verify its partitions"):
        list(run_processes(Dying(), [[0], [1]], lambda _: None))
    with pytest.raises(AwayError):
        list(run_processes(Away(), [[0], [1]], lambda _: None))


# -- flow -----------------------------------------------------------------------------------------------------------


def test_a_flow_is_rebuilt_from_the_log_by_the_index_and_by_a_scan_alike(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    written(log)
    project(servers, migrated, prefix, 220)
    index = index_of(migrated)
    by_index = rebuild(servers.kafka, prefix, "f-10", None, index)
    by_scan = rebuild(servers.kafka, prefix, "f-10")
    assert (by_index.way, by_scan.way) == ("index", "scan")
    assert by_index.records_read < by_scan.records_read
    assert by_index.state == by_scan.state == order("f-10", n=10, text="tab\t\\ ü \x0810").state
    assert by_index.logged == by_scan.logged
    assert (len(by_scan.rejections), by_scan.head) == (1, by_index.head)
    past = rebuild(servers.kafka, prefix, "f-10", Moment(sequence=4), index)
    assert isinstance(past.state, m.LiveFlow)
    assert [task.task for task in past.state.active] == ["/do/2/charge"]


def test_an_index_that_is_behind_or_wrong_does_not_change_the_answer(
    servers: Servers, migrated: str, prefix: str, log: EventLog
) -> None:
    flow = records(order("f-1"))
    log.commit_records(flow[:5])
    project(servers, migrated, prefix, 5)
    log.commit_records(flow[5:])
    rebuilt = rebuild(servers.kafka, prefix, "f-1", None, index_of(migrated))
    assert (rebuilt.way, rebuilt.state.sequence) == ("index", 8)
    with psycopg.connect(migrated) as connection:
        connection.execute("DELETE FROM flowtrail.history WHERE sequence = 1")
    rebuilt = rebuild(servers.kafka, prefix, "f-1", None, index_of(migrated))
    assert (rebuilt.way, rebuilt.why) == ("scan", "the index does not lead to every event")
    assert rebuilt.state.sequence == 8


def test_the_command_shows_a_flow_at_a_moment(servers: Servers, prefix: str, log: EventLog) -> None:
    written(log, 3)
    at = {"kafka": servers.kafka, "prefix": prefix}
    done = flowtrail("flow", "f-1", "--until", "4", "--json", **at)
    assert done.returncode == 0, done.stderr
    flow = json.loads(done.stdout)
    assert (flow["sequence"], flow["status"], flow["events_in_log"]) == (4, "running", 8)
    assert flow["read"]["by"] == "scan"
    assert flow["read"]["why"] == "Postgres does not answer or has no index"
    text = flowtrail("flow", "f-1", "--no-index", **at).stdout
    assert "status      completed" in text
    assert "/do/2/charge" in text
    started = flow["started_at"]
    assert json.loads(flowtrail("flow", "f-1", "--until", started, "--json", **at).stdout)["sequence"] == 4


def test_the_command_tells_who_gave_a_value_and_what_changed(
    servers: Servers, prefix: str, log: EventLog
) -> None:
    written(log, 3)
    at = {"kafka": servers.kafka, "prefix": prefix}
    told = json.loads(flowtrail("blame", "f-1", "/context/paid", "--json", **at).stdout)
    assert (told["values"][0]["value"], told["values"][0]["by"]["sequence"]) == (True, 5)
    text = flowtrail("blame", "f-1", "/context/paid", "--no-index", **at).stdout
    assert text.startswith("/context/paid = true\n  event 5 ")
    assert "TaskCompleted /do/2/charge by worker" in text
    text = flowtrail("diff", "f-1", "4", "5", **at).stdout
    assert text.startswith("f-1: event 4 to 5, ")
    assert "/context/paid: (nothing) -> true" in text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("blame", "f-1", "context"), 2, "Expected a JSON pointer"),
        (("diff", "f-1", "yesterday"), 2, "Expected the first moment to be"),
        (("flow", "nobody"), 2, "Expected flow nobody to be in the log"),
        (("flow", "no/body"), 2, "Expected a flow id matching"),
        (("flow", "f-1", "--until", "yesterday"), 2, "Expected --until to be"),
        (("flow", "f-1", "--until", "9"), 2, "Expected an event from 1 to 8 of f-1 but found 9"),
        (("flow", "f-1", "--until", "2001-09-09T01:46:40Z"), 2, "before its first event"),
        (("verify",), 2, "Expected a flow's id or --all but found neither"),
        (("verify", "f-1", "--all"), 2, "but found both"),
        (("verify", "nobody", "--no-read-model"), 2, "Expected flow nobody to be in the log"),
        (("verify", "f-1"), 3, "--no-read-model verifies the log alone"),
    ],
)
def test_bad_input_is_answered_with_what_was_expected(
    servers: Servers, prefix: str, log: EventLog, words: tuple[str, ...], code: int, says: str
) -> None:
    log.commit_records(records(order("f-1")))
    done = flowtrail(*words, kafka=servers.kafka, prefix=prefix)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("flow", "f-1"), ("verify", "--all", "--no-read-model")])
def test_kafka_away_ends_with_three(words: tuple[str, ...]) -> None:
    done = flowtrail(*words, kafka=AWAY)
    assert (done.returncode, done.stdout) == (3, "")
    assert "Expected Kafka to answer" in done.stderr


def test_a_refused_flow_is_unknown_and_says_why(servers: Servers, prefix: str, log: EventLog) -> None:
    log.commit_records(placed([rejection("f-7", "Expected a published definition but found 'x/y'")]))
    with pytest.raises(InputError, match="1 refused commands, the last: Expected a published definition"):
        rebuild(servers.kafka, prefix, "f-7")
