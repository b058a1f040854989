"""Durations: what can be read, and when they end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dsl import durations
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Duration, Expression

SECOND = 1_000_000
DAY = 86_400 * SECOND


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("value", "months", "microseconds"),
    [
        ("PT15M", 0, 900 * SECOND),
        ("PT0.5S", 0, SECOND // 2),
        ("P1DT2H3M4S", 0, DAY + (2 * 3600 + 3 * 60 + 4) * SECOND),
        ("P2W", 0, 14 * DAY),
        ("P1Y2M", 14, 0),
        ("P0.5Y", 6, 0),
        ("P0.5M", 0, 15 * DAY),
        (" PT1S ", 0, SECOND),
        ({"seconds": 30}, 0, 30 * SECOND),
        ({"days": 1, "hours": 2, "minutes": 3, "seconds": 4, "milliseconds": 5}, 0, 93_784_005_000),
    ],
)
def test_a_duration_is_read(value: Any, months: int, microseconds: int) -> None:
    assert durations.read(value) == Duration(months, microseconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "1s",
        "PT-5S",
        "-PT5S",
        "P1S",
        "P9999Y",
        {},
        [],
        None,
        5,
        {"second": 1},
        {"seconds": "1"},
        {"seconds": 1.5},
        {"seconds": -1},
        {"seconds": True},
        {"days": 10**9},
    ],
)
def test_what_is_no_duration_is_refused_with_a_reason(value: Any) -> None:
    with pytest.raises(ExpressionError, match="Expected"):
        durations.read(value)


@pytest.mark.parametrize(
    ("start", "duration", "end"),
    [
        ("2024-01-31T12:00:00", "P1M", "2024-02-29T12:00:00"),
        ("2023-01-31T12:00:00", "P1M", "2023-02-28T12:00:00"),
        ("2024-02-29T00:00:00", "P1Y", "2025-02-28T00:00:00"),
        ("2024-11-30T00:00:00", "P3M", "2025-02-28T00:00:00"),
        ("2024-01-01T00:00:00", "P1M1D", "2024-02-02T00:00:00"),
        ("2024-03-30T23:30:00", "PT24H", "2024-03-31T23:30:00"),
    ],
)
def test_months_are_those_of_the_calendar(start: str, duration: str, end: str) -> None:
    assert durations.due(durations.read(duration), at(start)) == at(end)
    assert durations.due(duration, at(start)) == at(end)


def test_a_time_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ExpressionError, match="before the year 10000"):
        durations.due("P900Y", at("9500-01-01T00:00:00"))


def test_a_duration_with_an_expression_must_be_evaluated_first() -> None:
    expression = Expression(".", frozenset(), lambda value, _arguments: value)
    with pytest.raises(ExpressionError, match="evaluated"):
        durations.due(Duration(expression=expression), 0)


@given(
    st.integers(0, 4_000_000_000 * SECOND),
    st.integers(0, 1200),
    st.integers(0, 400 * DAY),
)
def test_nothing_ends_before_it_begins_and_exact_parts_are_exact(now: int, months: int, exact: int) -> None:
    end = durations.due(Duration(months, exact), now)
    assert end >= now + exact + months * 28 * DAY
    assert durations.due(Duration(0, exact), now) == now + exact
