"""run.shell and run.script: what a process gets, what it may not do, what comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flowtrail.errors import TaskError

from engine.settings import read_settings
from engine.tasks import configured, problems
from engine.tasks.processes import script, shell


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    configured.configure(
        read_settings({"FLOWTRAIL_RUN_WALL_S": "20", "FLOWTRAIL_RUN_OUTPUT_BYTES_MAX": "5000"})
    )
    yield
    configured.configure(None)


def limited(**given: str) -> None:
    configured.configure(
        read_settings({f"FLOWTRAIL_RUN_{name.upper()}": value for name, value in given.items()})
    )


def run_shell(command: str, **arguments: Any) -> Any:
    return asyncio.run(shell({"command": command, **arguments}))


def refused(function: Any, arguments: dict[str, Any]) -> TaskError:
    with pytest.raises(TaskError) as found:
        asyncio.run(function(arguments))
    return found.value


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(fulfilled: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not fulfilled():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_command_gets_its_input_and_its_arguments() -> None:
    command = 'input=$(cat)\necho "STDIN was: $input"\necho "ARGS are $1 $2"\n'
    told = run_shell(command, stdin="Hello World", arguments=["Foo", "B a'r"])
    assert told == "STDIN was: Hello World\nARGS are Foo B a'r\n"


def test_a_process_has_no_environment_but_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWTRAIL_SECRET_X", "hidden")
    told = run_shell("env", environment={"NAME": "value", "COUNT": 3})
    names = {line.split("=")[0] for line in told.splitlines()}
    assert (
        {"NAME", "COUNT", "PATH"} <= names <= {"LANG", "NAME", "COUNT", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    )
    assert "hidden" not in told


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("stdout", "out\n"),
        ("stderr", "err\n"),
        ("code", 0),
        ("all", {"code": 0, "stdout": "out\n", "stderr": "err\n"}),
        ("none", None),
    ],
)
def test_the_task_gets_what_it_asks_for(returned: str, expected: Any) -> None:
    assert run_shell("echo out; echo err >&2", **{"return": returned}) == expected


def test_a_code_other_than_0_is_an_error_unless_it_is_asked_for() -> None:
    error = refused(shell, {"command": "echo s3cret >&2; exit 3"})
    assert (error.type, error.status) == (problems.RUNTIME, 500)
    assert "3" in str(error.detail)
    assert "s3cret" not in str(error.detail)
    assert run_shell("exit 3", **{"return": "code"}) == 3
    assert run_shell("kill -9 $$", **{"return": "all"})["code"] == 137


def test_a_pipe_that_nobody_reads_any_more_ends_its_writer_as_in_any_shell() -> None:
    assert run_shell("yes | head -1", **{"return": "all"}) == {"code": 0, "stdout": "y\n", "stderr": ""}


def test_closed_outputs_do_not_keep_the_input_away(tmp_path: Path) -> None:
    run_shell(f"exec >&- 2>&-; cat > {tmp_path}/all", stdin="x" * 500_000)
    assert (tmp_path / "all").stat().st_size == 500_000


def test_what_a_process_leaves_behind_is_killed_with_it() -> None:
    began = time.monotonic()
    child = int(run_shell("sleep 100 & echo $!"))
    assert time.monotonic() - began < 10
    until(lambda: not is_alive(child))


def test_a_process_past_its_time_is_killed_with_its_children(tmp_path: Path) -> None:
    limited(wall_s="0.7")
    error = refused(shell, {"command": f"sleep 100 & echo $! > {tmp_path}/child; wait"})
    assert (error.type, error.status) == (problems.TIMEOUT, 408)
    number = int((tmp_path / "child").read_text())
    until(lambda: not is_alive(number))


def test_closed_outputs_do_not_hide_a_process_from_its_deadline() -> None:
    limited(wall_s="0.7")
    assert refused(shell, {"command": "exec >&- 2>&-; sleep 100"}).status == 408


def test_processor_time_is_limited() -> None:
    limited(cpu_s="1", wall_s="20")
    error = refused(shell, {"command": "while :; do :; done"})
    assert (error.type, error.status) == (problems.TIMEOUT, 408)
    assert "processor" in str(error.detail)


def test_output_is_limited() -> None:
    error = refused(shell, {"command": "yes"})
    assert error.type == problems.RUNTIME
    assert "5000 bytes" in str(error.detail)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "x = bytearray(900_000_000)\nprint(len(x))"),
        ("js", "const all = []; for (;;) all.push(Buffer.alloc(50_000_000, 1));"),
    ],
)
def test_memory_is_limited(language: str, code: str) -> None:
    limited(memory_mib="256", wall_s="20")
    assert asyncio.run(script({"language": language, "code": code, "return": "code"})) != 0


def test_input_that_nobody_reads_does_no_harm() -> None:
    assert run_shell("exec <&-; echo done", stdin="x" * 1_000_000) == "done\n"


def test_input_that_is_no_text_is_json() -> None:
    assert run_shell("cat", stdin={"a": [1, None]}) == '{"a": [1, null]}'


def test_a_cancelled_task_kills_its_process(tmp_path: Path) -> None:
    place = tmp_path / "child"

    async def begun_and_cancelled() -> None:
        task = asyncio.create_task(
            shell({"command": f"echo $$ > {place}.part; mv {place}.part {place}; sleep 100"})
        )
        while not place.exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(begun_and_cancelled())
    number = int(place.read_text())
    until(lambda: not is_alive(number))


def test_a_process_does_not_outlive_an_executor_that_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "child"
    command = f"sleep 100 & echo $! > {place}.part; mv {place}.part {place}; wait"
    code = f"import asyncio\nfrom engine.tasks.processes import shell\nasyncio.run(shell({{'command': {command!r}}}))"
    executor = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(place.exists)
    finally:
        executor.send_signal(signal.SIGKILL)
        executor.wait()
    number = int(place.read_text())
    until(lambda: not is_alive(number))


def test_the_working_directory_is_the_processs_own_and_goes_with_it() -> None:
    folder = run_shell("echo x > file; pwd").strip()
    assert folder != os.getcwd()
    assert not Path(folder).exists()


def test_a_script_of_python_gets_input_and_arguments() -> None:
    code = "import sys, os\nprint(sys.argv[1:], sys.stdin.read(), os.environ['A'], 'é')"
    arguments = {
        "language": "python",
        "code": code,
        "stdin": "in",
        "arguments": ["x"],
        "environment": {"A": "1"},
    }
    assert asyncio.run(script(arguments)) == "['x'] in 1 é\n"


def test_scripts_of_javascript_may_import_or_require() -> None:
    imports = (
        "// Reading\nimport { readFileSync } from 'node:fs';\nconst [_, __, arg] = process.argv;\n"
        "console.log(readFileSync(process.stdin.fd, 'utf8'), arg, process.env.foo)"
    )
    arguments = {
        "language": "javascript",
        "stdin": "in",
        "arguments": ["hello"],
        "environment": {"foo": "bar"},
    }
    assert asyncio.run(script({**arguments, "code": imports})) == "in hello bar\n"
    requires = "const fs = require('node:fs'); console.log(typeof fs.readFileSync)"
    assert asyncio.run(script({**arguments, "code": requires})) == "function\n"


def test_a_script_is_read_from_its_source(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("print('from a file')")
    source = {"endpoint": {"uri": f"file://{tmp_path}/{{name}}.py"}}
    told = asyncio.run(script({"language": "python", "source": source, "__input__": {"name": "s"}}))
    assert told == "from a file\n"


def test_a_language_nobody_speaks_is_a_configuration_error() -> None:
    error = refused(script, {"language": "cobol", "code": ""})
    assert (error.type, error.status) == (problems.CONFIGURATION, 400)


@pytest.mark.parametrize(
    "arguments", [{"arguments": ["a\0b"]}, {"environment": {"A=B": "x"}}, {"environment": {"A": "\0"}}]
)
def test_what_no_process_can_be_given_is_a_configuration_error(arguments: dict[str, Any]) -> None:
    assert refused(shell, {"command": "true", **arguments}).type == problems.CONFIGURATION
