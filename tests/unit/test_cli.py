"""The command line itself: fast help, clean errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from cli import main as cli_main
from engine.errors import AwayError

ROOT = Path(__file__).parents[2]


def flowtrail(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def noun(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A noun `trial` whose module is given a function `trial` by the test."""
    module = ModuleType("trial_noun")
    monkeypatch.setitem(sys.modules, "trial_noun", module)
    monkeypatch.setitem(cli_main.NOUNS, "trial", ("trial_noun", "trial", "A trial."))
    return module


def test_help_takes_no_longer_than_three_tenths_of_a_second() -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert flowtrail("--help").returncode == 0
        times.append(time.perf_counter() - began)
    assert min(times) <= 0.3, times


def test_help_lists_every_noun() -> None:
    text = flowtrail("--help").stdout
    for noun, (_, _, help_text) in cli_main.NOUNS.items():
        assert f"  {noun}" in text
        assert help_text in text


def test_help_imports_no_library() -> None:
    program = "import sys; from cli.main import run; run(['--help']); print('typer' in sys.modules or 'rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_no_word_at_all_shows_the_help_and_ends_with_2() -> None:
    done = flowtrail()
    assert done.returncode == 2
    assert "Usage: flowtrail" in done.stdout


def test_version_is_the_installed_one() -> None:
    done = flowtrail("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("flowtrail ")


def test_an_unknown_noun_ends_with_2_and_a_suggestion() -> None:
    done = flowtrail("flow")
    assert done.returncode == 2
    assert "but found 'flow'; did you mean flows?" in done.stderr


def test_a_module_that_is_absent_is_a_clean_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli_main.NOUNS, "trial", ("cli.no_such_module", "app", "A trial."))
    assert cli_main.run(["trial"]) == 2
    assert "cli.no_such_module is absent" in capsys.readouterr().err


def test_an_error_of_ours_ends_with_its_own_code(
    noun: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def trial() -> None:
        raise AwayError("Expected Kafka to answer but it does not")

    noun.trial = trial  # type: ignore[attr-defined]
    assert cli_main.run(["trial"]) == 3
    assert capsys.readouterr().err == "error: Expected Kafka to answer but it does not\n"


def test_a_defect_ends_with_70_and_one_line(noun: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def trial() -> None:
        raise ValueError("two\nlines")

    noun.trial = trial  # type: ignore[attr-defined]
    assert cli_main.run(["trial"]) == 70
    error = capsys.readouterr().err
    assert error == "error: ValueError: two lines (a defect; set FLOWTRAIL_TRACEBACK=1 for the traceback)\n"


def test_the_traceback_can_be_asked_for(
    noun: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial() -> None:
        raise ValueError("why")

    noun.trial = trial  # type: ignore[attr-defined]
    monkeypatch.setenv("FLOWTRAIL_TRACEBACK", "1")
    assert cli_main.run(["trial"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(noun: ModuleType) -> None:
    def trial() -> None:
        raise KeyboardInterrupt

    noun.trial = trial  # type: ignore[attr-defined]
    assert cli_main.run(["trial"]) == 130


def test_an_unknown_option_ends_with_2(noun: ModuleType) -> None:
    noun.trial = lambda: None  # type: ignore[attr-defined]
    assert cli_main.run(["trial", "--bogus"]) == 2
    assert cli_main.run(["trial"]) == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m cli.main --help | head -1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("up", "--ports", "some"), "Expected --ports to be default or auto but found 'some'"),
        (("up", "--engines", "0"), "greater than or equal to 1"),
        (("down", "--bogus"), "No such option"),
    ],
)
def test_bad_options_of_up_are_refused_before_anything_starts(
    words: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    done = flowtrail(*words, FLOWTRAIL_DATA=str(tmp_path / "data"))
    assert done.returncode == 2
    assert text in done.stderr
    assert not (tmp_path / "data").exists()


def test_status_of_nothing_ends_with_3_and_down_with_0(tmp_path: Path) -> None:
    done = flowtrail("status", "--data", str(tmp_path), "--json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert found["running"] is False
    assert found["processes"] == []
    done = flowtrail("down", "--data", str(tmp_path / "absent"), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["stopped"] is False
    assert not (tmp_path / "absent").exists()


def test_doctor_names_the_next_command_for_a_server_that_is_away(tmp_path: Path) -> None:
    away = {"FLOWTRAIL_KAFKA": "127.0.0.1:1", "FLOWTRAIL_POSTGRES": "postgresql://a:secret@127.0.0.1:1/a"}
    done = flowtrail("doctor", "--data", str(tmp_path), "--json", **away)
    assert done.returncode == 1
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["python"]["ok"]
    assert not found["kafka (FLOWTRAIL_KAFKA) answers"]["ok"]
    assert found["postgres (FLOWTRAIL_POSTGRES) answers"]["next_command"]
    assert "secret" not in done.stdout
    keys = flowtrail("doctor", "--data", str(tmp_path), FLOWTRAIL_POSTGRES="host=h password=secret").stdout
    assert "Expected FLOWTRAIL_POSTGRES to be postgresql://" in keys
    assert "secret" not in keys
    text = flowtrail("doctor", "--data", str(tmp_path), **away).stdout
    assert "python: OK" in text
    assert "  next: " in text
