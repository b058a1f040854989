"""Event filters: which events match, which need a flow to tell, which filters are one shape."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.dsl.model import Consumption, Definition, EventFilter, Listen

HEAD = "document: {dsl: '1.0.3', namespace: test, name: sample, version: '1.0.0'}\n"


def flow(to: str, rest: str = "") -> Definition:
    return compile_definition(f"{HEAD}do:\n  - x:\n      listen: {{to: {to}}}\n{rest}")


def consumption(to: str) -> Consumption:
    task = flow(to).tasks["/do/0/x"]
    assert isinstance(task, Listen)
    return task.to


def event_filter(attributes: str, correlate: str = "{}") -> EventFilter:
    (one,) = consumption(f"{{one: {{with: {attributes}, correlate: {correlate}}}}}").filters
    return one


def matches(one: EventFilter, event: dict[str, Any], **arguments: Any) -> bool:
    return one.fixed(event) and one.fits(event, arguments)


@pytest.mark.parametrize(
    ("attributes", "event", "expected"),
    [
        ("{type: com.a.b}", {"type": "com.a.b"}, True),
        ("{type: com.a.b}", {"type": "comXaXb"}, False),
        ("{type: com.a.b}", {}, False),
        ("{type: 'com\\.a\\..*'}", {"type": "com.a.anything"}, True),
        ("{type: 'com\\.a\\..*'}", {"type": "xcom.a.anything"}, False),
        ("{source: 'https://a.b/(x|y)'}", {"source": "https://a.b/y"}, True),
        ("{source: 'https://a.b/(x|y)'}", {"source": "https://a.b/yz"}, False),
        ("{subject: 'a(b'}", {"subject": "a(b"}, True),
        ("{type: a, subject: '5'}", {"type": "a", "subject": "6"}, False),
        ("{data: '${ .temperature > 38 }'}", {"data": {"temperature": 39}}, True),
        ("{data: '${ .temperature > 38 }'}", {"data": {"temperature": 38}}, False),
        ("{data: '${ .temperature > 38 }'}", {"data": "no object"}, False),
        ("{data: '${ .temperature > 38 }'}", {}, False),
        ("{data: {id: 5, deep: {ok: true}}}", {"data": {"id": 5, "deep": {"ok": True, "more": 1}}}, True),
        ("{data: {id: 1}}", {"data": {"id": True}}, False),
        ("{data: {ids: [1, 2]}}", {"data": {"ids": [1, 2]}}, True),
        ("{data: {ids: [1, 2]}}", {"data": {"ids": [1, 2, 3]}}, False),
        ("{data: {id: '${ . > 4 }'}}", {"data": {"id": 5}}, True),
        ("{data: {id: '${ 5 }'}}", {"data": {"id": 5}}, True),
        ("{data: {id: '${ 5 }'}}", {"data": {"id": 6}}, False),
        ("{tenant: acme}", {"tenant": "acme"}, True),
    ],
)
def test_an_event_matches_when_all_that_is_asked_for_holds(
    attributes: str, event: dict[str, Any], expected: bool
) -> None:
    assert matches(event_filter(attributes), event) is expected


def test_an_expression_may_read_the_flow() -> None:
    one = event_filter("{data: {room: '${ $context.room }'}}")
    assert one.reads == {"context"}
    assert one.fixed({"data": {"room": 7}})
    assert matches(one, {"data": {"room": 7}}, context={"room": 7})
    assert not matches(one, {"data": {"room": 8}}, context={"room": 7})


def test_a_hostile_pattern_takes_linear_time() -> None:
    one = event_filter("{type: '(a+)+b'}")
    begun = time.monotonic()
    assert not one.fixed({"type": "a" * 20_000})
    assert time.monotonic() - begun < 1.0


def test_filters_that_any_event_treats_the_same_have_one_shape() -> None:
    first = event_filter("{type: a, data: {x: '${ .y }'}}", "{id: {from: .data.id, expect: '${ .a }'}}")
    second = event_filter("{data: {x: '${ .y }'}, type: a}", "{id: {from: .data.id, expect: '${ .b }'}}")
    assert first.shape == second.shape
    assert event_filter("{type: a}").shape != event_filter("{type: b}").shape
    assert event_filter("{type: a}").shape != event_filter("{type: a}", "{id: {from: .data.id}}").shape
    without = event_filter("{type: a}", "{id: {from: .data.id}}")
    expecting = event_filter("{type: a}", "{id: {from: .data.id, expect: x}}")
    assert without.shape != expecting.shape


def test_correlations_are_read_from_the_event_and_expected_by_the_flow() -> None:
    one = event_filter(
        "{type: a}",
        "{room: {from: .roomid}, id: {from: .data.id, expect: '${ $input.id }'}, k: {from: .k, expect: v}}",
    )
    room, identity, constant = one.correlate
    assert room.expect is None
    assert room.from_.evaluate({"roomid": 3}, {}) == 3
    assert identity.expect is not None
    assert constant.expect is not None
    assert identity.expect.reads == {"input"}
    assert constant.expect.evaluate(None, {}) == "v"


def test_a_consumption_has_its_mode_and_its_end() -> None:
    everything = consumption("{any: []}")
    assert everything.mode == "any"
    assert everything.filters[0].fixed({"type": "whatever"})
    assert consumption("{all: [{with: {type: a}}, {with: {type: b}}]}").mode == "all"
    assert consumption("{any: [], until: '${ false }'}").forever
    assert consumption("{any: [], until: 'false'}").forever
    counted = consumption("{any: [], until: '( . | length ) > 3'}")
    assert counted.until is not None
    assert counted.until.evaluate([1, 2, 3, 4], {}) is True
    nested = consumption("{any: [{with: {type: a}}], until: {one: {with: {type: stop}}}}")
    assert nested.until_events is not None
    assert nested.until_events.filters[0].fixed({"type": "stop"})


def test_a_schedule_may_wait_for_events() -> None:
    definition = compile_definition(
        HEAD + "do: [{x: {set: {a: 1}}}]\nschedule: {on: {all: [{with: {type: a}}, {with: {type: b}}]}}\n"
    )
    assert definition.schedule is not None
    assert definition.schedule.on is not None
    assert len(definition.schedule.on.filters) == 2


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("{}", "exactly one of one, any, all but found none of them at /do/0/x/listen/to (line 4)"),
        ("{one: {with: {type: a}}, any: []}", "but found one and any"),
        ("{one: {with: {}}}", "Expected at least one attribute but found none"),
        ("{one: {correlate: {}}}", "Expected the property 'with'"),
        ("{one: {wiht: {type: a}}}", "did you mean 'with'?"),
        ("{all: []}", "Expected at least one event filter but found none"),
        ("{any: {}}", "Expected a list of event filters but found an object"),
        ("{any: [], until: 5}", "Expected an expression or an event consumption strategy"),
        ("{any: [], until: {any: [], until: .a}}", "Expected one of one, any, all but found 'until'"),
        ("{one: {with: {type: a}, correlate: {x: {}}}}", "Expected the property 'from'"),
        ("{one: {with: {type: a}, correlate: {x: {from: $context.a}}}}", "but found $context"),
        ("{one: {with: {type: '${ now }'}}}", "depends on its data alone"),
    ],
)
def test_a_wrong_strategy_is_refused_with_its_place(to: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        flow(to)
    assert message in "\n".join(problem.message for problem in caught.value.problems)
