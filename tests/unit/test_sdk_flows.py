"""Flows written in Python: what is recorded, what is refused, and with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import httpx2
import pytest
from flowtrail import (
    Client,
    FlowFunction,
    InputError,
    Retry,
    TaskContext,
    TaskError,
    Worker,
    attempt,
    call,
    default,
    each,
    emit,
    flow,
    functions_of,
    let,
    listen,
    parallel,
    raise_error,
    register,
    size,
    task,
    wait,
    when,
)

from engine.dsl.compile import compile_definition
from engine.dsl.source import parse
from tests.flows import Run


@task()
def work(x: Any) -> Any:
    return x


@task(queue="money", priority="high", timeout=timedelta(seconds=30), heartbeat="PT5S", concurrency=2)
def charge(context: TaskContext, amount: float, currency: str = "EUR") -> dict[str, Any]:
    return {"receipt": context.flow_id, "amount": amount, "currency": currency}


def made(function: Callable[..., Any], **how: Any) -> FlowFunction[..., Any]:
    return flow(namespace="test", name="made", **how)(function)


def steps(function: Callable[..., Any], **how: Any) -> Any:
    """The tasks of the document, which compiles."""
    document = made(function, **how).document()
    assert compile_definition(document).warnings == ()
    return document["do"]


def refused(function: Callable[..., Any]) -> str:
    with pytest.raises(InputError) as problem:
        made(function).document()
    return str(problem.value)


# -- what is recorded ---------------------------------------------------------------------------------------------------


def test_a_call_has_its_arguments_by_name_and_its_settings() -> None:
    def run(amount: float, other: int) -> Any:
        charge(amount, currency="USD")  # type: ignore[call-arg, arg-type, misc]

    assert steps(run) == [
        {
            "charge": {
                "call": "charge",
                "with": {"amount": "${ .input.amount }", "currency": "USD"},
                "timeout": {"after": {"seconds": 30}},
                "metadata": {
                    "priority": "high",
                    "concurrency": 2,
                    "heartbeat": "PT5S",
                    "queue": "money",
                },
                "output": {"as": "${ $input }"},
            }
        }
    ]


def test_the_document_s_queue_is_not_repeated() -> None:
    document = made(lambda: charge(amount=1), queue="money").document()
    assert document["document"]["metadata"] == {"queue": "money"}
    assert "queue" not in document["do"][0]["charge"]["metadata"]


def test_only_results_that_something_reads_are_kept() -> None:
    def run(x: int) -> Any:
        work(x)
        return work(2)

    first, second = steps(run)
    assert first["work"]["output"] == {"as": "${ $input }"}
    assert second["work_2"]["output"] == {"as": "${ $input + {work_2: .} }"}


def test_names_are_what_jq_reads_and_each_occurs_once() -> None:
    @task(name="if")
    def odd(x: int) -> int:
        return x

    def run(x: int) -> Any:
        return [odd(1), odd.named("strange name!")(2), odd.named("input")(3), odd.named("7")(4)]

    names = [name for step in steps(run) for name in step]
    assert names == ["if_2", "strange_name_", "input_2", "_7"]


def test_the_types_of_the_parameters_are_the_schema_of_the_input() -> None:
    def run(n: int, texts: list[str], most: int = 5) -> Any:
        return most

    flow_ = made(run)
    definition = compile_definition(flow_.document())
    assert definition.input.schema is not None
    assert definition.input.schema.problem({"n": 1, "texts": []}) is None
    assert "texts" in (definition.input.schema.problem({"n": 1}) or "")
    for given, least in (({"n": 1, "texts": []}, 5), ({"n": 1, "texts": [], "most": 7}, 7)):
        running = Run(definition)
        running.start(given)
        assert running.output == least


def test_records_and_dates_may_stand_in_arguments() -> None:
    @dataclass
    class Place:
        street: Any
        since: date

    def run(x: Any) -> Any:
        work(Place(x.street, date(2030, 1, 31)))

    assert steps(run)[0]["work"]["with"] == {"x": {"street": "${ .input.street }", "since": "2030-01-31"}}


def test_keys_that_are_no_names_are_quoted() -> None:
    def run(x: Any) -> Any:
        return work([x["a b"], x["end"], x[0], x[x.key], x.each])

    assert steps(run)[0]["work"]["with"]["x"] == [
        '${ .input["a b"] }',
        '${ .input["end"] }',
        "${ .input[0] }",
        "${ .input[.input.key] }",
        "${ .input.each }",
    ]


def test_a_task_is_undone_with_its_arguments_and_its_result() -> None:
    @task(queue="money")
    def refund(receipt: str, amount: float) -> None: ...

    @task(compensate=refund)
    def pay(amount: float) -> str:
        return "r"

    def run(amount: float, other: Any) -> Any:
        pay(amount + 1)
        raise_error("https://example.com/failed", 500, detail="so " + other)

    running = Run(compile_definition(made(run).document()))
    running.start({"amount": 1, "other": "be it"})
    running.complete("/do/0/pay", "r-1")
    assert running.dispatched()[-1] == ("money", "refund", {"receipt": "r-1", "amount": 2})
    assert functions_of(made(run)) == {"money": {"refund": refund.function}, "default": {"pay": pay.function}}


def test_an_event_is_waited_for_by_its_data() -> None:
    def run(order: str, other: Any) -> Any:
        paid = listen("paid", source="https://example.com", correlate={"order": order}, timeout="PT1H")
        emit("seen", {"by": paid.by}, source="https://example.com/me", subject=order)
        return paid

    running = Run(compile_definition(made(run).document()))
    running.start({"order": "o1", "other": None})
    for order in ("o2", "o1"):
        running.deliver(
            "/do/0/listen",
            {"type": "paid", "source": "https://example.com", "data": {"order": order, "by": 4}},
        )
    assert running.output == {"order": "o1", "by": 4}
    [event] = running.emitted()
    assert (event.type, event.subject, json.loads(event.data or b"")) == ("seen", "o1", {"by": 4})


def test_a_flow_within_a_flow_is_a_sub_flow_and_a_plain_call_outside() -> None:
    @flow(namespace="test", version="2.0.0")
    def inner_part(n: int) -> int:
        return n + 1

    def run(x: int, y: int) -> Any:
        return inner_part(x)

    [step] = steps(run)
    wanted = {"namespace": "test", "name": "inner-part", "version": "2.0.0", "input": "${ .input.x }"}
    assert step["inner_part"]["run"] == {"workflow": wanted}
    assert inner_part(3) == 4
    assert inner_part.id == "test/inner-part@2.0.0"


def test_other_functions_are_called_by_name() -> None:
    def run(x: Any) -> Any:
        found = call("http", {"method": "get", "endpoint": "https://example.com/{id}"}, name="fetch")
        return call("approval", {"title": found.title})

    first, second = steps(run)
    assert first["fetch"]["call"] == "http"
    assert second["approval"]["with"] == {"title": "${ .fetch.title }"}


def test_the_first_of_competing_branches_wins() -> None:
    def run(x: Any) -> Any:
        return parallel(lambda: work(1), lambda: work(2), compete=True)

    running = Run(compile_definition(made(run).document()))
    running.start(None)
    running.complete(running.waiting[1], "second")
    assert running.output == "second"


def test_a_retry_is_a_policy_of_the_definition() -> None:
    def run(x: Any) -> Any:
        return attempt(lambda: work(x)).catch(retry=Retry(3, timedelta(milliseconds=1500), "exponential"))

    assert steps(run)[0]["attempt"]["catch"] == {
        "as": "error_1",
        "retry": {
            "delay": {"seconds": 1, "milliseconds": 500},
            "backoff": {"exponential": {}},
            "limit": {"attempt": {"count": 3}},
        },
    }


def test_a_task_may_be_the_function_of_a_loop() -> None:
    assert "${ $amount_1 }" in json.dumps(steps(lambda amounts: each(amounts, charge)))


def test_a_flow_without_steps_is_one() -> None:
    running = Run(compile_definition(made(lambda x: {"only": x}).document()))
    running.start(4)
    assert running.output == {"only": 4}


def test_yaml_reads_as_the_same_document() -> None:
    def run(x: Any) -> Any:
        return work(
            [
                "yes",
                "1.0",
                " a",
                "b: c",
                "it's",
                "",
                "#",
                "a\nb\t☃",
                -1,
                1.5,
                None,
                True,
                {},
                [],
                [[1], {"a": []}],
            ]
        )

    found = made(run, title="A: title").yaml()
    assert parse(found).value == made(run, title="A: title").document()


def test_tracing_twice_gives_the_same() -> None:
    def run(x: Any) -> Any:
        return each(x.all, lambda item: when(item > 1, lambda: work(item)))

    assert made(run).yaml() == made(run).yaml()


def test_the_client_publishes_a_flow() -> None:
    sent: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content)
        return httpx2.Response(201, json={"definition": "test/made@1.0.0"})

    with Client("http://api.test", "k", transport=httpx2.MockTransport(answer)) as client:
        client.publish(made(lambda x: work(x)))
    assert compile_definition(sent[0]).id == "test/made@1.0.0"


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: work(1) if x > 1 else None, "use when("),
        (lambda x: [work(item) for item in x], "use each("),
        (lambda x: len(x), "use size("),
        (lambda x: work(f"a {x}"), "with +"),
        (lambda x: work(str(x)), "with +"),
        (lambda x: 1 in x, "when("),
        (lambda x: int(x), "in a task"),
        (lambda x: x.name(), "is a task"),
        (lambda x: x[1:2], "a slice"),
        (lambda x: setattr(x, "y", 1), "new dict"),
        (lambda x: work({1: x}), "to be text but found 1"),
        (lambda x: work(object()), "JSON can hold but found"),
        (lambda x: work(float("nan")), "JSON can hold but found nan"),
        (lambda x: work(), "missing a required argument: 'x'"),
        (lambda x: work(1, y=2), "unexpected keyword argument 'y'"),
        (lambda x: attempt(lambda: work(1)) and None, "to be completed by .catch"),
        (lambda x: parallel(work(1)), "functions to perform in parallel"),
        (lambda x: wait(timedelta(days=-1)), "a duration of nothing or more"),
        (lambda x: wait(timedelta(microseconds=1)), "whole milliseconds"),
        (lambda x: wait(90), "Expected a timedelta, ISO 8601 text or a mapping"),  # type: ignore[arg-type]
        (lambda *x: None, "plain parameters"),
    ],
)  # fmt: skip
def test_what_cannot_be_traced_says_what_to_do_instead(function: Callable[..., Any], words: str) -> None:
    said = refused(function)
    assert said.startswith("Expected")
    assert words in said


def test_a_value_of_a_branch_is_known_in_it_only() -> None:
    def run(x: Any) -> Any:
        kept: list[Any] = []
        parallel(lambda: kept.append(work(1)), lambda: work(2))
        return work(kept[0])

    assert "let the function of that block return it" in refused(run)


def test_two_functions_of_one_name_are_refused() -> None:
    @task(name="work")
    def other(x: Any) -> Any:
        return x

    assert "Expected one function named 'work'" in refused(lambda x: [work(1), other(2)])


def test_an_asynchronous_flow_is_refused() -> None:
    async def run(x: Any) -> Any:
        return x

    with pytest.raises(InputError, match="a plain function"):
        made(run)


def test_what_undoes_a_task_cannot_have_the_item_of_a_loop() -> None:
    @task()
    def unpack(item: str) -> None: ...

    @task(compensate=unpack)
    def pack(item: str) -> str:
        return item

    assert "give unpack the task's result" in refused(lambda items: each(items, lambda item: pack(item)))
    compile_definition(made(lambda item: pack(item.name)).document())


def test_wrong_decorations_are_refused() -> None:
    for wrong in (
        lambda: task(work.function),
        lambda: flow(work.function),
        lambda: task(queue="Not A Queue"),
        lambda: task(name="no name")(work.function),
        lambda: flow(namespace="not a label")(work.function),
        lambda: register(Worker("elsewhere"), made(lambda x: work(x))),
    ):
        with pytest.raises(InputError, match="Expected"):
            wrong()


# -- plain calls --------------------------------------------------------------------------------------------------------


def test_outside_of_a_trace_everything_is_plain() -> None:
    def failing() -> Any:
        raise ValueError("no")

    assert work(3) == 3
    assert when(False, lambda: 1) is None
    assert each([1, 2], lambda item, index: item * index) == [0, 2]
    assert parallel(lambda: 1, lambda: 2) == (1, 2)
    assert attempt(failing).catch(lambda error: [error.status, error.title, error.detail]) == [
        500,
        "ValueError",
        "no",
    ]
    assert (default(None, 1), size("ab"), let("x", 2), wait("PT1S"), emit("t", source="s:")) == (
        1,
        2,
        2,
        None,
        None,
    )
    with pytest.raises(ValueError, match="no"):
        attempt(failing).catch(lambda: 1, status=404)
    with pytest.raises(TaskError):
        raise_error("https://example.com/e", 400)
    for needs_a_trace in (lambda: listen("t"), lambda: call("http")):
        with pytest.raises(InputError, match="within a flow that is traced"):
            needs_a_trace()
