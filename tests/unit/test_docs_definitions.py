"""The definitions that the documentation and the examples show: they compile, and decide what the text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.model import Approval, Call, Decide
from engine.tasks import functions

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
_HEAD = "document: { dsl: 1.0.3, namespace: docs, name: part, version: 1.0.0 }\ndo:\n"


def blocks(page: str) -> list[str]:
    found = _BLOCK.findall((ROOT / "docs" / page).read_text())
    return [text if text.startswith("document:") else _HEAD + re.sub("(?m)^", "  ", text) for text in found]


@pytest.mark.parametrize("page", ["extensions.md", "decision-tables.md", "calls.md"])
def test_every_definition_of_a_page_compiles(page: str) -> None:
    assert blocks(page)
    for text in blocks(page):
        assert compile_definition(text).warnings == ()


def test_every_built_in_function_has_its_section() -> None:
    headings = " ".join(re.findall("(?m)^## (.*)$", (ROOT / "docs/calls.md").read_text()))
    for name in [name for table in functions.TABLE.values() for name in table]:
        assert name.removeprefix("run.") in headings


def test_the_pages_definitions_have_what_their_text_says() -> None:
    tasks = {
        path: task
        for text in blocks("extensions.md")
        for path, task in compile_definition(text).tasks.items()
    }
    assert tasks["/do/0/charge"].compensate == "/do/0/charge/metadata/compensate"
    assert isinstance(tasks["/do/0/approve"], Approval)
    render, notify = tasks["/do/0/render"], tasks["/do/1/notify"]
    assert isinstance(render, Call)
    assert isinstance(notify, Call)
    assert (render.queue, render.priority, render.attempts) == ("video", "low", 5)
    assert render.heartbeat is not None
    assert [limit.concurrency for limit in render.limits] == [2]
    assert [(limit.rate, limit.per) for limit in notify.limits] == [(100, 60_000_000)]


@pytest.mark.parametrize(
    ("order", "output", "matched"),
    [
        (
            {"amount": 1500, "customer": {"country": "AT", "unpaid": 0}},
            {"percent": 10, "reason": "volume"},
            [2],
        ),
        (
            {"amount": 1500, "customer": {"country": "AT", "unpaid": 3}},
            {"percent": 0, "reason": "risk"},
            [1, 2],
        ),
        ({"amount": 150, "customer": {"country": "FR", "unpaid": 0}}, {"percent": 5, "reason": "none"}, [3]),
        (
            {"amount": 50, "customer": {"country": "US", "unpaid": 1, "years": 9}},
            {"percent": 2, "reason": "9 years"},
            [4],
        ),
        ({"amount": 5, "customer": {"country": "US", "unpaid": 1}}, {"percent": 0, "reason": "none"}, []),
    ],
)
def test_the_discount_example_decides(order: dict[str, object], output: object, matched: list[int]) -> None:
    definition = compile_definition((ROOT / "examples/decision/discount.yaml").read_text())
    task = definition.tasks["/do/0/discount"]
    assert isinstance(task, Decide)
    found, explanation = task.decide(order, {"input": order})
    assert found == output
    assert explanation["matched"] == matched
    assert [one["table"] for one in explanation["decisions"]] == ["risk"]
