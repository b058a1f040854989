"""Architecture and tidiness as tests: what a reviewer would otherwise have to say every time."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from engine.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
ROOMS = (
    "schemas",
    "engine",
    "projections",
    "api",
    "replay",
    "cli",
    "stack",
    "bench",
    "sdk",
    "examples",
    "tests",
)
PURE = ("schemas", "engine/core", "engine/dsl")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "base", "manager", "managers", "common", "misc"}
CLOCKS = {
    "time",
    "time_ns",
    "monotonic",
    "now",
    "utcnow",
    "today",
    "perf_counter",
    "uuid4",
    "uuid1",
    "urandom",
}


@cache
def tracked() -> tuple[Path, ...]:
    """Files git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file())


def python_files(*folders: str) -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).as_posix().startswith(folders)]


def test_no_file_is_longer_than_500_lines() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in python_files(*ROOMS)
        if (n := len(p.read_text().splitlines())) > 500
    }
    assert long == {}


def test_no_function_is_longer_than_70_lines() -> None:
    long = {}
    for path in python_files(*ROOMS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 70:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_every_file_says_what_lives_in_it() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in python_files(
            "schemas", "engine", "projections", "api", "replay", "cli", "stack", "bench", "sdk"
        )
        if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(p) for p in tracked() if p.suffix == ".py" and p.stem in BANNED_NAMES] == []


def test_the_core_reads_no_clock_and_no_randomness() -> None:
    found = []
    for path in python_files(*PURE):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in CLOCKS
            ):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id in {
                    "time",
                    "datetime",
                    "date",
                    "uuid",
                    "os",
                    "random",
                }:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    documented = set(re.findall(rf"`{PREFIX}([A-Z_]+)`", text))
    assert {name.upper() for name in Settings.model_fields} <= documented


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    found = set()
    for path in python_files("engine", "projections", "api", "sdk", "replay"):
        found |= set(re.findall(r'"(flowtrail_[a-z_]+)"', path.read_text()))
    metrics = {name for name in found if not name.endswith(("_api", "_reader"))}
    assert {name for name in metrics if f"`{name}`" not in text and f"`{name}_total`" not in text} == set()


@pytest.mark.parametrize(
    "pattern",
    [
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "registry.npmjs" + ".org",
        "repo1.maven" + ".org",
        "repo.maven" + ".apache",
    ],
)
def test_no_file_names_a_package_registry(pattern: str) -> None:
    named = [str(p.relative_to(ROOT)) for p in tracked() if pattern.encode() in p.read_bytes()]
    assert named == []


def test_nothing_is_left_for_later_in_the_code() -> None:
    marks = re.compile(r"\b(TO" + "DO|FIX" + "ME|X" + "XX)\\b")
    found = [str(p.relative_to(ROOT)) for p in python_files(*ROOMS) if marks.search(p.read_text())]
    assert found == []


def test_every_problem_of_the_api_is_documented() -> None:
    from api.errors import ANSWERS

    text = (ROOT / "docs/problems.md").read_text()
    words = {slug for _, _, slug, _ in ANSWERS}
    for path in python_files("api"):
        words |= set(re.findall(r'slug="([a-z-]+)"', path.read_text()))
    assert {word for word in words if f"`{word}`" not in text} == set()


def test_every_rejection_code_of_the_engine_is_known_to_the_documentation() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    codes = set()
    for path in python_files("engine/core"):
        codes |= set(re.findall(r'_Refused\(\s*"([a-z-]+)"', path.read_text()))
    assert len(codes) >= 8
    assert {code for code in codes if f"`{code}`" not in text} == set()
