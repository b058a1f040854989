"""What run.shell, run.script and run.container have in common: arguments, environment and input of a process, its result.

Pure. A process that ends with another code than 0 is a runtime error, unless the task asked for its `code` or for `all`;
what it wrote is never part of an error.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from engine.tasks import problems
from engine.tasks.subprocesses import Ended
from engine.tasks.uris import text_of

_NAME: Final = re.compile(r"[^=\0]+")


def text(arguments: dict[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise problems.configuration(f"Expected text as {name!r} of a process but found something else")
    return value


def argv(given: Any) -> list[str]:
    """A list as it is; of a mapping its values, in its order."""
    values = given.values() if isinstance(given, dict) else given if isinstance(given, list) else []
    return [written(value) for value in values]


def environment_of(given: Any) -> dict[str, str]:
    found = {}
    for name, value in (given if isinstance(given, dict) else {}).items():
        if _NAME.fullmatch(name) is None:
            raise problems.configuration(
                f"Expected the name of an environment variable but found {name[:64]!r}"
            )
        found[name] = written(value)
    return found


def stdin_of(value: Any) -> bytes:
    """Text as it is, nothing for null, anything else as JSON."""
    return b"" if value is None else written(value).encode("utf-8", "replace")


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else text_of(value)


def result_of(ended: Ended, arguments: dict[str, Any]) -> Any:
    """What the task's `return` names."""
    returned = arguments.get("return") or "stdout"
    stdout, stderr = ended.stdout.decode("utf-8", "replace"), ended.stderr.decode("utf-8", "replace")
    if returned == "code":
        return ended.code
    if returned == "all":
        return {"code": ended.code, "stdout": stdout, "stderr": stderr}
    if ended.code != 0:
        raise problems.runtime(
            f"Expected the process to end with code 0 but it is {ended.code}; `return: all` gives what it wrote"
        )
    return {"stdout": stdout, "stderr": stderr}.get(returned)
