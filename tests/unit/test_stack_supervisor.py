"""The supervisor with stand-in children: what ends is started again, what is stopped stays stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.processes import Identity, tail
from stack.supervisor import Child, Supervisor

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
ENDER = "import sys; print('no luck', flush=True); sys.exit(7)"


def eventually(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.01)


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.changes = 0
        self.supervisor = Supervisor(
            self._changed, self.said.append, backoff_first_s=0.02, healthy_after_s=0.3
        )

    def _changed(self) -> None:
        self.changes += 1

    def child(self, name: str, program: str, **more: object) -> Child:
        return Child(name, (sys.executable, "-c", program), self.folder / f"{name}.log", **more)  # type: ignore[arg-type]

    def start(self, name: str, program: str, **more: object) -> Identity:
        identity = self.supervisor.start(self.child(name, program, **more))
        if program != ENDER:
            eventually(lambda: "up" in tail(self.folder / f"{name}.log"))
        return identity


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.supervisor.stop()


def test_a_killed_child_is_started_again(stage: Stage) -> None:
    before = stage.start("a", SLEEPER)
    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: stage.supervisor.status("a").restarts == 1)
    now = stage.supervisor.status("a")
    assert now.identity is not None
    assert now.identity != before
    assert now.identity.alive()
    assert now.last_exit == -signal.SIGKILL
    assert any("a ended (SIGKILL)" in line for line in stage.said)


def test_pauses_between_starts_grow_while_it_keeps_ending(stage: Stage) -> None:
    stage.start("a", ENDER)
    eventually(lambda: stage.supervisor.status("a").restarts >= 3)
    pauses = [line.rsplit("in ", 1)[1] for line in stage.said[:3]]
    assert pauses == ["0.02 s", "0.04 s", "0.08 s"]
    assert "no luck" in tail(stage.folder / "a.log")


def test_a_child_that_lived_long_enough_starts_again_at_once(stage: Stage) -> None:
    stage.start("a", "import time; print('up', flush=True); time.sleep(0.6)")
    eventually(lambda: stage.supervisor.status("a").restarts >= 2)
    assert all(line.endswith("in 0.02 s") for line in stage.said)


def test_a_stopped_child_stays_stopped(stage: Stage) -> None:
    identity = stage.start("a", SLEEPER)
    stage.supervisor.stop()
    assert not identity.alive()
    assert stage.supervisor.statuses() == []
    assert stage.said == []


def test_a_child_can_be_stopped_between_two_runs(tmp_path: Path) -> None:
    supervisor = Supervisor(backoff_first_s=60)
    supervisor.start(Child("a", (sys.executable, "-c", ENDER), tmp_path / "a.log"))
    eventually(lambda: supervisor.status("a").last_exit == 7)
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 10


def test_children_stop_in_reverse_order(stage: Stage) -> None:
    order = stage.folder / "order"
    program = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    open({str(order)!r}, 'a').write(sys.argv[1] + '\\n')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    for name in ("first", "second", "third"):
        child = Child(name, (sys.executable, "-c", program, name), stage.folder / f"{name}.log")
        stage.supervisor.start(child)
        eventually(lambda name=name: "up" in tail(stage.folder / f"{name}.log"))  # type: ignore[misc]
    stage.supervisor.stop()
    assert order.read_text().split() == ["third", "second", "first"]


def test_a_child_that_ignores_its_signal_is_killed_at_its_deadline(stage: Stage) -> None:
    identity = stage.start("a", DEAF, stop_deadline_s=0.2)
    stage.supervisor.stop()
    assert not identity.alive()
    assert any("did not end within 0.2 s: killed" in line for line in stage.said)


def test_what_a_killed_child_started_itself_ends_with_it(stage: Stage) -> None:
    program = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('grandchild', 'w').write(str(p.pid))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    identity = stage.start("a", program, folder=stage.folder)
    grandchild = Identity.of(int((stage.folder / "grandchild").read_text()))
    assert grandchild is not None
    os.kill(identity.pid, signal.SIGKILL)
    eventually(lambda: not grandchild.alive())


def test_preparation_runs_before_each_start_and_its_failure_is_tried_again(stage: Stage) -> None:
    calls: list[int] = []

    def prepare() -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise RuntimeError("not yet")

    identity = stage.start("a", SLEEPER, prepare=prepare)
    os.kill(identity.pid, signal.SIGKILL)
    eventually(lambda: stage.supervisor.status("a").restarts == 1)
    assert calls == [0, 1, 2]
    assert any("could not be started: not yet" in line for line in stage.said)


def test_each_start_is_announced(stage: Stage) -> None:
    identity = stage.start("a", SLEEPER)
    assert stage.changes == 1
    os.kill(identity.pid, signal.SIGKILL)
    eventually(lambda: stage.changes == 2)


def test_a_program_that_does_not_exist_is_an_error_at_once(stage: Stage) -> None:
    with pytest.raises(FileNotFoundError):
        stage.supervisor.start(Child("a", ("/nonexistent/program",), stage.folder / "a.log"))
    assert stage.supervisor.statuses() == []
