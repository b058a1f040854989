"""Arguments to parameters, results and exceptions to outcomes: flowtrail.functions and flowtrail.payload, no I/O."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any, Optional

import msgspec
import pytest
from flowtrail.errors import RUNTIME, VALIDATION, InputError, TaskError
from flowtrail.functions import Failure, Function, TaskContext

CONTEXT = TaskContext("f1", "/do/0/charge", 1, 1, "demo/order@1.0.0", "default", "charge")


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]


class Address(msgspec.Struct):
    city: str
    since: dt.datetime | None = None


def performed(call: Callable[..., Any], arguments: object) -> Any:
    """The result as Python, or the Failure."""
    raw = arguments if isinstance(arguments, bytes) else json.dumps(arguments).encode()
    outcome = Function("f", call).perform(raw, CONTEXT)
    return outcome if isinstance(outcome, Failure) else json.loads(outcome)


def refusal(call: Callable[..., Any], arguments: object) -> str:
    failure = performed(call, arguments)
    assert isinstance(failure, Failure)
    assert (failure.type, failure.status) == (VALIDATION, 400)
    assert failure.detail is not None
    return failure.detail


def test_keys_of_the_arguments_become_parameters() -> None:
    def f(amount: float, currency: str = "EUR", *, paid: bool, note: Optional[str] = None) -> list[Any]:  # noqa: UP045
        return [amount, currency, paid, note]

    assert performed(f, {"amount": 3, "paid": True}) == [3.0, "EUR", True, None]
    assert performed(f, {"amount": 3.5, "paid": False, "note": None, "currency": "CHF"}) == [
        3.5,
        "CHF",
        False,
        None,
    ]


def test_records_lists_and_times_are_built_as_hinted() -> None:
    def f(order: Order, address: Address, tags: dict[str, list[int]]) -> list[Any]:
        assert isinstance(order, Order)
        assert isinstance(address, Address)
        assert isinstance(address.since, dt.datetime)
        return [order, address, tags]

    given = {
        "order": {"number": 1, "lines": ["a"]},
        "address": {"city": "Bern", "since": "2020-01-02T03:04:05Z"},
    }
    assert performed(f, given | {"tags": {"x": [1]}}) == [given["order"], given["address"], {"x": [1]}]


@pytest.mark.parametrize("whole", [{"number": 7, "lines": []}, {"lines": ["b"], "number": 8}])
def test_a_single_parameter_without_a_matching_key_gets_the_whole_value(whole: dict[str, Any]) -> None:
    def f(order: Order) -> Order:
        return order

    assert performed(f, whole) == whole
    assert performed(f, {"order": whole}) == whole


@pytest.mark.parametrize("value", [5, "text", None, True, [1, {"a": None}], {}, {"other": 1}, 1.5])
def test_any_json_value_reaches_a_single_untyped_parameter(value: object) -> None:
    assert performed(lambda data: data, value) == value


def test_a_single_positional_only_parameter_works_with_and_without_context() -> None:
    def alone(value: int, /) -> int:
        return value

    def together(value: int, /, context: TaskContext) -> list[Any]:
        return [value, context.attempt]

    assert performed(alone, 4) == 4
    assert performed(alone, {"value": 4}) == 4
    assert performed(together, 4) == [4, 1]


def test_a_default_stands_in_for_empty_arguments() -> None:
    def f(size: int = 3) -> int:
        return size

    assert [performed(f, {}), performed(f, None), performed(f, 4), performed(f, {"size": 5})] == [3, 3, 4, 5]


def test_the_context_is_given_by_its_annotation_wherever_it_stands() -> None:
    def first(context: TaskContext, a: int) -> list[Any]:
        return [context.flow_id, context.task, a]

    def keyword(a: int, *, where: TaskContext) -> list[Any]:
        return [where.definition, a]

    def whole(where: TaskContext, data: Any) -> list[Any]:
        return [where.run, data]

    assert performed(first, {"a": 1}) == ["f1", "/do/0/charge", 1]
    assert performed(keyword, {"a": 1}) == ["demo/order@1.0.0", 1]
    assert performed(whole, [1]) == [1, [1]]


def test_a_function_without_parameters_takes_nothing_and_refuses_nothing() -> None:
    assert performed(lambda: "done", {"anything": 1}) == "done"


def test_rest_takes_the_other_keys() -> None:
    def f(a: int, b: int = 2, **rest: object) -> list[Any]:
        return [a, b, rest]

    assert performed(f, {"a": 1, "c": 3, "d": [4]}) == [1, 2, {"c": 3, "d": [4]}]
    assert "Expected int but got str at $.a" in refusal(f, {"a": "x"})


def test_wrong_arguments_are_refused_with_their_place() -> None:
    def f(amount: int, order: Order) -> None: ...

    good = {"number": 1, "lines": []}
    assert refusal(f, {"amount": "3", "order": good}) == "Expected int but got str at $.amount"
    assert refusal(f, {"amount": 3, "order": {"number": 1, "lines": [2]}}) == (
        "Expected str but got int at $.order.lines[0]"
    )
    assert refusal(f, {"amount": 3}) == "Expected argument order but it is missing"
    assert (
        refusal(f, {"amount": 3, "order": good, "odd": 1})
        == "Expected arguments amount, order but found also odd"
    )
    assert refusal(f, [1]) == "Expected object but got array"


def test_a_wrong_time_is_refused() -> None:
    def f(when: dt.datetime) -> None: ...

    assert "datetime" in refusal(f, {"when": "yesterday"})


def test_what_a_function_raises_becomes_a_failure_with_type_and_message() -> None:
    def broken() -> None:
        raise LookupError("no such account")

    def exits() -> None:
        raise SystemExit(3)

    assert performed(broken, {}) == Failure(RUNTIME, 500, "LookupError", "no such account")
    assert performed(exits, {}) == Failure(RUNTIME, 500, "SystemExit", "3")


def test_a_task_error_lets_the_author_choose() -> None:
    def refused() -> None:
        raise TaskError("https://example.com/errors/declined", 402, "Declined", "the card has expired")

    assert performed(refused, {}) == Failure(
        "https://example.com/errors/declined", 402, "Declined", "the card has expired"
    )


@pytest.mark.parametrize(("type_", "status"), [("", 500), ("urn:x", 99), ("urn:x", 600)])
def test_a_task_error_that_cannot_be_meant_is_refused(type_: str, status: int) -> None:
    with pytest.raises(InputError, match="Expected a TaskError"):
        TaskError(type_, status)


def test_texts_of_errors_are_cleaned_and_cut() -> None:
    def surrogate() -> None:
        raise ValueError("bad \ud800 text")

    def endless() -> None:
        raise ValueError("x" * 100_000)

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def mute() -> None:
        raise Unspeakable

    assert performed(surrogate, {}).detail == "bad ? text"
    assert len(performed(endless, {}).detail) < 8300
    assert performed(mute, {}).title == "Unspeakable"


CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (float("nan"), "NaN or an infinite number"),
        ([{"x": float("inf")}], "NaN or an infinite number"),
        ({1, 2}, "a set"),
        ({"x": [frozenset()]}, "a set"),
        (object(), "a object"),
        ("\ud800", "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        ({(1, 2): 3}, "keys must be"),
        (CIRCULAR, "a reference to itself"),
        ("x" * 262_143, "at most 262144 bytes but got 262145"),
        (Order(1, [float("nan")]), "NaN"),  # type: ignore[list-item]
    ],
    ids=lambda value: (
        type(value).__name__ if not isinstance(value, str) else value[:20].encode("ascii", "replace").decode()
    ),
)
def test_a_result_that_json_cannot_hold_becomes_a_failure(result: object, text: str) -> None:
    failure = performed(lambda: result, {})
    assert isinstance(failure, Failure)
    assert (failure.type, failure.status, failure.title) == (RUNTIME, 500, "Wrong result")
    assert failure.detail is not None
    assert failure.detail.startswith("Expected a result")
    assert text in failure.detail


def test_a_coroutine_that_was_not_awaited_is_no_result() -> None:
    async def later() -> None: ...

    pending = later()
    assert "coroutine" in performed(lambda: pending, {}).detail
    pending.close()


@pytest.mark.parametrize(
    ("result", "json_text"),
    [
        (None, b"null"),
        ((1, 2), b"[1,2]"),
        (Order(1, ["é"]), '{"number":1,"lines":["é"]}'.encode()),
        (Address("Bern"), b'{"city":"Bern","since":null}'),
        (dt.datetime(2020, 1, 2, tzinfo=dt.UTC), b'"2020-01-02T00:00:00Z"'),
        (2**70, b"1180591620717411303424"),
        ("x" * 262_142, b'"' + b"x" * 262_142 + b'"'),
        ("\x00\u2028\U0001f600", '"\\u0000\u2028\U0001f600"'.encode()),
    ],
    ids=["none", "tuple", "dataclass", "struct", "time", "large", "limit", "nasty"],
)
def test_results_are_written_as_json(result: object, json_text: bytes) -> None:
    assert Function("f", lambda: result).perform(b"{}", CONTEXT) == json_text


def test_async_functions_are_awaited() -> None:
    async def f(a: int) -> int:
        await asyncio.sleep(0)
        if a < 0:
            raise ValueError("negative")
        return a + 1

    function = Function("f", f)
    assert function.is_async
    assert asyncio.run(function.perform_async(b'{"a":1}', CONTEXT)) == b"2"
    assert asyncio.run(function.perform_async(b'{"a":-1}', CONTEXT)) == Failure(
        RUNTIME, 500, "ValueError", "negative"
    )


def test_an_async_function_that_gives_itself_up_has_failed() -> None:
    async def f() -> None:
        raise asyncio.CancelledError("enough")

    assert asyncio.run(Function("f", f).perform_async(b"{}", CONTEXT)) == Failure(
        RUNTIME, 500, "CancelledError", "enough"
    )


def test_an_object_with_an_async_call_counts_as_async() -> None:
    class Charge:
        async def __call__(self, amount: int) -> int:
            return amount

    function = Function("charge", Charge())
    assert function.is_async
    assert asyncio.run(function.perform_async(b'{"amount":2}', CONTEXT)) == b"2"


def test_signatures_that_cannot_be_called_are_refused_at_registration() -> None:
    def many(*values: int) -> None: ...

    def positional(a: int, b: int, /) -> None: ...

    def unknown(a: NotDefined) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def impossible(a: int | Order | Address | dict[str, int]) -> None: ...

    for call, text in ((many, "values"), (positional, "'a'"), (unknown, "NotDefined"), (impossible, "hints")):
        with pytest.raises(InputError, match=f"^Expected .*{text}"):
            Function("f", call)
