"""The heap of due times equals a dictionary that is searched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.runtime.wakeups import Wakeups

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50), st.booleans()), max_size=600)


@given(STEPS)
def test_keys_are_woken_at_the_last_time_they_asked_for(steps: list[tuple[int, int, bool]]) -> None:
    found = Wakeups()
    wanted: dict[str, int] = {}
    for number, due, look in steps:
        if look:
            taken = found.take(due, 3)
            ready = sorted((at, key) for key, at in wanted.items() if at <= due)[:3]
            assert sorted(taken) == sorted(key for _, key in ready) or len(ready) == 3
            for key in taken:
                assert wanted.pop(key) <= due
        else:
            found.arm(f"k{number}", due)
            wanted.pop(f"k{number}", None)
            if due:
                wanted[f"k{number}"] = due
        assert len(found) == len(wanted)
        assert found.next == min(wanted.values(), default=0)


def test_arming_one_key_for_ever_takes_no_more_memory() -> None:
    found = Wakeups([("a", 1)])
    for due in range(1, 10_000):
        found.arm("a", due)
    assert len(found._heap) < 1000
