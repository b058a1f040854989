"""Everything is killed with -9 at random while 3,000 flows run, the broker once too; nothing is lost or done twice.

The same as `flowtrail bench chaos`. Whole installation, real servers of its own.
"""

from __future__ import annotations

import pytest

from bench.chaos import run


@pytest.mark.timeout(420)
def test_flows_survive_kill_9_of_engines_worker_projections_and_broker() -> None:
    report = run(seconds=50, flows=3000, seed=7)
    assert sum(report["kills"].values()) >= 12, report
    assert report["kills"]["broker"] == 1
    for wrong in ("lost", "duplicated", "gaps", "broken_chains", "astray"):
        assert report[wrong] == 0, report
    assert report["verify_exit_code"] == 0, report
    assert report["verified"] == 3000, report
    assert report["events"] == 3000 * 8
