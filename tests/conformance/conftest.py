"""The real stack for the conformance features, once a session, and the words their steps are written in.

Engine, API, projections and executor are processes over real servers; the executor reaches a stand-in instead of the
public services (petstore.py). Steps are bound without regard to Given, When or Then: features use `And` freely.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from flowtrail import Client
from pytest_bdd import parsers, step

from tests.conformance import petstore
from tests.conformance.running import Scenario, assert_error, property_of, value_of
from tests.conftest import Servers
from tests.integration.api_process import Installed, installation, until

TASK = r"(?!the workflow )['\"]?(?P<name>[^'\"]+?)['\"]?"


@pytest.fixture(scope="session")
def installed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("conformance")
    with petstore.standing_in() as rewrite, installation(servers, folder / "data") as made:
        environment = made.environment() | {
            "FLOWTRAIL_API_URL": made.url,
            "FLOWTRAIL_HTTP_REWRITE": rewrite,
            "FLOWTRAIL_RUN_SHELL": "1",
            "FLOWTRAIL_RUN_SCRIPT": "1",
        }
        with (made.data / "executor.log").open("ab") as log:
            made.running["executor"] = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "executor", "run"], env=environment, stdout=log, stderr=log
            )
        performing = "worker .* performs .* of queue builtin"
        until(lambda: _said(made, performing), what="the executor to perform the queue builtin")
        yield made


def _said(made: Installed, pattern: str) -> bool:
    """Whether the executor's log has it. Raises AssertionError when the executor has ended."""
    text = (made.data / "executor.log").read_text()
    assert made.running["executor"].poll() is None, f"expected the executor to run but: {text[-2000:]}"
    return re.search(pattern, text) is not None


@pytest.fixture
def scenario(installed: Installed) -> Iterator[Scenario]:
    with Client(installed.url, installed.key) as client:
        yield Scenario(client)


# -- arrange and act ----------------------------------------------------------------------------------------------------


@step(parsers.re(r"(given )?a workflow with definition:?"))
def define(scenario: Scenario, docstring: str) -> None:
    scenario.definition = docstring


@step(parsers.re(r"(given )?the workflow input is:?"))
def give_input(scenario: Scenario, docstring: str) -> None:
    scenario.input = value_of(docstring)


@step("the workflow is executed")
def execute(scenario: Scenario) -> None:
    scenario.start()
    scenario.finish()


@step(parsers.re(rf"the workflow is cancelled while {TASK} runs"))
def cancel_while(scenario: Scenario, name: str) -> None:
    flow = scenario.start()
    last = f"/{name}"
    until(lambda: any(task.endswith(last) for task in flow.get()["active"]), what=f"{name} to run")
    flow.cancel("by a scenario")
    scenario.finish()


# -- the workflow -------------------------------------------------------------------------------------------------------


@step(parsers.re(r"the workflow should (?P<ending>complete|fault|cancel)"))
def workflow_ends(scenario: Scenario, ending: str) -> None:
    scenario.assert_status({"complete": "completed", "fault": "faulted", "cancel": "cancelled"}[ending])


@step(parsers.re(r"the workflow should complete with output:?"))
def workflow_output(scenario: Scenario, docstring: str) -> None:
    assert scenario.output == value_of(docstring)


@step(parsers.re(r"the workflow should fault with error:?"))
def workflow_error(scenario: Scenario, docstring: str) -> None:
    scenario.assert_status("faulted")
    assert_error(scenario.ended["error"], value_of(docstring))


@step(parsers.re(r"the workflow output should have propert(y|ies) (?P<paths>['\"].*)"))
def output_properties(scenario: Scenario, paths: str) -> None:
    named = re.findall(r"'([^']*)'|\"([^\"]*)\"", paths)
    assert named, f"expected quoted properties but found {paths}"
    for one, other in named:
        property_of(scenario.output, one or other)


@step(parsers.re(r"the workflow output should have an? ['\"](?P<path>.+)['\"] property with value:?"))
def output_property(scenario: Scenario, path: str, docstring: str) -> None:
    assert property_of(scenario.output, path) == value_of(docstring)


@step(
    parsers.re(
        r"the workflow output should have an? ['\"](?P<path>.+)['\"] property containing (?P<count>\d+) items?"
    )
)
def output_items(scenario: Scenario, path: str, count: str) -> None:
    found: Any = property_of(scenario.output, path)
    assert isinstance(found, list | dict), f"expected a collection at {path!r} but found {found!r}"
    assert len(found) == int(count), f"expected {count} items at {path!r} but found {found!r}"


# -- tasks --------------------------------------------------------------------------------------------------------------


@step(parsers.re(rf"{TASK} should run (?P<place>first|last)"))
def task_place(scenario: Scenario, name: str, place: str) -> None:
    scenario.assert_first(name) if place == "first" else scenario.assert_last(name)


@step(parsers.re(rf"{TASK} should run (?P<order>before|after) ['\"]?(?P<other>[^'\"]+?)['\"]?"))
def task_order(scenario: Scenario, name: str, order: str, other: str) -> None:
    scenario.assert_before(*((name, other) if order == "before" else (other, name)))


@step(parsers.re(rf"{TASK} should (?P<ending>complete|fault|cancel)"))
def task_ends(scenario: Scenario, name: str, ending: str) -> None:
    scenario.task_end(name, ending)


@step(parsers.re(rf"{TASK} should complete with output:?"))
def task_output(scenario: Scenario, name: str, docstring: str) -> None:
    assert scenario.task_view(name, "complete")["output"] == value_of(docstring)


@step(parsers.re(rf"{TASK} should fault with error:?"))
def task_error(scenario: Scenario, name: str, docstring: str) -> None:
    assert_error(scenario.task_view(name, "fault")["error"], value_of(docstring))
