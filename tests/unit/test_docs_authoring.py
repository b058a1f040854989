"""What docs/authoring.md shows works as it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flowtrail import FlowFunction, Worker, register

from engine.dsl.compile import compile_definition
from engine.dsl.source import parse
from tests.flows import Run

TEXT = (Path(__file__).parents[2] / "docs/authoring.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def names() -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "authoring"}
    exec(compile(PYTHON[0], "docs/authoring.md", "exec"), found)
    return found


def test_the_yaml_compiles() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert compile_definition(text).warnings == ()


def test_the_flow_runs_as_a_document_and_as_a_function(names: dict[str, Any]) -> None:
    order: FlowFunction[..., Any] = names["order"]
    definition = compile_definition(parse(order.yaml()))
    assert definition.warnings == ()
    data = {"customer": "ada", "items": ["book", "pen"], "price": 60.0}
    run = Run(definition)
    run.start(data)
    performed = 0
    while run.kinds[-1] != "FlowCompleted":
        if len(run.dispatched()) == performed:
            assert run.tick()
        for dispatched, task in zip(run.dispatched()[performed:], _tasks(run)[performed:], strict=True):
            _, function, arguments = dispatched
            run.complete(task.task, names[function](**arguments), task.run, task.attempt)
            performed += 1
    assert (
        run.output
        == order(**data)
        == {
            "receipt": "r-ada",
            "boxes": ["box of book", "box of pen"],
            "notified": True,
        }
    )
    assert performed == 5
    assert [queue for queue, function, _ in run.dispatched() if function == "charge"] == ["payments"]


def _tasks(run: Run) -> list[Any]:
    return [effect.task for effect in run.effects if hasattr(effect, "queue")]


def test_the_second_block_publishes_and_registers(names: dict[str, Any]) -> None:
    published: list[Any] = []

    class Taker:
        def publish(self, definition: Any) -> None:
            published.append(definition)

    exec(
        PYTHON[1],
        {**names, "client": Taker(), "Worker": Worker, "register": register, "print": published.append},
    )
    assert published == [names["order"].yaml(), names["order"]]


def test_registering_takes_the_functions_of_the_queue(names: dict[str, Any]) -> None:
    payments, others = Worker("payments"), Worker()
    register(payments, names["order"])
    register(others, names["order"])
    assert set(payments.functions) == {"charge"}
    assert set(others.functions) == {"pack", "notify"}
    assert payments.functions["charge"].call is names["charge"].function
