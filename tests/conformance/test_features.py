"""The official Gherkin features, in the folder FLOWTRAIL_CTK, and our own, through the public API on the real stack.

Our own features use every step of the kit's vocabulary, so that a step that says nothing is found here. The fast twin of
this file is test_ctk.py, which runs the kit through the core alone. Invariant: no scenario of the folder is passed over.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from pytest_bdd import scenarios

from tests.conformance.running import keys_of, property_of

HERE = Path(__file__).parent
OWN = HERE / "features"
KIT = Path(os.environ.get("FLOWTRAIL_CTK", HERE.parents[2] / "shared" / "spec" / "ctk"))
SCENARIO = re.compile(r"^(\s*Scenario(?: Outline| Template)?:)(.*)$", re.MULTILINE)


def names_in(text: str) -> list[str]:
    return [name.strip() for _, name in SCENARIO.findall(text)]


def distinct(text: str) -> str:
    """The feature with a number behind each name that came before: pytest-bdd runs one scenario of a name only."""
    seen: Counter[str] = Counter()

    def numbered(found: re.Match[str]) -> str:
        name = found[2].strip()
        seen[name] += 1
        return f"{found[1]} {name} ({seen[name]})" if seen[name] > 1 else found[0]

    return SCENARIO.sub(numbered, text)


def prepared(folder: Path) -> Path:
    """The folder itself, or a copy of its features when names repeat in one."""
    features = sorted(folder.rglob("*.feature"))
    if all(distinct(file.read_text()) == file.read_text() for file in features):
        return folder
    copy = Path(tempfile.mkdtemp(prefix="flowtrail-ctk-"))
    for file in features:
        target = copy / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(distinct(file.read_text()))
    return copy


if any(KIT.rglob("*.feature")):
    scenarios(str(prepared(KIT).resolve()))
scenarios(str(OWN))


def test_no_scenario_of_the_kit_is_passed_over() -> None:
    """Everything in the folder became a test of this file."""
    if not KIT.is_dir():
        pytest.skip(f"needs the conformance kit ({KIT} is absent)")
    written = [name for file in KIT.rglob("*.feature") for name in names_in(file.read_text())]
    bound = [found for found in globals().values() if getattr(found, "__name__", "") == "scenario_wrapper"]
    own = [name for file in OWN.rglob("*.feature") for name in names_in(file.read_text())]
    assert written, f"expected features in {KIT}"
    assert len(bound) == len(written) + len(own)


def test_repeated_names_become_distinct() -> None:
    text = "Feature: f\n  Scenario: a\n  Scenario: b\n  Scenario: a\n"
    assert names_in(distinct(text)) == ["a", "b", "a (2)"]


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("a", ["a"]),
        ("a.b", ["a", "b"]),
        ("a[0].b", ["a", 0, "b"]),
        ('a."b.c"', ["a", "b.c"]),
        ("[1]", [1]),
        ("$.a", ["a"]),
    ],
)
def test_a_property_s_path_is_read(path: str, keys: list[str | int]) -> None:
    assert keys_of(path) == keys


def test_a_property_that_is_absent_is_said() -> None:
    assert property_of({"a": [{"b": None}]}, "a[0].b") is None
    with pytest.raises(AssertionError, match=r"expected 'a\.c'"):
        property_of({"a": {"b": 1}}, "a.c")
