"""`--until`: a sequence number or a time, told apart by what can be meant."""

from __future__ import annotations

import pytest

from engine.errors import InputError
from replay.moment import Moment, parse_moment

NOON = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1", Moment(sequence=1)),
        ("100000", Moment(sequence=100_000)),
        ("2026-01-01T12:00:00Z", Moment(time=NOON)),
        ("2026-01-01 13:00:00+01:00", Moment(time=NOON)),
        ("2026-01-01t06:30:00.123456789-05:30", Moment(time=NOON + 123_456)),
        ("1767268800", Moment(time=NOON)),
        ("1767268800.5", Moment(time=NOON + 500_000)),
        ("1767268800123", Moment(time=NOON + 123_000)),
        ("1767268800123456", Moment(time=NOON + 123_456)),
    ],
)
def test_a_moment_is_read(text: str, moment: Moment) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "1.5",
        "yesterday",
        "2026-01-01",
        "2026-01-01T12:00:00",
        "2026-02-30T12:00:00Z",
        "2026-01-01T25:00:00Z",
        "1767268800123.5",
        "٣",
    ],
)
def test_what_is_no_moment_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InputError, match="Expected"):
        parse_moment(text)


def test_a_moment_includes_the_event_it_names() -> None:
    assert [Moment(sequence=2).includes(s, 0) for s in (1, 2, 3)] == [True, True, False]
    assert [Moment(time=2).includes(9, t) for t in (1, 2, 3)] == [True, True, False]
    assert str(Moment(sequence=2)) == "event 2"
    assert str(Moment(time=NOON)) == "2026-01-01T12:00:00.000000Z"
