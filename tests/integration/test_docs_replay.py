"""Every command of docs/replay.md runs, and ends as the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Servers
from tests.integration.projection_log import EventLog, projecting, rows, until
from tests.integration.test_whatif import OTHER
from tests.unit.replay_logs import order, records

PAGE = (Path(__file__).parents[2] / "docs/replay.md").read_text().split("## Export, import")[0]
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_every_command_of_the_page_ends_as_it_says(
    servers: Servers,
    migrated: str,
    prefix: str,
    order_log: EventLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"KAFKA": servers.kafka, "TOPIC_PREFIX": prefix, "POSTGRES": migrated}
    for name, value in settings.items():
        monkeypatch.setenv(f"FLOWTRAIL_{name}", value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text(OTHER)
    flows = [records(order(f"f-{i}", n=i, end=i % 3 > 0)) for i in range(30)]
    order_log.commit_records(record for flow in flows for record in flow)
    with projecting(servers.kafka, migrated, prefix):
        events = sum(map(len, flows))
        until(lambda: rows(migrated, "SELECT count(*) FROM flowtrail.history") == [(events,)])
    assert len(LINES) > 8
    for line in LINES:
        command, _, said = line.partition("   # ")
        name, *words = shlex.split(command)
        assert name == "flowtrail"
        expected = int(said.split(":")[0]) if said else 0
        # in a process of its own: a command sets up the logging of its process
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, f"{line}\n{done.stdout}{done.stderr}"
