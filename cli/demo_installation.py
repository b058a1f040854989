"""The demo's own Flowtrail: `flowtrail up` in a directory of its own, a permit worker, and the way to reach both.

What runs is what users run, started as they start it; nothing of the demo is inside. The directory is recognised by a
marker and never emptied without it. Invariant: when the `with` block is left, however, nothing started here is alive.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from engine.errors import AwayError, InputError

MARKER: Final = "demo.json"
ENVIRONMENT_FILE: Final = "env"
_EXAMPLE: Final = Path(__file__).resolve().parents[1] / "examples" / "permit"
_READY_S: Final = 180.0  # the first start of all fetches Kafka
_STOP_S: Final = 60.0
_KEPT: Final = ("FLOWTRAIL_CACHE", "FLOWTRAIL_TRACEBACK", "FLOWTRAIL_LOG_LEVEL")

Say = Callable[[str], None]


def prepare_folder(data: Path, *, keep: bool) -> int:
    """An empty directory, or with `keep` the one of earlier demos; the number of the run in it, from 1."""
    from stack.state import Lock

    marker = data / MARKER
    try:
        if data.exists() and not marker.is_file() and any(data.iterdir()):
            raise InputError(
                f"Expected {data} to be empty or an earlier demo's but it holds something else; "
                "choose another directory with --data"
            )
        turn = 1
        if marker.is_file():
            lock = Lock(data)
            lock.take()
            lock.release()
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
    cluster = data / "postgres"
    if cluster.is_symlink():  # Postgres's account could not reach `data`: the cluster lies elsewhere
        shutil.rmtree(cluster.resolve(), ignore_errors=True)
    shutil.rmtree(data)


class DemoInstallation:
    """Attributes `api_url`, `api_key`, `kafka`, `postgres`, `urls` once entered."""

    def __init__(self, data: Path, ports: str | None, say: Say) -> None:
        from stack.supervisor import Supervisor

        self.data = data.resolve()
        self._ports = ports or ("default" if _defaults_are_free() else "auto")
        self._say = say
        self._up: subprocess.Popen[bytes] | None = None
        self._workers = Supervisor(report=say)
        # what the user's shell says about another installation must not reach this one
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FLOWTRAIL_") or name in _KEPT
        }

    def __enter__(self) -> DemoInstallation:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.stop()
        if self._up is not None and self._up.poll() is None:
            self._say("stopping")
            self._up.terminate()
            try:
                self._up.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._say(f"`flowtrail up` did not stop within {_STOP_S:.0f} s: killed")
                self._up.kill()
                self._up.wait()

    @property
    def log(self) -> Path:
        return self.data / "up.log"

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A `flowtrail` command against this installation."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *argv],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def watch(self) -> None:
        """Returns never: ends by Ctrl-C, or with AwayError when the installation ends by itself."""
        assert self._up is not None
        code = self._up.wait()
        raise self._ended(code)

    # -- starting -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        from stack.supervisor import Child

        self._say("starting Kafka, Postgres, engine, projections and API")
        up = [sys.executable, "-m", "cli.main", "up", "--data", str(self.data), "--ports", self._ports]
        with self.log.open("ab") as log:
            self._up = subprocess.Popen(
                up,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the demo, which stops everything in order
            )
        self._await_ready(self._up)
        self._read_addresses()
        worker = (sys.executable, "-m", "cli.main", "worker", "run", f"{_EXAMPLE / 'worker.py'}:worker")
        self._workers.start(
            Child(
                name="worker",
                argv=(*worker, "--concurrency", "1", "--instance", "permit-0"),
                log=self.data / "worker.log",
                environment=self.environment,
            )
        )

    def _await_ready(self, up: subprocess.Popen[bytes]) -> None:
        from stack import state

        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            if (code := up.poll()) is not None:
                raise self._ended(code)
            found = state.read(self.data)
            if found is not None and found.launcher.pid == up.pid and found.phase == "ready":
                return
            time.sleep(0.05)
        raise AwayError(f"Expected `flowtrail up` to be ready within {_READY_S:.0f} s; its log is {self.log}")

    def _ended(self, code: int) -> AwayError | InputError:
        from stack.processes import tail

        text = f"Expected `flowtrail up` to keep running but it ended with {code}; {self.log} ends with\n{tail(self.log)}"
        return InputError(text) if code == InputError.exit_code else AwayError(text)

    def _read_addresses(self) -> None:
        from stack import postgres, state

        found = state.read(self.data)
        assert found is not None
        self.urls = found.urls
        self.api_url = f"http://127.0.0.1:{found.ports['api']}"
        self.kafka = f"127.0.0.1:{found.ports['kafka']}"
        self.postgres = postgres.url(found.ports["postgres"], postgres.password(self.data))
        self.api_key = (self.data / "api-key").read_text().strip()
        reach = {
            "FLOWTRAIL_DATA": str(self.data),
            "FLOWTRAIL_API_URL": self.api_url,
            "FLOWTRAIL_API_KEY": self.api_key,
            "FLOWTRAIL_KAFKA": self.kafka,
            "FLOWTRAIL_POSTGRES": self.postgres,
        }
        self.environment |= reach
        self._write_environment(reach)

    def _write_environment(self, reach: dict[str, str]) -> None:
        """For a shell: after `. DATA/env` every `flowtrail` command speaks to this installation."""
        from stack.state import write_private

        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in reach.items()]
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
        write_private(self.data / ENVIRONMENT_FILE, "".join(lines))


def _defaults_are_free() -> bool:
    from stack.ports import Ports, is_free

    return all(is_free(port) for port in Ports().as_dict().values() if port)
