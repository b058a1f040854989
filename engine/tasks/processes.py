"""`run: shell` and `run: script`: commands and scripts as subprocesses within the operator's limits.

The environment is what the task gives, a search path and UTF-8, the working directory a new one that is deleted afterwards. A
process that ends with another code than 0 is a runtime error, unless the task asked for its `code` or for `all`. What it
wrote is never part of an error. Containers are in containers.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from engine.tasks import problems
from engine.tasks.configured import configured
from engine.tasks.fetching import fetch
from engine.tasks.process_arguments import argv, environment_of, result_of, stdin_of, text
from engine.tasks.subprocesses import Bounds, Ended, supervised
from engine.tasks.uris import INPUT

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHILD: Final = Path(__file__).with_name("process_child.py")
_MODULE: Final = re.compile(r"^[ \t]*(?:import[\s{*\"']|export\s)", re.MULTILINE)
_OUT_OF_TIME: Final = 128 + signal.SIGXCPU


async def shell(arguments: dict[str, Any]) -> Any:
    """The function `run.shell`: `$1`, `$2`, ... are the arguments."""
    command = ["/bin/sh", "-c", text(arguments, "command"), "sh", *argv(arguments.get("arguments"))]
    with tempfile.TemporaryDirectory(prefix="flowtrail-run-", ignore_cleanup_errors=True) as folder:
        return result_of(await _limited(command, "as", arguments, Path(folder), "the command"), arguments)


async def script(arguments: dict[str, Any]) -> Any:
    """The function `run.script`."""
    language = arguments.get("language")
    source = arguments.get("source")
    if source is None:
        code = text(arguments, "code")
    else:
        endpoint = source.get("endpoint") if isinstance(source, dict) else source
        content = await fetch(endpoint, given=arguments.get(INPUT))
        try:
            code = content.decode()
        except UnicodeDecodeError:
            raise problems.configuration("Expected the script's source in UTF-8 but it is not") from None
    with tempfile.TemporaryDirectory(prefix="flowtrail-run-", ignore_cleanup_errors=True) as folder:
        command, kind = _interpreter(language, code, Path(folder))
        command = [*command, *argv(arguments.get("arguments"))]
        return result_of(await _limited(command, kind, arguments, Path(folder), "the script"), arguments)


def _interpreter(language: Any, code: str, folder: Path) -> tuple[list[str], str]:
    """The script written into `folder`: what performs it, and which limit bounds its memory."""
    if language == "python":
        place = folder / "script.py"
        command, kind = [sys.executable, "-I", "-B", str(place)], "as"
    elif language in ("js", "javascript"):
        node = shutil.which("node")
        if node is None:
            raise problems.configuration(
                "Expected node on the executor's PATH for a JavaScript script but there is none"
            )
        place = folder / ("script.mjs" if _MODULE.search(code) else "script.cjs")
        command, kind = [node, f"--max-old-space-size={configured().run_memory_mib}", str(place)], "data"
    else:
        raise problems.configuration(
            f"Expected a script of python or javascript but its language is {str(language)[:32]!r}"
        )
    place.write_bytes(code.encode("utf-8", "replace"))
    return command, kind


def guarded(command: Sequence[str], kind: str, output_max: int = 0) -> list[str]:
    """`command` with the operator's limits, led by its guard (process_child.py)."""
    settings = configured()
    memory = settings.run_memory_mib * 1024 * 1024
    limits = [str(os.getpid()), str(settings.run_cpu_s), str(memory), kind, str(output_max)]
    return [sys.executable, "-I", "-S", str(_CHILD), *limits, *command]


async def _limited(
    command: Sequence[str], kind: str, arguments: dict[str, Any], folder: Path, name: str
) -> Ended:
    settings = configured()
    ended = await supervised(
        guarded(command, kind),
        name=name,
        stdin=stdin_of(arguments.get("stdin")),
        environment={"PATH": PATH, "LANG": "C.UTF-8", **environment_of(arguments.get("environment"))},
        folder=folder,
        bounds=Bounds(settings.run_wall_s, settings.run_output_bytes_max),
    )
    if ended.code == _OUT_OF_TIME:
        raise problems.timeout(
            f"Expected {name} to use at most {settings.run_cpu_s} s of processor time but it uses more"
        )
    return ended
