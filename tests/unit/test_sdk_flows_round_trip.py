"""Flows written in Python run alike as a document and as plain Python.

Each document is performed by the core, every call answered by the very task function, every timer fired, and its output
compared with what the flow gives when it is simply called. The log of each also verifies.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flowtrail import InputError, TaskError
from flowtrail.flows import (
    FlowFunction,
    Retry,
    attempt,
    default,
    each,
    emit,
    flow,
    functions_of,
    let,
    not_,
    parallel,
    raise_error,
    size,
    task,
    wait,
    when,
)

from engine.core.effects import Dispatch
from engine.dsl.compile import compile_definition
from engine.dsl.model import Call
from engine.dsl.source import parse
from schemas import messages as m
from tests.flows import Run

DECLINED = "https://example.com/errors/declined"


@dataclass
class Order:
    customer: str
    amount: float
    items: list[str]


@task(queue="money", retries=2)
def charge(amount: float, currency: str = "EUR") -> dict[str, Any]:
    if amount > 1000:
        raise TaskError(DECLINED, 402, "Declined", "over the limit")
    return {"receipt": f"{amount} {currency}", "amount": amount}


@task()
def ship(item: str, number: int) -> dict[str, Any]:
    return {"item": item, "number": number, "box": item.upper()}


@task()
def notify(message: str) -> str:
    return f"sent: {message}"


@flow(namespace="test")
def one_call(amount: float, currency: str) -> Any:
    return charge(amount * 2, currency=currency)["receipt"]


@flow(namespace="test")
def choices(amount: float, least: float) -> Any:
    said = when(
        amount > 100,
        lambda: notify("much"),
        lambda: when(amount > least, lambda: "some", lambda: notify("little")),
    )
    return {"said": said, "amount": amount}


@flow(namespace="test")
def no_alternative(amount: float, least: float) -> Any:
    return [when(amount > least, lambda: notify("more")), amount]


@flow(namespace="test")
def loops(items: list[str], first: int) -> Any:
    boxes = each(items, lambda item, place: ship(item, place + first)["box"])
    return {"boxes": boxes, "count": size(items)}


@flow(namespace="test")
def nested_loops(rows: list[list[str]], first: int) -> Any:
    return each(rows, lambda row: each(row, lambda cell: ship(cell, first)["box"]))


@flow(namespace="test")
def choice_in_loop(numbers: list[int], least: int) -> Any:
    return each(
        numbers, lambda n: when(n > least, lambda: ship("big", n)["number"], lambda: let("small", n - least))
    )


@flow(namespace="test")
def branches(amount: float, note: str) -> Any:
    paid, sent = parallel(lambda: charge(amount), lambda: notify(note))
    return [paid["amount"], sent]


@flow(namespace="test")
def loop_in_branch(items: list[str], note: str) -> Any:
    boxes, sent = parallel(lambda: each(items, lambda item: ship(item, 1)["box"]), lambda: notify(note))
    return {"boxes": boxes, "sent": sent}


@flow(namespace="test")
def attempts(amount: float, note: str) -> Any:
    paid = attempt(lambda: charge(amount)["receipt"]).catch(
        lambda error: {"title": error.title, "status": error.status, "note": note}, type=DECLINED
    )
    wait("PT1M30S")
    return {"paid": paid, "again": notify(note)}


@flow(namespace="test")
def retried(amount: float, note: str) -> Any:
    return attempt(lambda: [charge(amount), note]).catch(status=402, retry=Retry(2))


@flow(namespace="test")
def typed(order: Order) -> Any:
    emit(
        "com.example.ordered",
        {"customer": order.customer},
        source="https://example.com/shop",
        subject=order.customer,
    )
    known = (order.amount >= 10) & not_(order.customer == "nobody")
    first = when(known, lambda: order.items[0], lambda: None)
    return {"first": default(first, "none"), "plan": [order.amount - 1, {"deep": order.amount / 2}]}


@flow(namespace="test")
def faulting(amount: float, least: float) -> Any:
    when(amount > least, lambda: raise_error(DECLINED, 402, "Declined"))
    return amount


@flow(namespace="test")
def constants(name: str, other: str) -> Any:
    return [notify("${ .no }"), notify('a "quoted" \\(text) ☃'), {"x": "${ .y }", "name": name}]


@flow(namespace="test")
def arithmetic(a: float, b: float) -> Any:
    return [a - (b - 1), -(a + b), (a + b) * 2, 2 - a, a / (b * 2), (a > b) | (a == b), -a - -b]


def order(customer: str) -> dict[str, Any]:
    return {"customer": customer, "amount": 12, "items": ["x", "y"]}


ROUND_TRIPS: list[tuple[FlowFunction[..., Any], dict[str, Any]]] = [
    (one_call, {"amount": 3, "currency": "USD"}),
    (choices, {"amount": 500, "least": 10}),
    (choices, {"amount": 50, "least": 10}),
    (choices, {"amount": 5, "least": 10}),
    (no_alternative, {"amount": 5, "least": 10}),
    (no_alternative, {"amount": 15, "least": 10}),
    (loops, {"items": ["a", "b", "c"], "first": 1}),
    (loops, {"items": [], "first": 1}),
    (nested_loops, {"rows": [["a", "b"], [], ["c"]], "first": 1}),
    (choice_in_loop, {"numbers": [1, 5, 2, 7], "least": 3}),
    (branches, {"amount": 7, "note": "begun"}),
    (loop_in_branch, {"items": ["a", "b"], "note": "begun"}),
    (attempts, {"amount": 8, "note": "n"}),
    (attempts, {"amount": 5000, "note": "n"}),
    (retried, {"amount": 8, "note": "n"}),
    (typed, order("Ada")),
    (typed, order("nobody")),
    (faulting, {"amount": 1, "least": 1}),
    (constants, {"name": "n", "other": ""}),
    (arithmetic, {"a": 3, "b": 4}),
]


def performed(of: FlowFunction[..., Any], data: dict[str, Any]) -> Run:
    """The flow's document run by the core, every call answered by its function, every timer fired."""
    definition = compile_definition(parse(json.dumps(of.document())))
    functions = {name: f for known in functions_of(of).values() for name, f in known.items()}
    run = Run(definition)
    run.start(data)
    while isinstance(run.state, m.LiveFlow):
        answered = False
        for active in list(run.state.active):
            found = definition.tasks[active.task]
            if isinstance(found, Call) and active.task in run.waiting and not active.due:
                _answer(run, functions[found.function], active)
                answered = True
                break
        assert answered or run.tick(), run.waiting
    return run


def _answer(run: Run, function: Callable[..., Any], active: m.ActiveTask) -> None:
    given = [e.task for e in run.effects if isinstance(e, Dispatch)]
    arguments = next(
        json.loads(t.arguments)  # type: ignore[arg-type]
        for t in reversed(given)
        if (t.task, t.run) == (active.task, active.run)
    )
    try:
        output = function(**arguments)
    except TaskError as error:
        told = m.Error(error.type, error.status, error.title, error.detail)
        run.fail(active.task, told, active.run, active.attempt)
    else:
        run.complete(active.task, output, active.run, active.attempt)


def plainly(of: FlowFunction[..., Any], data: dict[str, Any]) -> Any:
    return of(Order(**data)) if of is typed else of(**data)


@pytest.mark.parametrize(("of", "data"), ROUND_TRIPS, ids=lambda v: v.__name__ if callable(v) else str(v))
def test_the_document_gives_what_the_plain_function_gives(
    of: FlowFunction[..., Any], data: dict[str, Any]
) -> None:
    run = performed(of, data)
    assert run.output == plainly(of, data)
    run.verify()


@pytest.mark.parametrize("of", [faulting, retried], ids=lambda of: of.__name__)
def test_an_error_faults_both(of: FlowFunction[..., Any]) -> None:
    data = {"amount": 5000, "least": 1} if of is faulting else {"amount": 5000, "note": "n"}
    with pytest.raises(TaskError) as plain:
        of(**data)
    error = performed(of, data).error
    assert (error.type, error.status) == (plain.value.type, plain.value.status) == (DECLINED, 402)


@pytest.mark.parametrize("of", {of.id: of for of, _ in ROUND_TRIPS}.values(), ids=lambda of: of.id)
def test_yaml_and_json_are_one_definition_without_warnings(of: FlowFunction[..., Any]) -> None:
    from_yaml = compile_definition(parse(of.yaml()))
    assert from_yaml.hash == compile_definition(parse(json.dumps(of.document()))).hash
    assert [warning.message for warning in from_yaml.warnings] == []


def test_an_item_does_not_leave_its_loop() -> None:
    @flow(namespace="test")
    def leaking(items: list[str], note: str) -> Any:
        left: list[Any] = []
        each(items, lambda item: left.append(item) or notify(item))  # type: ignore[func-returns-value]
        return left[0]

    with pytest.raises(InputError, match="Expected"):
        leaking.document()
