"""`run: container`: one container by the engine whose command line client is on the PATH, docker or podman.

The client runs in the foreground, so its output and its code are the container's. The environment is a file that only the
client reads: no command line shows its values, and no variable of the container's means something to the client. A command
is given to the image's `sh`, with the arguments as `$1`, `$2`, ...; without a command the arguments are the image's own.
Invariants: a container whose task is over or cancelled does not run any more, and what lifetime says is about its remains;
nothing but what has this run's label is ever removed. Paths of this machine are mounted only from below FLOWTRAIL_FILES_DIR.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

from flowtrail.errors import TaskError

from engine.dsl import durations
from engine.dsl.errors import ExpressionError
from engine.tasks import problems
from engine.tasks.configured import configured
from engine.tasks.process_arguments import argv, environment_of, result_of, stdin_of, text, written
from engine.tasks.subprocesses import Bounds, Ended, supervised

ENGINES: Final = ("docker", "podman")
LABEL: Final = "flowtrail.run"
_PULL: Final = {"ifNotPresent": "missing", "always": "always", "never": "never"}
_ASK: Final = Bounds(20.0, 65_536)
_ENGINE_FAILED: Final = 125
"""The code of docker run and podman run when the engine itself could not do it."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][^\s=\0]*")
_LINE: Final = re.compile(r"[^\r\n\0]*")

log: Final = logging.getLogger("flowtrail.containers")
_removals: Final[set[asyncio.Task[None]]] = set()


async def container(arguments: dict[str, Any]) -> Any:
    """The function `run.container`."""
    image = text(arguments, "image")
    label = f"{LABEL}={uuid.uuid4()}"
    options = options_of(arguments, label)
    variables = variables_of(arguments)
    cleanup, after_s = lifetime_of(arguments.get("lifetime"))
    command = arguments.get("command")
    argument_list = argv(arguments.get("arguments"))
    inner = argument_list if not command else ["sh", "-c", written(command), "sh", *argument_list]
    client = await _client()
    settings = configured()
    bounds = Bounds(settings.run_wall_s, settings.run_output_bytes_max)
    stdin = stdin_of(arguments.get("stdin"))
    done = False
    try:
        with tempfile.TemporaryDirectory(prefix="flowtrail-run-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "environment"
            file.write_text(variables, encoding="utf-8", errors="replace")
            command_line = [client, "run", f"--env-file={file}", *options, "--", image, *inner]
            ended = await _perform(command_line, bounds, stdin)
        done = True
    finally:
        if not done:
            await _remove(client, label)
    if ended.code == _ENGINE_FAILED:
        raise problems.configuration(
            f"Expected {Path(client).name} to run the image {image[:128]!r} but it cannot"
        )
    if cleanup == "always":
        await _remove(client, label)
    elif cleanup == "eventually":
        removal = asyncio.get_running_loop().create_task(_remove_later(client, label, after_s))
        _removals.add(removal)
        removal.add_done_callback(_removals.discard)
    return result_of(ended, arguments)


def options_of(arguments: dict[str, Any], label: str) -> list[str]:
    """What stands between `run` and the image."""
    policy = arguments.get("pullPolicy") or "ifNotPresent"
    if policy not in _PULL:
        raise problems.configuration(
            f"Expected one of {', '.join(_PULL)} as pullPolicy but found {str(policy)[:32]!r}"
        )
    name = arguments.get("name") or f"flowtrail-{label.partition('=')[2]}"
    found = ["--interactive", f"--name={name}", f"--label={label}", f"--pull={_PULL[policy]}"]
    found += [f"--memory={configured().run_memory_mib}m", f"--ulimit=cpu={configured().run_cpu_s}"]
    for outside, inside in _mapping(arguments, "ports").items():
        found.append(f"--publish={outside}:{written(inside)}")
    for outside, inside in _mapping(arguments, "volumes").items():
        found.append(f"--volume={_mountable(outside)}:{written(inside)}")
    return found


def variables_of(arguments: dict[str, Any]) -> str:
    """The environment as the client reads it from a file: a line each, taken as it is. Raises TaskError."""
    found = environment_of(arguments.get("environment"))
    for name, value in found.items():
        if _VARIABLE.fullmatch(name) is None or _LINE.fullmatch(value) is None:
            raise problems.configuration(
                f"Expected a container's environment of names and single lines but {name[:64]!r} is something else"
            )
    return "".join(f"{name}={value}\n" for name, value in found.items())


def lifetime_of(given: Any) -> tuple[str, float]:
    """The cleanup and, when it is `eventually`, after how many seconds."""
    if not isinstance(given, dict):
        return "never", 0.0
    cleanup = str(given.get("cleanup", "never"))
    if cleanup != "eventually":
        return cleanup, 0.0
    now = int(time.time() * 1e6)
    try:
        return cleanup, (durations.due(given.get("after"), now) - now) / 1e6
    except ExpressionError as problem:
        raise problems.configuration(str(problem)) from None


def _mapping(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    value = arguments.get(name)
    return value if isinstance(value, dict) else {}


def _mountable(outside: str) -> str:
    """The name of a volume as it is; a path only when the operator's folder has it."""
    if "/" not in outside and not outside.startswith("."):
        return outside
    folder = configured().files_dir
    if folder:
        root = Path(folder).resolve()
        place = (root / outside).resolve()
        if place.is_relative_to(root):
            return str(place)
    raise problems.authorization(
        f"Expected a volume's name or a path below FLOWTRAIL_FILES_DIR but found {outside[:128]!r}"
    )


async def _client() -> str:
    """The client of an engine that answers. Raises TaskError."""
    for name in ENGINES:
        client = shutil.which(name)
        try:
            if client is not None and (await _perform([client, "version"], _ASK)).code == 0:
                return client
        except TaskError:
            log.warning("%s does not answer within %g s", name, _ASK.wall_s)
    raise problems.configuration(
        f"Expected a container engine ({' or '.join(ENGINES)}) that answers but there is none on this executor"
    )


async def _remove(client: str, label: str) -> None:
    """At the end of a task that is cancelled, too: the caller waits for it. What cannot be removed is logged."""
    await asyncio.shield(_remove_labelled(client, label))


async def _remove_labelled(client: str, label: str) -> None:
    try:
        found = await _perform([client, "ps", "--all", "--quiet", f"--filter=label={label}"], _ASK)
        numbers = found.stdout.decode("ascii", "replace").split()
        code = found.code
        if code == 0 and numbers:
            code = (await _perform([client, "rm", "--force", "--volumes", *numbers], _ASK)).code
        if code != 0:
            log.warning("the containers labelled %s could not be removed: code %d", label, code)
    except TaskError as problem:
        log.warning("the containers labelled %s could not be removed: %s", label, problem.detail)


async def _remove_later(client: str, label: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await _remove(client, label)


async def _perform(command: list[str], bounds: Bounds, stdin: bytes = b"") -> Ended:
    own = {name: value for name, value in os.environ.items() if not name.startswith("FLOWTRAIL_")}
    with tempfile.TemporaryDirectory(prefix="flowtrail-run-", ignore_cleanup_errors=True) as folder:
        return await supervised(
            command,
            name="the container" if command[1] == "run" else "the container engine",
            stdin=stdin,
            environment=own,
            folder=Path(folder),
            bounds=bounds,
        )
