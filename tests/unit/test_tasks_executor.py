"""The executor: which queues and functions it serves, and how a task's JSON reaches a function."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from typing import Any

import pytest
from flowtrail.functions import Failure, Function, TaskContext

from engine.dsl.protocols import BUILTIN, PROCESSES
from engine.dsl.tasks_calls import BUILTIN_QUEUE, PROCESS_QUEUE
from engine.errors import InputError
from engine.settings import read_settings
from engine.tasks import executor, functions, networks, problems

CONTEXT = TaskContext("f", "/do/0/x", 1, 1, "demo/t@1.0.0", "builtin", "grpc")


def perform(function: Function, arguments: Any) -> Any:
    raw = json.dumps(arguments).encode()
    outcome = (
        asyncio.run(function.perform_async(raw, CONTEXT))
        if function.is_async
        else function.perform(raw, CONTEXT)
    )
    return json.loads(outcome) if isinstance(outcome, bytes) else outcome


def test_every_function_the_compiler_sends_to_an_executor_is_served() -> None:
    assert set(functions.TABLE[BUILTIN_QUEUE]) == set(BUILTIN)
    assert set(functions.TABLE[PROCESS_QUEUE]) == {f"run.{kind}" for kind in PROCESSES}


@pytest.mark.parametrize("queue", functions.TABLE)
def test_every_module_of_the_table_exists(queue: str) -> None:
    for module, _ in functions.TABLE[queue].values():
        assert importlib.util.find_spec(module) is not None, module


def test_processes_are_served_where_they_are_enabled() -> None:
    assert functions.queues(read_settings({})) == ["builtin"]
    assert functions.queues(read_settings({"FLOWTRAIL_RUN_SHELL": "1"})) == ["builtin", "process"]


def test_workers_have_every_function_and_kafkas_address_only_when_it_was_given() -> None:
    builtin, process = executor.workers(read_settings({"FLOWTRAIL_RUN_SCRIPT": "1"}), "key")
    assert set(builtin.functions) == set(functions.TABLE["builtin"])
    assert set(process.functions) == set(functions.TABLE["process"])
    assert builtin.kafka is None
    assert executor.workers(read_settings({"FLOWTRAIL_KAFKA": "k:1"}), "key")[0].kafka == "k:1"


def test_a_kind_that_is_not_enabled_fails_at_once() -> None:
    _, process = executor.workers(read_settings({"FLOWTRAIL_RUN_SCRIPT": "1"}), "key")
    outcome = perform(process.functions["run.shell"], {"command": "true", "arguments": ["a"]})
    assert isinstance(outcome, Failure)
    assert (outcome.type, outcome.status) == (problems.CONFIGURATION, 400)
    assert "FLOWTRAIL_RUN_SHELL" in str(outcome.detail)


def test_a_function_gets_all_of_its_arguments_whatever_their_names() -> None:
    async def later(arguments: dict[str, Any]) -> Any:
        return arguments

    def now(arguments: dict[str, Any]) -> Any:
        return arguments

    given = {"arguments": {"a": 1}, "method": "M", "__input__": {}}
    assert perform(Function("x", executor.accepting(later)), given) == given
    assert perform(Function("x", executor.accepting(now)), given) == given
    assert perform(Function("x", executor.accepting(now)), {}) == {}


@pytest.mark.parametrize(
    "rule", ["nonsense", "https://a", "https://a=ftp://b", "=http://b", "https://a:x=http://b"]
)
def test_a_rewrite_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(InputError, match="FLOWTRAIL_HTTP_REWRITE"):
        networks.rules(rule)


def test_the_longest_rewrite_rule_wins_and_ends_at_a_whole_segment() -> None:
    text = "https://a.example=http://b:1,https://a.example/v2=http://c:2/x"
    assert networks.rewritten("https://A.example:443/v2/pet?q=1", text) == "http://c:2/x/pet?q=1"
    assert networks.rewritten("https://a.example/v22", text) == "http://b:1/v22"
    assert networks.rewritten("http://a.example/v2", text) == "http://a.example/v2"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "100.64.0.1", "0.0.0.0", "224.0.0.1"],
)  # fmt: skip
def test_private_addresses_are_known_in_every_disguise(address: str) -> None:
    assert not networks.is_public(address)


def test_public_addresses_are_public() -> None:
    assert networks.is_public("8.8.8.8")
    assert networks.is_public("2606:4700::1111")
