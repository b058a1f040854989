"""Exports on a real broker: what is imported elsewhere has the same bytes and verifies; interrupted imports go on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest

from engine.core.evolve import digest
from engine.errors import AwayError
from engine.runtime import kafka
from engine.runtime.restore import restore
from engine.runtime.topics import DEFINITIONS, EVENTS, create_topics, partition_of
from projections.migrations import migrate
from replay.flow import rebuild
from replay.log import read_spans, scan_messages
from replay.moment import Moment
from replay.sending import Outgoing, Sender
from replay.snapshot import document
from schemas import messages as m
from schemas.codec import encode_definition
from schemas.registry import newest
from tests.conftest import Servers
from tests.flows import Run
from tests.integration.engines import INLINE, Cluster
from tests.integration.projection_log import EventLog, projecting, rows, until
from tests.unit.replay_logs import ORDER, PARTITIONS, event, order, records, rejection

ROOT = Path(__file__).parents[2]
OTHER_PARTITIONS = 3
HOUR = 3600 * 1_000_000


class Place:
    """The topics of one installation, and the command line on them."""

    def __init__(self, servers: str, prefix: str, partitions: int) -> None:
        self.servers, self.prefix, self.partitions = servers, prefix, partitions
        create_topics(kafka.admin_client(servers), prefix, partitions, 1)

    def environment(self) -> dict[str, str]:
        given = {"FLOWTRAIL_KAFKA": self.servers, "FLOWTRAIL_TOPIC_PREFIX": self.prefix}
        return {**os.environ, **given, "FLOWTRAIL_POSTGRES": "postgresql://nobody@127.0.0.1:1/x"}

    def run(self, *words: str | Path, code: int = 0) -> str:
        """Standard output of a command that ends with 0, standard error of one that ends otherwise."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, words)],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if code else done.stdout

    def publish(self, document: dict[str, Any], hashed: bytes) -> None:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        published = m.PublishedDefinition(ORDER.id, hashed, text, "", "application/yaml", 1, "test")
        sending = kafka.producer(self.servers)
        headers: list[tuple[str, str | bytes | None]] = [("schema", newest("definition").fingerprint)]
        key, value = ORDER.id.encode(), encode_definition(published)
        sending.produce(self.prefix + DEFINITIONS, value, key=key, headers=headers)
        assert sending.flush(30) == 0

    def values(self) -> dict[bytes, list[bytes]]:
        """Key -> values in order; each key in one partition, its own."""
        found: dict[bytes, list[bytes]] = {}
        topic = self.prefix + EVENTS
        for message in scan_messages(self.servers, topic, read_spans(self.servers, topic)):
            assert message.partition() == partition_of(message.key().decode(), self.partitions)
            found.setdefault(message.key(), []).append(message.value())
        return found

    def ends(self) -> dict[int, int]:
        return {p: end for p, (_, end) in read_spans(self.servers, self.prefix + EVENTS).items()}


def written(place: Place, count: int = 12) -> None:
    """Flows f-0 … an hour apart, every third without an end; some rejections."""
    log = EventLog(place.servers, place.prefix)
    place.publish(ORDER.document, ORDER.hash)
    flows = []
    for i in range(count):
        run = Run(ORDER, f"f-{i}")
        run.now += i * HOUR
        run.start({"n": i, "text": f"tab\t\\ ü \x08{i}"})
        run.complete("/do/2/charge", {"n": i, "amount": 12.50})
        if i % 3:
            run.complete("/do/3/ship", {"sent": [1, 2]})
        flows.append([event(stored.value, run.flow_id, partition_of(run.flow_id, 4)) for stored in run.log])
    for part in (slice(0, 4), slice(4, 6), slice(6, 8)):
        log.commit_records(record for flow in flows for record in flow[part])
    log.commit_records(rejection(f"f-{i}") for i in range(0, count, 5))


@pytest.fixture
def source(servers: Servers, prefix: str) -> Place:
    return Place(servers.kafka, prefix, PARTITIONS)


@pytest.fixture
def other(servers: Servers) -> Place:
    return Place(servers.kafka, f"o{uuid.uuid4().hex[:10]}.", OTHER_PARTITIONS)


@pytest.mark.parametrize("form", ["jsonl", "avro"])
def test_an_imported_log_has_the_same_bytes_and_verifies(
    source: Place, other: Place, tmp_path: Path, form: str
) -> None:
    written(source)
    file = tmp_path / f"all.{form}"
    told = json.loads(source.run("export", "--all", "--out", file, "--json"))
    assert (told["flows"], told["ended"], told["events"], told["rejections"]) == (12, 8, 88, 3)
    assert (told["definitions"], told["missing"], told["unreadable"]) == (1, [], 0)
    report = json.loads(other.run("import", file, "--json"))
    assert (report["written"], report["there"], report["live"], report["definitions"]) == (91, 0, 4, 1)
    assert report["import_id"] == told["sha256"]
    assert other.values() == source.values()
    verified = json.loads(other.run("replay", "verify", "--all", "--no-read-model", "--json"))
    assert (verified["flows"], verified["verified"], verified["different"]) == (12, 12, [])
    heads = [rebuild(place.servers, place.prefix, "f-1").head for place in (source, other)]
    assert heads[0] == heads[1] == digest(source.values()[b"f-1"][-1])
    message = next(
        scan_messages(other.servers, other.prefix + EVENTS, read_spans(other.servers, other.prefix + EVENTS))
    )
    headers = kafka.headers_of(message)
    assert headers["src.topic"] == (source.prefix + EVENTS).encode()
    again = json.loads(other.run("import", file, "--json"))
    assert (again["written"], again["there"]) == (0, 91)
    assert other.values() == source.values()
    # what was imported can be exported and imported again
    second = Place(other.servers, f"s{uuid.uuid4().hex[:10]}.", 1)
    other.run("export", "--all", "--out", tmp_path / "again.avro")
    second.run("import", tmp_path / "again.avro")
    assert second.values() == source.values()


def test_imported_flows_are_projected_as_any_others(
    source: Place, other: Place, database: str, tmp_path: Path
) -> None:
    written(source)
    source.run("export", "--all", "--out", tmp_path / "all.avro")
    other.run("import", tmp_path / "all.avro")
    migrate(database)
    with projecting(other.servers, database, other.prefix):
        until(lambda: rows(database, "SELECT count(*) FROM flowtrail.history") == [(88,)])
    other.run("replay", "verify", "--all", "--postgres", database)


def test_one_flow_or_a_range_is_exported_whole(source: Place, other: Place, tmp_path: Path) -> None:
    written(source)
    file = tmp_path / "some.avro"
    source.run("export", "--flow", "f-5", "--out", file)
    other.run("import", file)
    assert other.values() == {b"f-5": source.values()[b"f-5"]}
    since, before = (str(1_700_000_000 + n * 3600) for n in (6, 9))
    told = json.loads(source.run("export", "--since", since, "--until", before, "--out", file, "--json"))
    assert told["flows"] == 3
    other.run("import", file)
    assert set(other.values()) == {b"f-5", b"f-6", b"f-7", b"f-8"}
    other.run("replay", "verify", "--all", "--no-read-model")
    wrong = source.run("export", "--flow", "f-99", "--out", tmp_path / "none.jsonl", code=2)
    assert "Expected flow f-99 to be in the log but" in wrong
    assert not (tmp_path / "none.jsonl").exists()


def test_an_import_that_does_not_fit_writes_nothing(source: Place, other: Place, tmp_path: Path) -> None:
    written(source)
    file, one = tmp_path / "all.jsonl", tmp_path / "one.jsonl"
    source.run("export", "--all", "--out", file)
    source.run("export", "--flow", "f-4", "--out", one)
    before = source.ends()
    assert "Expected flow f-" in source.run("import", file, code=2)
    other.run("import", one)
    there = other.ends()
    assert "Expected flow f-4 not to be in" in other.run("import", file, code=2)
    lines = file.read_bytes().splitlines(keepends=True)
    for damaged, words in (
        (lines[:-1], "its end is missing"),
        ([*lines[:5], *lines[6:]], "Expected event"),
        ([*lines[:-3], lines[-2], lines[-3], lines[-1]], "it was changed"),
        ([b"{}\n"], "Expected an export of Flowtrail"),
    ):
        (tmp_path / "damaged.jsonl").write_bytes(b"".join(damaged))
        assert words in other.run("import", tmp_path / "damaged.jsonl", code=2)
    assert (source.ends(), other.ends()) == (before, there)


def test_a_definition_that_is_other_here_or_would_start_flows_is_refused(
    source: Place, other: Place, servers: Servers, tmp_path: Path
) -> None:
    written(source)
    file = tmp_path / "all.jsonl"
    source.run("export", "--all", "--out", file)
    other.publish(ORDER.document, b"\1" * 32)
    assert f"Expected {ORDER.id} to have the hash" in other.run("import", file, code=2)
    scheduled = Cluster(servers.kafka, f"c{uuid.uuid4().hex[:10]}.", tmp_path)
    found = scheduled.publish(INLINE.replace("do:", "schedule: {every: {hours: 1}}\ndo:"))
    run = Run(found, "s-1")
    run.start({"n": 1})
    for stored in run.log:
        scheduled.send(EVENTS, "s-1", stored.value, "event")
    scheduled.producer.flush(10)
    place = Place(servers.kafka, scheduled.prefix, 4)
    place.run("export", "--flow", "s-1", "--out", file)
    target = Place(servers.kafka, f"d{uuid.uuid4().hex[:10]}.", 2)
    assert "test/inline@1.0.0 has one" in target.run("import", file, code=2)
    assert target.values() == {}
    target.run("import", file, "--schedules")
    target.run("replay", "verify", "--all", "--no-read-model")


KILLED = """
import os, signal
from pathlib import Path
from replay import imports, sending
imports._RECORDS_MAX = 20
commits = 0
def dying(self, call, until_done=sending.Sender._until_done):
    global commits
    commits += call == self._producer.commit_transaction
    if commits == {count}:
        self._producer.flush(10)  # in the log, not committed
        os.kill(os.getpid(), signal.SIGKILL)
    until_done(self, call)
sending.Sender._until_done = dying
imports.import_file({servers!r}, {prefix!r}, Path({file!r}))
"""


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_import_that_was_killed_goes_on_where_it_ended(
    source: Place, other: Place, tmp_path: Path, count: int
) -> None:
    written(source)
    file = tmp_path / "all.avro"
    source.run("export", "--all", "--out", file)
    code = KILLED.format(count=count, servers=other.servers, prefix=other.prefix, file=str(file))
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL
    report = json.loads(other.run("import", file, "--json"))
    # the first commit is that of the definitions
    there = 20 * max(0, count - 2)
    assert (report["there"], report["written"]) == (there, 91 - there)
    assert other.values() == source.values()
    other.run("replay", "verify", "--all", "--no-read-model")


def test_an_import_ends_another_one_that_still_runs(other: Place) -> None:
    record = Outgoing(other.prefix + EVENTS, 0, b"f-1", b"value", [], 1_700_000_000_000)
    with Sender(other.servers, f"{other.prefix}import") as first:
        first.write([record])
        with Sender(other.servers, f"{other.prefix}import") as second:
            with pytest.raises(AwayError, match="Expected"):
                first.write([record])
            second.write([record])
    assert sum(other.ends().values()) == 4  # two records, the marks of their transactions


@pytest.fixture
def cluster(servers: Servers, prefix: str, tmp_path: Path) -> Iterator[Callable[[str], Cluster]]:
    made: list[Cluster] = []

    def make(name: str) -> Cluster:
        folder = tmp_path / name
        folder.mkdir()
        made.append(Cluster(servers.kafka, f"{prefix}{name}.", folder))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_an_engine_goes_on_beside_imported_flows_and_never_with_them(
    cluster: Callable[[str], Cluster], servers: Servers, tmp_path: Path
) -> None:
    first, second = cluster("first"), cluster("second")
    first.publish(INLINE)
    first.start()
    first.ready()
    first.wait_ended(first.begin(20))
    file = tmp_path / "real.avro"
    source, target = (Place(servers.kafka, c.prefix, 4) for c in (first, second))
    source.run("export", "--all", "--out", file)
    target.run("import", file)
    assert target.values() == source.values()
    restored = [restore(servers.kafka, second.prefix, p) for p in range(4)]
    assert [(found.states, found.position) for found in restored] == [({}, -1)] * 4
    second.start()
    second.ready()
    names = second.begin(10, first=100)
    second.wait_ended(names)
    target.run("replay", "verify", "--all", "--no-read-model")
    originals = list(first.read(EVENTS))
    copies = {(c.key(), c.value()): c.headers() or [] for c in second.read(EVENTS)}
    for message in originals:
        headers = copies[message.key(), message.value()]
        assert headers[: len(message.headers() or [])] == message.headers()


def test_every_flow_s_state_at_a_cut_is_what_rebuilding_it_gives(source: Place, tmp_path: Path) -> None:
    written(source)
    names = [f"f-{i}" for i in range(12)]
    source.run("replay", "snapshot", "--at", "now", "--out", tmp_path / "now.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "now.jsonl").read_bytes().splitlines()]
    assert {line["id"]: line for line in lines} == {name: _rebuilt(source, name, None) for name in names}
    at = 1_700_000_000_000_000 + 4 * HOUR + 1500  # f-4 has begun a thousandth of a second ago
    words = ("--at", str(at), "--out", tmp_path / "then.avro", "--json")
    told = json.loads(source.run("replay", "snapshot", *words))
    with (tmp_path / "then.avro").open("rb") as file:
        rows: list[Any] = list(fastavro.reader(file))
    assert {row["flow_id"] for row in rows} == set(names[:5])
    assert (told["flows"], told["live"], told["broken"]) == (5, 3, 0)
    for row in rows:
        assert json.loads(row["state"]) == _rebuilt(source, row["flow_id"], Moment(time=at))
    live = json.loads(source.run("replay", "snapshot", "--live", "--out", tmp_path / "l.jsonl", "--json"))
    assert (live["flows"], live["live"]) == (4, 4)
    assert "Expected --out to end with" in source.run("replay", "snapshot", "--out", "a.csv", code=2)


def _rebuilt(place: Place, flow_id: str, at: Moment | None) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = json.loads(
        msgspec.json.encode(document(rebuild(place.servers, place.prefix, flow_id, at)))
    )
    return found


def test_what_is_unreadable_is_kept_by_raw_forms_and_refused_by_the_others(
    source: Place, tmp_path: Path
) -> None:
    written(source)
    EventLog(source.servers, source.prefix).commit_records([event(b"\0\1", "f-1")])
    said = source.run("export", "--all", "--out", tmp_path / "all.jsonl", code=1)
    assert "Expected readable records but 1 are not" in said
    assert (tmp_path / "all.jsonl").exists()
    for form in ("xes", "ocel"):
        out = tmp_path / f"log.{form}"
        assert "the one at partition" in source.run("export", "--all", "--format", form, "--out", out, code=1)
        assert not out.exists()
    source.run("export", "--flow", "f-2", "--format", "ocel", "--out", tmp_path / "f.json")
    assert len(json.loads((tmp_path / "f.json").read_bytes())["events"]) == 8
    source.run("export", "--flow", "f-2", "--out", tmp_path / "f.xes")
    assert len(ElementTree.parse(tmp_path / "f.xes").getroot().findall("{*}trace/{*}event")) == 8
    # found wrong: a flow without its beginning does not fold
    EventLog(source.servers, source.prefix).commit_records(records(order("half"))[4:])
    words = source.run("replay", "snapshot", "--out", tmp_path / "s.jsonl", code=1)
    assert "has no row: half: the chain of hashes breaks at event 5" in words


def test_the_commands_of_the_documentation_run(source: Place, other: Place, tmp_path: Path) -> None:
    section = (ROOT / "docs/replay.md").read_text().split("## Export, import and states at a cut")[1]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    written(source)
    for place, block in zip((source, other), blocks, strict=True):
        for line in block.splitlines():
            noun, *words = shlex.split(line)
            assert noun == "flowtrail"
            place.run(*(tmp_path / word if _is_file(word) else word for word in words))
    assert other.values() == source.values()
    other.run("replay", "verify", "--all", "--no-read-model")


def _is_file(word: str) -> bool:
    return word.endswith((".jsonl", ".avro", ".xes", ".json"))
