"""Questions across recorded flows: the language, and what is made of the rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from engine.errors import InputError
from projections.search.answers import Reason, compare, counterfactual, drift, page
from projections.search.language import cursor_of, read_cursor, read_query, scoped, search


def asked(**query: Any) -> tuple[str, dict[str, Any]]:
    statement = search("p1", read_query(json.dumps(query).encode()))
    return statement.sql.decode(), statement.parameters


def test_a_query_becomes_one_statement_with_its_values_beside_it() -> None:
    sql, parameters = asked(
        flows={"rules": "7", "status": "failed", "attributes": {"user": "'; DROP TABLE"}},
        where=[
            {
                "observation": {
                    "candidate": "X",
                    "kept": False,
                    "reason": "price over cap",
                    "score": {"lt": 0.5},
                }
            },
            {"note": {"words": "late"}, "no": True},
        ],
        text="slow",
    )
    assert "DROP" not in sql
    assert "price" not in sql
    assert parameters["project"] == "p1"
    assert {
        "7",
        "failed",
        '{"user":"\'; DROP TABLE"}',
        "X",
        False,
        "price over cap",
        0.5,
        "late",
        "slow",
    } < set(parameters.values())
    assert sql.count("EXISTS (SELECT FROM flowtrail_trails.trail_observations") == 1
    assert "NOT EXISTS (SELECT FROM flowtrail_trails.trail_notes" in sql
    for name in parameters:
        assert f"%({name})s" in sql


def test_a_page_ends_with_the_cursor_of_the_next() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert read_cursor(cursor_of(at, "f", 2)) == (at, "f", 2)
    sql, parameters = asked(cursor=cursor_of(at, "f", 2), limit=1)
    assert "(f.first_at, f.flow_id, f.version) <" in sql
    assert parameters["after_at"] == at
    row = ("f", 1, "n", "completed", at, None, None, None, "{}", 1, 2, 1, 1, 0, 0)
    assert page([row, row], 1).next is not None
    assert page([row], 1).next is None
    assert bytes(page([row], 1).flows[0].attributes) == b"{}"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (b"[]", "Expected a query but"),
        (b"{", "Expected a query but"),
        (b'{"where":[{}]}', "at /where/0 but found none"),
        (b'{"where":[{"note":{"words":"a"},"error":{"type":"b"}}]}', "found note and error"),
        (b'{"where":[{"observation":{}}]}', "something to look for at /where/0/observation"),
        (b'{"flows":{"nmae":"x"}}', "unknown field"),
        (b'{"limit":0}', "Expected a limit from 1 to 500"),
        (b'{"cursor":"nonsense"}', "Expected the cursor of a page"),
        (json.dumps({"where": [{"note": {"words": "a"}}] * 11}).encode(), "at most 10 conditions"),
    ],
)
def test_what_is_no_query_is_told_with_its_place(query: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        search("p", read_query(query))


def test_an_aggregation_takes_the_same_conditions() -> None:
    statement = scoped("p1", read_query(b'{"flows":{"name":"pick"}}'), "reasons", by_day=False, limit=5)
    assert statement.sql.decode().startswith("WITH chosen AS")
    assert "f.name = %(p1)s" in statement.sql.decode()


def counts(step: str, kept: int, **dropped: int) -> list[Reason]:
    return [Reason(step, None, None, True, kept)] + [
        Reason(step, reason, None, False, count) for reason, count in dropped.items()
    ]


def test_drift_names_the_step_that_changed() -> None:
    before = counts("filter", 900, price=60, stock=40) + counts("rank", 50, low=50)
    after = counts("filter", 700, price=20, stock=280) + counts("rank", 51, low=49)
    first, second = drift(before, after)
    assert (first.step, first.keep_before, first.keep_after) == ("filter", 0.9, 0.7)
    assert first.z < -10
    assert first.psi > 0.25
    assert abs(second.z) < 1.96
    assert second.psi == 0
    assert drift([], after)[0].z == 0


def test_two_runs_are_compared_candidate_by_candidate() -> None:
    one = [("filter", 1, "a", True, None, 0.9), ("filter", 1, "b", False, "price", 0.2)]
    other = [
        ("filter", 1, "a", True, None, 0.9),
        ("filter", 1, "b", True, None, 0.8),
        ("filter", 1, "c", False, "new", 0),
    ]
    steps = (
        [("filter", 1, "completed", '["a"]', "best", 1.0)],
        [("filter", 1, "completed", '["b"]', "best", 2.0)],
    )
    found = compare(steps, (one, other), 10)
    assert (found.same, found.different) == (1, 2)
    assert [(d.candidate, d.one and d.one.kept, d.other and d.other.kept) for d in found.candidates] == [
        ("b", False, True),
        ("c", None, False),
    ]
    assert [(pair.step, pair.same) for pair in found.steps] == [("filter", False)]


def test_another_rule_lists_who_flips() -> None:
    rows = [
        ("f1", 1, "s1", "rank", 0, "a", True, None, 0.9, '{"price": 5}'),
        ("f1", 1, "s1", "rank", 1, "b", False, "low", 0.6, None),
        ("f2", 1, "s1", "rank", 0, "c", True, None, None, None),
    ]

    def rule(candidate: dict[str, Any]) -> bool | None:
        return None if candidate["score"] is None else candidate["score"] >= 0.5

    found = counterfactual(rows, rule, 10, cut=False)
    assert (found.judged, found.unjudged, found.now_kept, found.now_dropped, found.flows) == (2, 1, 1, 0, 1)
    assert [(flip.candidate, flip.was_kept) for flip in found.flips] == [("b", False)]
