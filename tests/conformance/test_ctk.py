"""The specification's conformance kit, read in place: every scenario of the shared folder runs through the core.

The fast twin of test_features.py: no server but a stand-in for the public ones (petstore.py), which the executor's own
functions call. No scenario is passed over in silence.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flowtrail import TaskError
from ruamel.yaml import YAML

from engine.core.effects import Dispatch
from engine.dsl.compile import compile_definition
from engine.dsl.source import parse
from engine.settings import read_settings
from engine.tasks import functions
from engine.tasks.configured import configure
from engine.tasks.functions import Function
from schemas import messages as m
from tests.conformance.petstore import standing_in
from tests.flows import Run


@dataclass(frozen=True)
class Scenario:
    name: str
    definition: str
    input: Any
    output: Any
    error: Any
    first: str | None
    last: str | None


def _block(text: str, marker: str) -> str | None:
    found = re.search(marker + r':?\s*\n\s*"""(?:yaml|json)?\n(.*?)"""', text, re.DOTALL)
    return found[1] if found else None


def _yaml(text: str | None) -> Any:
    if text is None:
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    return YAML(typ="safe", pure=True).load("\n".join(line[indent:] for line in lines))


def _dedent(text: str) -> str:
    lines = text.splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:] for line in lines)


def scenarios(folder: Path) -> list[Scenario]:
    found = []
    for file in sorted(folder.glob("*.feature")):
        for part in re.split(r"^\s*Scenario:", file.read_text(), flags=re.MULTILINE)[1:]:
            name = part.splitlines()[0].strip()
            text = _block(part, r"definition")
            assert text is not None, name
            first = re.search(r"And (\w+) should run first", part)
            last = re.search(r"And (\w+) should run last", part)
            found.append(
                Scenario(
                    f"{file.stem}: {name}",
                    _dedent(text),
                    _yaml(_block(part, r"workflow input is")),
                    _yaml(_block(part, r"complete with output")),
                    _yaml(_block(part, r"fault with error")),
                    first[1] if first else None,
                    last[1] if last else None,
                )
            )
    return found


@pytest.fixture
def calls() -> Iterator[dict[str, Function]]:
    """The executor's functions, led to the stand-in."""
    with standing_in() as rewrite:
        configure(read_settings({"FLOWTRAIL_HTTP_REWRITE": rewrite}))
        yield {name: function for name, function in functions.of("builtin") if function is not None}
        configure(None)


async def play(run: Run, calls: dict[str, Function]) -> None:
    """Performs what the flow hands out, as an executor would, until it hands out nothing more."""
    seen = 0
    while seen < len(run.effects):
        effect, seen = run.effects[seen], seen + 1
        if not isinstance(effect, Dispatch):
            continue
        task = effect.task
        try:
            result = calls[task.function](json.loads(task.arguments))  # type: ignore[arg-type]
            output = await result if inspect.isawaitable(result) else result
        except TaskError as failed:
            error = m.Error(failed.type, failed.status, task.task, failed.title, failed.detail)
            run.send(m.FailTask(task.task, task.run, task.attempt, error))
        else:
            run.complete(task.task, output, task.run, task.attempt)


def test_every_scenario_of_the_conformance_kit(shared: Path, calls: dict[str, Function]) -> None:
    found = scenarios(shared / "spec/ctk")
    for scenario in found:
        run = Run(compile_definition(parse(scenario.definition)))
        run.start(scenario.input)
        asyncio.run(play(run, calls))
        if scenario.error is not None:
            error = run.error
            for name, value in scenario.error.items():
                assert getattr(error, name) == value, scenario.name
        elif scenario.output is not None:
            assert run.output == scenario.output, scenario.name
        else:
            assert run.kinds[-1] == "FlowCompleted", scenario.name
        names = [name for kind, name in run.tasks if kind == "TaskCompleted"]
        assert scenario.first in (None, *names[:1]), scenario.name
        assert scenario.last in (None, *names[-1:]), scenario.name
        run.verify()
    assert len(found) >= 9
    assert any("call: http" in scenario.definition for scenario in found)


@pytest.mark.parametrize("text", ["a:\n  b: 1"])
def test_blocks_are_read_as_yaml(text: str) -> None:
    assert _yaml(text) == {"a": {"b": 1}}
