"""The specification's conformance kit, read in place: every scenario of the shared folder runs through the core.

Scenarios that use what this version refuses must be refused with "not supported yet"; none is passed over in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.dsl.source import parse
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


def test_every_scenario_of_the_conformance_kit(shared: Path) -> None:
    ran, refused = [], []
    for scenario in scenarios(shared / "spec/ctk"):
        try:
            definition = compile_definition(parse(scenario.definition))
        except DefinitionError as refusal:
            problems = refusal.problems
        else:
            problems = []
        if problems:
            assert all("not supported yet" in p.message for p in problems), (scenario.name, problems)
            refused.append(scenario.name)
            continue
        run = Run(definition)
        run.start(scenario.input)
        if scenario.error is not None:
            error = run.error
            for name, value in scenario.error.items():
                assert getattr(error, name) == value, scenario.name
        else:
            assert run.output == scenario.output, scenario.name
        names = [name for kind, name in run.tasks if kind == "TaskCompleted"]
        assert scenario.first in (None, *names[:1]), scenario.name
        assert scenario.last in (None, *names[-1:]), scenario.name
        run.verify()
        ran.append(scenario.name)
    assert len(ran) >= 6
    assert all("http" in definition_text(shared, name) for name in refused), refused


def definition_text(shared: Path, name: str) -> str:
    return next(s.definition for s in scenarios(shared / "spec/ctk") if s.name == name)


@pytest.mark.parametrize("text", ["a:\n  b: 1"])
def test_blocks_are_read_as_yaml(text: str) -> None:
    assert _yaml(text) == {"a": {"b": 1}}
