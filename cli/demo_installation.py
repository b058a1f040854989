"""The demo's own Flowtrail: what `flowtrail up` runs, in a directory of its own, with a permit worker beside it.

Nothing of the demo is inside: the same code starts the same processes. The directory is recognised by a marker and
never emptied without it, nor while something runs in it. Invariant: when the `with` block is left, however, nothing
started here is alive.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from cli.installation import Installation, Plan, command, environment
from engine.errors import InputError

MARKER: Final = "demo.json"
ENVIRONMENT_FILE: Final = "env"
_EXAMPLE: Final = Path(__file__).resolve().parents[1] / "examples" / "permit"
_KEPT: Final = ("FLOWTRAIL_CACHE", "FLOWTRAIL_TRACEBACK", "FLOWTRAIL_LOG_LEVEL")

Say = Callable[[str], None]


def prepare_folder(data: Path, *, keep: bool) -> int:
    """An empty directory, or with `keep` the one of earlier demos; the number of the run in it, from 1."""
    marker = data / MARKER
    try:
        if data.exists() and not marker.is_file() and any(data.iterdir()):
            raise InputError(
                f"Expected {data} to be empty or an earlier demo's but it holds something else; "
                "choose another directory with --data"
            )
        turn = 1
        if marker.is_file():
            if keep:
                turn = _turns(marker) + 1
            else:
                _empty(data)
        data.mkdir(parents=True, exist_ok=True)
        marker.write_text(json.dumps({"runs": turn}) + "\n")
    except OSError as problem:
        raise InputError(f"Expected to be able to write to {data} but {problem.strerror}") from None
    return turn


def _turns(marker: Path) -> int:
    try:
        return int(json.loads(marker.read_text())["runs"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"Expected the number of earlier runs in {marker} but it is not readable") from None


def _empty(data: Path) -> None:
    """Raises Refused while a launcher runs in it; what a killed one left is stopped first."""
    from stack.leftovers import stop_leftovers
    from stack.state import Lock

    lock = Lock(data)
    lock.take()
    try:
        stop_leftovers(data)
        cluster = data / "postgres"
        if cluster.is_symlink():  # Postgres's account could not reach `data`: the cluster lies elsewhere
            shutil.rmtree(cluster.resolve(), ignore_errors=True)
        shutil.rmtree(data)
    finally:
        lock.release()


class DemoInstallation:
    """Attributes `api_url`, `api_key`, `postgres`, `urls` once entered. `ports` None: the defaults where all are free."""

    def __init__(self, data: Path, ports: str | None, say: Say) -> None:
        # what the user's shell says about another installation must not reach this one
        for name in [name for name in os.environ if name.startswith("FLOWTRAIL_") and name not in _KEPT]:
            del os.environ[name]
        self.data = data.absolute()
        automatic = ports == "auto" or (ports is None and not _defaults_are_free())
        self._installation = Installation(Plan(self.data, "auto" if automatic else "default"), say)
        self._say = say

    def __enter__(self) -> DemoInstallation:
        try:
            self._installation.start()
            self._read_addresses()
            self._start_worker()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        # a second Ctrl-C must not leave half of it running; every step of a stop has a deadline
        former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        self._say("stopping")
        self._installation.stop()
        for number, handler in former.items():
            signal.signal(number, handler)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A `flowtrail` command against this installation."""
        return subprocess.run(
            command(*argv), env=environment() | self._reach, capture_output=True, text=True, check=False
        )

    def _read_addresses(self) -> None:
        stack = self._installation.stack
        addresses = stack.addresses()
        self.urls = self._installation.urls
        self.api_url, self.postgres = self.urls["api"], addresses.postgres
        self.api_key = (self.data / "api-key").read_text().strip()
        self._reach = {
            "FLOWTRAIL_DATA": str(self.data),
            "FLOWTRAIL_API_URL": self.api_url,
            "FLOWTRAIL_API_KEY": self.api_key,
            "FLOWTRAIL_KAFKA": addresses.kafka,
            "FLOWTRAIL_POSTGRES": addresses.postgres,
        }
        self._write_environment()

    def _write_environment(self) -> None:
        """For a shell: after `. DATA/env` every `flowtrail` command speaks to this installation."""
        from stack.state import write_private

        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self._reach.items()]
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
        write_private(self.data / ENVIRONMENT_FILE, "".join(lines))

    def _start_worker(self) -> None:
        from stack.supervisor import Child

        words = ("worker", "run", f"{_EXAMPLE / 'worker.py'}:worker", "--concurrency", "1")
        self._installation.stack.supervisor.start(
            Child(
                name="worker",
                argv=tuple(command(*words, "--instance", "permit-0")),
                log=self._installation.stack.logs / "worker.log",
                environment=environment() | self._reach,
            )
        )


def _defaults_are_free() -> bool:
    from stack.ports import Ports, is_free

    return all(is_free(port) for port in Ports().as_dict().values() if port)
