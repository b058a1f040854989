"""The journal of begun tasks: what a process that died leaves to the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flowtrail.journal import Journal

POISON = ("f1", "/do/0/x", 1, 1)
OTHER = ("f2", "/do/0/x", 1, 1)


def die_during(folder: Path, key: tuple[str, str, int, int]) -> None:
    """A process of its own begins `key` and is gone."""
    script = (
        "import os, pathlib, sys\n"
        "from flowtrail.journal import Journal\n"
        f"journal = Journal('q', pathlib.Path({str(folder)!r}))\n"
        f"journal.started({OTHER!r}); journal.ended({OTHER!r})\n"
        f"journal.started({key!r})\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9


def test_deaths_are_counted_over_processes_until_the_task_ends(tmp_path: Path) -> None:
    for _ in range(3):
        die_during(tmp_path, POISON)
    journal = Journal("q", tmp_path)
    assert (journal.deaths(POISON), journal.deaths(OTHER)) == (3, 0)
    journal.ended(POISON)
    assert journal.deaths(POISON) == 0
    journal.close()
    assert Journal("q", tmp_path).deaths(POISON) == 0


def test_an_orderly_end_is_nobodys_fault(tmp_path: Path) -> None:
    die_during(tmp_path, POISON)
    journal = Journal("q", tmp_path)
    journal.started(OTHER)
    journal.close()
    later = Journal("q", tmp_path)
    assert (later.deaths(POISON), later.deaths(OTHER)) == (1, 0)


def test_the_journal_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    living = Journal("q", tmp_path)
    living.started(POISON)
    assert Journal("q", tmp_path).deaths(POISON) == 0
    assert Journal("other", tmp_path).deaths(POISON) == 0
    living.close()


def test_a_key_longer_than_a_slot_is_counted_too(tmp_path: Path) -> None:
    long = ("f1", "/do/0/" + "x" * 500, 1, 1)
    die_during(tmp_path, long)
    assert Journal("q", tmp_path).deaths(long) == 1


def test_a_full_journal_keeps_nobody_from_working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_during(tmp_path, POISON)
    monkeypatch.setattr("flowtrail.journal._BYTES", 4 * 256)
    journal = Journal("q", tmp_path)
    keys = [(f"g{n}", "/do/0/x", 1, 1) for n in range(10)]
    for key in keys:
        journal.started(key)
    for key in keys:
        journal.ended(key)
    assert journal.deaths(POISON) == 1
    (file,) = tmp_path.glob("q@*.journal")
    slots = [file.read_bytes()[at : at + 256] for at in range(0, 1024, 256)]
    assert [slot.rstrip(b"\0") for slot in slots if slot[0]] == [b"f1/do/0/x#1.1"]


def test_a_slot_is_used_again(tmp_path: Path) -> None:
    journal = Journal("q", tmp_path)
    for n in range(5000):
        journal.started(("g", "/do/0/x", n, 1))
        journal.ended(("g", "/do/0/x", n, 1))
    journal.started(POISON)
    (file,) = tmp_path.glob("q@*.journal")
    assert b"f1/do/0/x#1.1\0" in file.read_bytes()


def test_a_folder_that_cannot_be_written_is_told_and_does_not_matter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal("q", tmp_path / "file")
    journal.started(POISON)
    journal.ended(POISON)
    journal.close()
    assert journal.deaths(POISON) == 0
    assert "set FLOWTRAIL_WORKER_STATE" in caplog.text
    assert os.listdir(tmp_path) == ["file"]
