"""The demo as a user runs it, on a small generated log: servers, engine, worker, read model, replay, and the end of all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from examples.permit.expected import count_branches
from examples.permit.generate import write_log


def arguments(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "cli.main", "demo", *map(str, argv)]


def demo(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments(*argv), capture_output=True, text=True, timeout=200, check=False)


def processes_of(data: Path) -> list[str]:
    """Command lines that mention the directory: what a demo must not leave behind."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(data) in line and process.pid != os.getpid():
            found.append(line)
    return found


def test_the_demo_runs_every_case_verifies_it_and_leaves_nothing_running(tmp_path: Path) -> None:
    log, data = tmp_path / "cases.xes.gz", tmp_path / "demo"
    write_log(log, 60)
    done = demo("--input", log, "--once", "--json", "--data", data, "--ports", "auto")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert report["flows"] == report["completed"] == report["replay_verified"] == 60
    assert report["faulted"] == 0
    assert report["by_branch"] == count_branches(log)
    assert report["flows_per_second"] > 0
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["differences"] == []
    assert "60 of 60 flows started" in done.stderr
    assert processes_of(data) == []


def test_the_demo_stays_until_it_is_stopped_and_its_next_commands_work(tmp_path: Path) -> None:
    log, data, out = tmp_path / "cases.xes.gz", tmp_path / "demo", tmp_path / "out"
    write_log(log, 10)
    with out.open("wb") as output:
        running = subprocess.Popen(
            arguments("--input", log, "--data", data, "--ports", "auto"),
            stdout=output,
            stderr=output,
            cwd=tmp_path,
        )
    try:
        end = time.monotonic() + 200
        while "Ctrl-C stops everything." not in out.read_text():
            assert running.poll() is None, out.read_text()
            assert time.monotonic() < end, out.read_text()
            time.sleep(0.1)
        commands = [line.strip() for line in out.read_text().splitlines() if line.startswith("  . ")]
        assert len(commands) == 3
        for command in commands:
            tried = subprocess.run(
                ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert tried.returncode == 0, (command, tried.stderr)
            assert "case-100" in tried.stdout
    finally:
        running.send_signal(signal.SIGINT)
        code = running.wait(60)
    assert code == 0
    assert processes_of(data) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file"), ("<log>", "Expected well-formed XML"), ("<log/>", "at least one trace")],
)
def test_an_input_that_cannot_be_read_ends_the_demo_before_it_starts(
    tmp_path: Path, content: str | None, text: str
) -> None:
    log, data = tmp_path / "cases.xes", tmp_path / "demo"
    if content is not None:
        log.write_text(content)
    done = demo("--input", log, "--once", "--data", data)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not data.exists()


def test_a_directory_that_is_not_a_demos_is_refused_and_left_alone(tmp_path: Path) -> None:
    log, theirs = tmp_path / "cases.xes.gz", tmp_path / "theirs"
    write_log(log, 5)
    theirs.mkdir()
    (theirs / "precious").write_text("x")
    done = demo("--input", log, "--once", "--data", theirs)
    assert done.returncode == 2
    assert "choose another directory with --data" in done.stderr
    assert [path.name for path in theirs.iterdir()] == ["precious"]
