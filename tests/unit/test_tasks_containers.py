"""run.container, with a program in the place of the engine's client: what it is asked for, what remains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flowtrail.errors import TaskError

from engine.settings import read_settings
from engine.tasks import configured, containers, problems
from engine.tasks.containers import container, lifetime_of
from engine.tasks.subprocesses import Bounds

CLIENT = """#!/bin/sh
echo "$@" >> {log}
for word in "$@"; do
  case $word in --env-file=*) given=$(/bin/cat "${{word#--env-file=}}") ;; esac
done
case $1 in
  version) {version} ;;
  ps) echo c0ffee ;;
  rm) exit {removal} ;;
  run) echo "$given; $FLOWTRAIL_SECRET_X$DOCKER_HOST; $(/bin/cat)"
    case $given in *LAST=sleep*) exec /bin/sleep 100 ;; esac
    exit {code} ;;
esac
"""


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    configured.configure(read_settings({"FLOWTRAIL_RUN_WALL_S": "20"}))
    yield
    configured.configure(None)


def client(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str = "docker",
    version: str = "exit 0",
    removal: int = 0,
    code: int = 0,
) -> Path:
    log = folder / f"{name}.log"
    program = folder / name
    program.write_text(CLIENT.format(log=log, version=version, removal=removal, code=code))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return log


def run(**arguments: Any) -> Any:
    return asyncio.run(container({"image": "alpine", **arguments}))


def refused(**arguments: Any) -> TaskError:
    with pytest.raises(TaskError) as found:
        run(**arguments)
    assert str(found.value.detail).startswith("Expected ")
    return found.value


def asked(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()]


def test_without_an_engine_that_answers_a_container_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(tmp_path, monkeypatch, version="exit 1")
    assert (refused().type, refused().status) == (problems.CONFIGURATION, 400)
    monkeypatch.setenv("PATH", "")
    assert refused().type == problems.CONFIGURATION


def test_an_engine_that_keeps_silent_leaves_it_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_ASK", Bounds(0.5, 65_536))
    client(tmp_path, monkeypatch, version="exec /bin/sleep 100")
    assert refused().type == problems.CONFIGURATION
    log = client(tmp_path, monkeypatch, name="podman")
    run()
    assert asked(log) == ["version", "run"]


def test_a_container_gets_everything_and_secrets_stay_off_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = client(tmp_path, monkeypatch)
    told = run(
        name="mine",
        command="cat",
        arguments=["Foo"],
        stdin="in",
        environment={"A": "s3cret", "N": 1},
        ports={"8080": 80},
        volumes={"data": "/data"},
        pullPolicy="never",
        lifetime={"cleanup": "always"},
    )
    assert told == "A=s3cret\nN=1; ; in\n"
    version, ran, listed, removed = log.read_text().splitlines()
    assert version == "version"
    words = ran.split()
    [label] = [word.removeprefix("--label=") for word in words if word.startswith("--label=")]
    rest = [word for word in words if not word.startswith(("--label=", "--env-file="))]
    assert " ".join(rest) == (
        "run --interactive --name=mine --pull=never --memory=512m --ulimit=cpu=30 --publish=8080:80 --volume=data:/data"
        " -- alpine sh -c cat sh Foo"
    )
    assert listed == f"ps --all --quiet --filter=label={label}"
    assert removed == "rm --force --volumes c0ffee"
    assert label.startswith("flowtrail.run=")


def test_the_containers_environment_is_not_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(tmp_path, monkeypatch)
    monkeypatch.setenv("FLOWTRAIL_SECRET_X", "hidden")
    given = {"DOCKER_HOST": "tcp://elsewhere", "PATH": "/nowhere"}
    assert run(environment=given) == "DOCKER_HOST=tcp://elsewhere\nPATH=/nowhere; ; \n"


@pytest.mark.parametrize("environment", [{"A": "two\nB=lines"}, {"#A": "x"}, {"A B": "x"}, {"A=B": "x"}])
def test_an_environment_that_a_file_cannot_tell_is_a_configuration_error(environment: dict[str, Any]) -> None:
    assert refused(environment=environment).type == problems.CONFIGURATION


def test_a_container_stays_unless_its_lifetime_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = client(tmp_path, monkeypatch)
    run()
    assert asked(log) == ["version", "run"]
    assert lifetime_of({"cleanup": "eventually", "after": {"minutes": 30}}) == ("eventually", 1800.0)


def test_a_container_may_be_removed_a_while_after_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = client(tmp_path, monkeypatch)

    async def removed() -> None:
        lifetime = {"cleanup": "eventually", "after": {"milliseconds": 50}}
        await container({"image": "alpine", "lifetime": lifetime})
        await asyncio.gather(*containers._removals)

    asyncio.run(removed())
    assert asked(log) == ["version", "run", "ps", "rm"]


def test_a_container_past_its_time_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = client(tmp_path, monkeypatch)
    configured.configure(read_settings({"FLOWTRAIL_RUN_WALL_S": "0.7"}))
    assert refused(environment={"LAST": "sleep"}).status == 408
    assert asked(log) == ["version", "run", "ps", "rm"]


def test_a_cancelled_task_removes_its_container_and_stays_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = client(tmp_path, monkeypatch, removal=1)

    async def begun_and_cancelled() -> None:
        task = asyncio.create_task(container({"image": "alpine", "environment": {"LAST": "sleep"}}))
        while not log.exists() or "run" not in asked(log):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.WARNING):
        asyncio.run(begun_and_cancelled())
    assert asked(log) == ["version", "run", "ps", "rm"]
    assert "could not be removed" in caplog.text


def test_what_cannot_be_removed_does_not_take_the_result_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client(tmp_path, monkeypatch, removal=1)
    with caplog.at_level(logging.WARNING):
        assert run(lifetime={"cleanup": "always"}) == "; ; \n"
    assert "could not be removed" in caplog.text


def test_an_image_that_cannot_be_run_is_a_configuration_error_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = client(tmp_path, monkeypatch, code=125)
    assert refused(name="somebody-elses", lifetime={"cleanup": "always"}).type == problems.CONFIGURATION
    assert asked(log) == ["version", "run"]


def test_a_path_of_this_machine_is_no_volume_but_below_the_folder_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = client(tmp_path, monkeypatch)
    for outside in ("/etc", "../x", "./x"):
        error = refused(volumes={outside: "/x"})
        assert (error.type, error.status) == (problems.AUTHORIZATION, 403)
    configured.configure(read_settings({"FLOWTRAIL_FILES_DIR": str(tmp_path)}))
    assert refused(volumes={"../x": "/x"}).status == 403
    run(volumes={"./data": "/x"})
    assert f"--volume={tmp_path}/data:/x" in log.read_text()
