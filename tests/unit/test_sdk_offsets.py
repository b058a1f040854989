"""Only the unbroken run of finished tasks is committed."""

from __future__ import annotations

from flowtrail.offsets import Offsets
from hypothesis import given
from hypothesis import strategies as st


def test_nothing_is_committed_while_the_first_task_runs() -> None:
    offsets = Offsets(0)
    for offset in (10, 11, 13):
        offsets.take(offset)
    offsets.done(11)
    offsets.done(13)
    assert offsets.advance() is None
    assert len(offsets) == 3


def test_gaps_of_the_log_are_no_gaps_of_the_work() -> None:
    offsets = Offsets(0)
    for offset in (10, 12, 15):
        offsets.take(offset)
    for offset in (12, 10):
        offsets.done(offset)
    assert offsets.advance() == 13
    offsets.committed = 13
    assert offsets.advance() is None
    offsets.done(15)
    assert offsets.advance() == 16
    assert len(offsets) == 0


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_whatever_the_order_a_commit_never_passes_an_unfinished_task(
    steps: list[int], random: object
) -> None:
    taken = [sum(steps[: i + 1]) for i in range(len(steps))]
    offsets = Offsets(0)
    for offset in taken:
        offsets.take(offset)
    finished: set[int] = set()
    order = list(taken)
    random.shuffle(order)  # type: ignore[attr-defined]
    for offset in order:
        offsets.done(offset)
        finished.add(offset)
        following = offsets.advance()
        if following is not None:
            assert all(t in finished for t in taken if t < following)
            offsets.committed = following
    assert offsets.committed == taken[-1] + 1
