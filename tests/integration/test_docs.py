"""What README and docs/ show is run: the files they print, the commands on them, the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.installation import Installation
from tests.integration.engines import wait_for

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(text: str, language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[number]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(workers=0) as found:
        folder = tmp_path_factory.mktemp("readme")
        (folder / "order.yaml").write_text(block(README, "yaml"))
        (folder / "tasks.py").write_text(block(README, "python"))
        found.environment["FOLDER"] = str(folder)
        published = found.run("definitions", "publish", str(folder / "order.yaml"))
        assert published.returncode == 0, published.stderr
        found.processes.start(
            "readme", "worker", "run", f"{folder / 'tasks.py'}:worker", "--instance", "readme"
        )
        yield found


@pytest.mark.parametrize(("amount", "reviewed"), [(30, None), (3000, True)])
def test_the_readme_s_definition_and_worker_run(
    installation: Installation, amount: int, reviewed: bool | None
) -> None:
    given = json.dumps({"amount": amount})
    started = installation.run("flows", "start", "demo/order", "--input", given, "--wait", "--json")
    assert started.returncode == 0, started.stderr
    flow = json.loads(started.stdout)
    assert flow["status"] == "completed"
    assert flow["output"].get("reviewed") is reviewed
    rebuilt = installation.run("replay", "flow", flow["id"], "--until", "3", "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert json.loads(rebuilt.stdout)["sequence"] == 3


def test_everything_verifies_afterwards(installation: Installation) -> None:
    verified = installation.run("replay", "verify", "--all", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_upstream_example_starts_a_flow(installation: Installation) -> None:
    code = block((ROOT / "docs/kafka.md").read_text(), "python")
    names = {
        "API_URL": installation.api_url,
        "API_KEY": installation.api_key,
        "KAFKA": installation.kafka,
    }
    exec(compile(code, "docs/kafka.md", "exec"), names)

    def ended() -> bool:
        found = installation.run("flows", "get", "order-4711", "--json")
        return found.returncode == 0 and json.loads(found.stdout)["status"] == "completed"

    wait_for(ended, what="the flow of the upstream system to complete")


def test_commands_find_the_stack_that_up_started(tmp_path: Path) -> None:
    """As README has it: after `up`, no address and no password is given to any command."""
    environment = {
        n: v for n, v in os.environ.items() if not n.startswith("FLOWTRAIL_") or n == "FLOWTRAIL_CACHE"
    }

    def flowtrail(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", *argv]
        path = {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    (tmp_path / "set.yaml").write_text(
        "document: {dsl: '1.0.3', namespace: demo, name: set, version: '1.0.0'}\ndo: [{a: {set: {x: 1}}}]\n"
    )
    up = flowtrail("up", "--detach", "--ports", "auto")
    try:
        assert up.returncode == 0, up.stderr
        for argv in (
            ("definitions", "publish", "set.yaml"),
            ("flows", "start", "demo/set", "--id", "one", "--wait"),
            ("flows", "history", "one"),
            ("replay", "flow", "one", "--until", "2"),
            ("replay", "verify", "--all"),
            ("projections", "status"),
            ("admin", "keys", "list"),
            ("status",),
            ("doctor",),
        ):
            done = flowtrail(*argv)
            assert done.returncode == 0, (argv, done.stdout, done.stderr)
    finally:
        down = flowtrail("down")
    assert down.returncode == 0, down.stderr


def test_every_link_of_readme_and_docs_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "sdk/README.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
