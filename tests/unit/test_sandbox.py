"""The expression sandbox as a process: its limits are kept, and it works again afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import orjson
import pytest

from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import compile_expression
from engine.tasks.sandbox import ProcessSandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    made = ProcessSandbox(deadline_ms=400)
    yield made
    made.close()


def test_a_result_comes_back_as_jq_gives_it(sandbox: ProcessSandbox) -> None:
    assert sandbox.evaluate(". * $n", ("n",), b"2", b'{"n": 21}') == b"42"
    assert (
        sandbox.evaluate('{b: .x, a: "\xe9"}', (), b'{"x": [1.5, null]}', b"{}")
        == '{"b":[1.5,null],"a":"é"}'.encode()
    )
    assert sandbox.evaluate("empty", (), b"1", b"{}") == b"null"


def test_large_data_pass_both_ways(sandbox: ProcessSandbox) -> None:
    value = orjson.dumps(["x" * 1000] * 2000)
    assert sandbox.evaluate(".", (), value, b"{}") == value


@pytest.mark.parametrize(
    ("program", "value", "message"),
    [
        ("def f: f; f", b"null", "Expected a result within 400 ms but the expression took longer"),
        ("last(range(1e9))", b"null", "within 400 ms"),
        ("def f: 1 + f; f", b"null", "nests too deeply or needs more than 256 MiB of memory"),
        ("tonumber", orjson.dumps("[" * 200_000), "nests too deeply"),
        ("[range(1e9)]", b"null", ""),
        ('"a" * 1000000000 | length', b"null", "256 MiB of memory"),
        ("range(3)", b"null", "Expected one result but the expression gave 3"),
        ("0 / 0", b"null", "the expression gave nan"),
        (".a", b"[1]", 'cannot index [1] with "a"'),
        ('"x" * 5000000', b"null", "Expected a result of at most 4194304 bytes"),
        ("[range(9)] | error", b"null", "[0,1,2,3,4,5,6,7,8]"),
    ],
)
def test_whatever_a_program_does_is_an_error_in_time_and_the_next_one_works(
    sandbox: ProcessSandbox, program: str, value: bytes, message: str
) -> None:
    sandbox.evaluate(".", (), b"1", b"{}")  # so that starting a child is not measured
    began = time.monotonic()
    with pytest.raises(ExpressionError) as caught:
        sandbox.evaluate(program, (), value, b"{}")
    assert time.monotonic() - began < 3
    assert message in str(caught.value)
    assert sandbox.evaluate("1 + 1", (), b"null", b"{}") == b"2"


def test_a_program_sees_no_environment_even_without_the_guard(
    sandbox: ProcessSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWTRAIL_SECRET", "x")
    environment = orjson.loads(sandbox.evaluate("env", (), b"null", b"{}"))
    assert "FLOWTRAIL_SECRET" not in environment
    assert "PATH" not in environment


def test_threads_share_the_sandbox(sandbox: ProcessSandbox) -> None:
    results: dict[int, bytes] = {}

    def ask(number: int) -> None:
        results[number] = sandbox.evaluate("[limit(3; repeat($n))]", ("n",), b"null", b'{"n": %d}' % number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: b"[%d,%d,%d]" % (number, number, number) for number in range(8)}


def test_a_child_killed_by_somebody_else_is_replaced_without_an_error(sandbox: ProcessSandbox) -> None:
    sandbox.evaluate(".", (), b"1", b"{}")
    assert sandbox._child is not None
    os.kill(sandbox._child.pid, signal.SIGKILL)
    assert sandbox.evaluate("1 + 1", (), b"null", b"{}") == b"2"


def test_a_killed_child_during_an_evaluation_is_asked_again(sandbox: ProcessSandbox) -> None:
    sandbox.evaluate(".", (), b"1", b"{}")
    child = sandbox._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    timer = threading.Timer(0.1, child.kill)
    timer.start()
    assert sandbox.evaluate("1 + 1", (), b"null", b"{}") == b"2"
    timer.join()


def test_closing_ends_the_child_and_may_be_repeated() -> None:
    own = ProcessSandbox()
    own.close()
    own.evaluate(".", (), b"1", b"{}")
    child = own._child
    assert child is not None
    own.close()
    own.close()
    assert child.poll() is not None


def test_an_expression_that_needs_it_runs_in_the_sandbox(sandbox: ProcessSandbox) -> None:
    expression = compile_expression("[limit(2; repeat($context.a))]", frozenset({"context"}), sandbox)
    assert expression.evaluate(None, {"context": {"a": "x"}}) == ["x", "x"]
    with pytest.raises(ExpressionError, match="within 400 ms"):
        compile_expression("def f: f; f", frozenset(), sandbox).evaluate(None, {})
