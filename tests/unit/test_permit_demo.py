"""The demo's own rules that need no server: its directory, what counts as a difference, percentiles."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.demo import _generate, _refuse_inside
from cli.demo_installation import MARKER, prepare_folder
from cli.demo_run import Outcome, _differences, _share, _some, _verify
from engine.errors import InputError
from examples.permit.expected import count_branches
from stack.errors import Refused
from stack.state import Lock


def outcome(**changed: Any) -> Outcome:
    fine: dict[str, Any] = {
        "flows": 3,
        "completed": 2,
        "faulted": 1,
        "by_branch": {"a": 2, "b": 1},
        "expected_by_branch": {"a": 2, "b": 1},
        "flows_per_second": 1.0,
        "p50_ms": 1.0,
        "p99_ms": 1.0,
        "replay_verified": 3,
        "first_id": "f",
    }
    return Outcome(**fine | changed)


def test_all_is_well_when_every_flow_ended_where_it_was_expected() -> None:
    assert _differences(outcome()) == []


def test_a_flow_that_did_not_end_is_a_difference() -> None:
    assert _differences(outcome(completed=1)) == ["Expected 3 flows to end completed or faulted but 2 did"]


def test_a_branch_that_got_too_few_or_was_not_expected_is_a_difference() -> None:
    assert _differences(outcome(by_branch={"a": 1, "c": 2})) == [
        "Expected 2 flows on branch a but 1 took it",
        "Expected 1 flows on branch b but 0 took it",
        "Expected 0 flows on branch c but 2 took it",
    ]


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1, 100), (0, 1)])
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(share: float, value: int) -> None:
    assert _share(list(range(1, 101)), share) == value


class Told:
    """Stands in for the installation: `replay verify` says what it is told to."""

    def __init__(self, said: str, code: int = 0) -> None:
        self._done = subprocess.CompletedProcess((), code, said, "")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        assert argv == ("replay", "verify", "--all", "--json")
        return self._done


def verified(ours: int, code: int = 0, **said: Any) -> tuple[int, list[str]]:
    report = {"flows": 3, "verified": 3, "different": [], "read_model": {"different": []}} | said
    return _verify(Told(json.dumps(report), code), ours)  # type: ignore[arg-type]


def test_every_flow_verifies_when_replay_says_so() -> None:
    assert verified(3) == (3, [])


def test_what_replay_finds_wrong_is_told_and_not_counted_as_verified() -> None:
    finding = {"flow_id": "f", "text": "Expected sequence 2 but found 3"}
    ours, wrong = verified(3, 1, verified=2, different=[finding])
    assert ours == 2
    assert wrong == [
        "replay: f: Expected sequence 2 but found 3",
        "Expected 3 flows to verify by replay but 2 did",
    ]


def test_a_read_model_that_differs_is_told() -> None:
    ours, wrong = verified(3, 1, read_model={"different": [{"flow_id": "f", "text": "Expected a row"}]})
    assert (ours, wrong) == (3, ["read model: f: Expected a row"])


def test_a_flow_missing_from_the_log_is_not_verified() -> None:
    assert verified(4) == (3, ["Expected 4 flows to verify by replay but 3 did"])


def test_an_unverified_flow_is_never_hidden_by_an_earlier_runs() -> None:
    ours, wrong = verified(3, 1, flows=6, verified=5)
    assert ours == 2
    assert wrong[-1] == "Expected 3 flows to verify by replay but 2 did"


@pytest.mark.parametrize("said", ["", "no json", "[]", '{"flows": 3}'])
def test_a_replay_that_reports_nothing_verifies_nothing(said: str) -> None:
    ours, wrong = _verify(Told(said, 3), 3)  # type: ignore[arg-type]
    assert ours == 0
    assert "Expected `replay verify` to report but it ended with 3" in wrong[0]


def test_a_replay_that_ends_otherwise_than_well_is_a_difference() -> None:
    assert "it ended with 1" in verified(3, 1)[1][0]


def test_many_differences_are_counted_not_printed() -> None:
    assert _some([str(i) for i in range(25)])[-1] == "and 5 more"
    assert len(_some([str(i) for i in range(20)])) == 20


def test_each_run_begins_with_an_empty_directory(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    assert prepare_folder(data, keep=False) == 1
    (data / "old").write_text("x")
    assert prepare_folder(data, keep=False) == 1
    assert [path.name for path in data.iterdir()] == [MARKER]


def test_a_kept_directory_counts_its_runs(tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "demo", keep=True) == 1
    (tmp_path / "demo" / "old").write_text("x")
    assert prepare_folder(tmp_path / "demo", keep=True) == 2
    assert (tmp_path / "demo" / "old").exists()


def test_a_cluster_that_lies_elsewhere_goes_with_its_directory(tmp_path: Path) -> None:
    data, cluster = tmp_path / "demo", tmp_path / "elsewhere"
    prepare_folder(data, keep=False)
    cluster.mkdir()
    (data / "postgres").symlink_to(cluster)
    prepare_folder(data, keep=False)
    assert not cluster.exists()


def test_somebody_elses_directory_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InputError, match="choose another directory"):
        prepare_folder(tmp_path, keep=False)
    assert (tmp_path / "precious").exists()


def test_the_directory_of_a_running_demo_is_never_emptied(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "demo", keep=False)
    lock = Lock(tmp_path / "demo")
    lock.take()
    try:
        with pytest.raises(Refused, match="flowtrail down"):
            prepare_folder(tmp_path / "demo", keep=False)
    finally:
        lock.release()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Expected to be able to write"):
        prepare_folder(tmp_path / "file" / "demo", keep=False)


def test_an_input_in_the_directory_that_is_emptied_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside of the demo's own"):
        _refuse_inside(tmp_path / "demo" / "generated.xes.gz", tmp_path / "demo")
    _refuse_inside(tmp_path / "log", tmp_path / "demo")


def test_a_generated_log_has_as_many_cases_as_the_real_one_and_is_said_to_be_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(count_branches(_generate(tmp_path)).values()) == 1434
    assert "generated 1434 cases of the same shape (seed 1434)" in capsys.readouterr().err
