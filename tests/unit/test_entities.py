"""Laws of correlators, limiters and schedules, under any order of what they are told."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.effects import Dispatch, Effect
from engine.core.entities.book import apply
from engine.core.entities.routing import routes
from engine.core.entities.schedule import latest_time, next_time, stamp
from engine.dsl.model import Definition, Duration, Schedule
from schemas import messages as m
from schemas.codec import encode_task
from tests.flows import definition

SECOND = 1_000_000
NOON = 1_700_000_000_000_000
PLAIN, KEYED = "~correlation/" + "a" * 64, "~correlation/" + "a" * 64 + "/" + "b" * 32


class Known:
    def __init__(self, *found: Definition) -> None:
        self._found = {d.id.split("@")[0]: d for d in found} | {d.id: d for d in found}

    def find(self, reference: str) -> Definition | None:
        return self._found.get(reference)


class Entity:
    """One entity that is told one thing after the other."""

    def __init__(self, key: str, *known: Definition, ttl_us: int = 3600 * SECOND) -> None:
        self.key, self.known, self.ttl_us = key, Known(*known), ttl_us
        self.state: bytes | None = None
        self.due = 0
        self.now = NOON

    def tell(self, **message: Any) -> list[Effect]:
        told = orjson.dumps(message)
        self.state, self.due, effects = apply(self.key, self.state, told, self.known, self.now, self.ttl_us)
        return effects


def event(number: int, **given: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": str(number), "source": "/s", "type": "t"} | given


def subscribe(flow: str, run: int = 1, started_at: int = NOON, number: int = 0) -> dict[str, Any]:
    return {"flow": flow, "task": "/do/0/l", "run": run, "filter": number, "started_at": started_at}


def delivered(effects: list[Effect]) -> list[tuple[str, int, str]]:
    found = []
    for effect in effects:
        assert isinstance(effect, m.Command)
        assert isinstance(effect.body, m.DeliverEvent)
        assert isinstance(effect.body.event, bytes)
        found.append((effect.flow_id, effect.body.run, orjson.loads(effect.body.event)["id"]))
    return found


# -- correlators --------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, 4)),
        st.tuples(st.just("subscribe"), st.integers(0, 3)),
        st.tuples(st.just("unsubscribe"), st.integers(0, 3)),
    ),
    max_size=30,
)


@given(steps=STEPS, keyed=st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_subscription_gets_every_event_once_in_any_order_of_steps(
    steps: list[tuple[str, int]], keyed: bool
) -> None:
    one = Entity(KEYED if keyed else PLAIN)
    got: Counter[tuple[str, int, str]] = Counter()
    came: set[str] = set()
    live: dict[str, int] = {}
    runs: Counter[str] = Counter()
    for what, number in steps:
        flow = f"f{number}"
        if what == "event":
            got.update(delivered(one.tell(event=event(number))))
            came.add(str(number))
        elif what == "subscribe":
            if flow not in live:
                runs[flow] += 1
                live[flow] = runs[flow]
            got.update(delivered(one.tell(subscribe=subscribe(flow, live[flow]))))
        elif flow in live:
            run = live.pop(flow)
            one.tell(unsubscribe={"flow": flow, "task": "/do/0/l", "run": run})
        for name, run in live.items():
            assert {key[2] for key in got if key[:2] == (name, run)} == came
    assert all(count == 1 for count in got.values())


def test_a_flow_never_gets_again_what_it_took() -> None:
    one = Entity(PLAIN)
    one.tell(subscribe=subscribe("f"))
    [first] = [e for e in one.tell(event=event(1)) if isinstance(e, m.Command)]
    assert delivered([first]) == [("f", 1, "1")]
    one.tell(event=event(2))  # came too late for the first listen: the flow had gone on
    from engine.core.entities.correlation import identity_of

    one.tell(taken={"flow": "f", "event": identity_of(event(1))})
    one.tell(unsubscribe={"flow": "f", "task": "/do/0/l", "run": 1})
    assert delivered(one.tell(subscribe=subscribe("f", 2))) == [("f", 2, "2")]


def test_an_early_event_is_for_flows_that_had_started_unless_the_correlator_is_keyed() -> None:
    for key, count in ((PLAIN, 0), (KEYED, 1)):
        one = Entity(key)
        one.tell(event=event(1))
        one.now += SECOND
        assert len(one.tell(subscribe=subscribe("f", started_at=one.now))) == count


def test_events_are_forgotten_after_their_time_and_then_the_correlator_is_gone() -> None:
    one = Entity(KEYED, ttl_us=10 * SECOND)
    one.tell(event=event(1))
    assert one.due == NOON + 10 * SECOND
    one.now = one.due
    one.tell(wake=one.due)
    assert one.state is None
    assert one.tell(subscribe=subscribe("f")) == []


@pytest.mark.parametrize("message", [b"[]", b"{", b"{}", b'{"subscribe": {}}', b'{"subscribe": 1}'])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="Expected"):
        apply(PLAIN, None, message, Known(), NOON)


# -- limiters -----------------------------------------------------------------------------------------------------------


def acquire(number: int, concurrency: int, rate: int = 0, per: int = 0, **more: Any) -> dict[str, Any]:
    task = m.Task(f"f{number}", "test/test@1.0.0", "/do/0/a", 1, 1, "f", b"{}", NOON)
    limits = {"concurrency": concurrency, "rate": rate, "per": per, "then": []} | more
    who = {"flow": f"f{number}", "at": "/do/0/a", "run": 1, "attempt": 1, "queue": "q"}
    return who | {"task": base64.b64encode(encode_task(task)).decode()} | limits


def release(number: int) -> dict[str, Any]:
    return {"flow": f"f{number}", "at": "/do/0/a", "run": 1, "attempt": 1}


def handed(effects: list[Effect]) -> list[str]:
    return [e.task.flow_id for e in effects if isinstance(e, Dispatch)]


class Limited:
    """A limiter that is watched: every answer is held to its limits."""

    def __init__(self, concurrency: int, rate: int) -> None:
        self.one = Entity("~limiter/x/")
        self.concurrency, self.rate = concurrency, rate
        self.held: set[str] = set()
        self.asked: set[str] = set()
        self.returned: set[str] = set()
        self.granted: list[str] = []
        self._recent: list[int] = []
        self._high = 0

    def acquire(self, number: int) -> None:
        flow = f"f{number}"
        if flow in self.asked and flow in self.returned:
            return  # a question is asked once; only while it waits or holds may it come again
        if flow not in self.returned:
            self.asked.add(flow)
        self._tell(acquire=acquire(number, self.concurrency, self.rate, SECOND if self.rate else 0))

    def release(self, number: int) -> None:
        self.held.discard(f"f{number}")
        self.returned.add(f"f{number}")
        self._tell(release=release(number))

    def move(self, by: int) -> None:
        self.one.now += by
        if 0 < self.one.due <= self.one.now:
            self._tell(wake=self.one.due)

    def _tell(self, **message: Any) -> None:
        if self.one.state is None:  # forgotten, because nothing can matter any more: its own time begins anew
            self._recent.clear()
            self._high = 0
        effects = self.one.tell(**message)
        self._high = max(self._high, self.one.now)  # the limiter's own time never goes back
        for flow in handed(effects):
            self._recent.append(self._high)
            self.granted.append(flow)
            self.held.add(flow)
        assert not self.concurrency or len(self.held) <= self.concurrency
        assert not self.rate or sum(at > self._high - SECOND for at in self._recent) <= self.rate


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["acquire", "release", "time", "back"]), st.integers(0, 7)), max_size=60
    ),
    concurrency=st.integers(0, 3),
    rate=st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_a_limiter_never_exceeds_its_limits_and_forgets_nobody(
    steps: list[tuple[str, int]], concurrency: int, rate: int
) -> None:
    watched = Limited(concurrency, rate)
    does: dict[str, Callable[[int], None]] = {
        "acquire": watched.acquire,
        "release": watched.release,
        "time": lambda number: watched.move(number * SECOND // 4),
        "back": lambda _: watched.move(-SECOND),
    }
    for what, number in steps:
        does[what](number)
    for _ in range(100):  # everybody returns what they have: the others get theirs
        for flow in sorted(watched.held):
            watched.release(int(flow[1:]))
        watched.move(max(0, watched.one.due - watched.one.now))
    assert len(watched.granted) == len(set(watched.granted))
    assert watched.asked <= set(watched.granted) | watched.returned


def test_a_task_with_two_limits_goes_through_both() -> None:
    one = Entity("~limiter/x/")
    then = [{"key": "~limiter/y/", "concurrency": 1, "rate": 0, "per": 0}]
    [further] = one.tell(acquire=acquire(1, 1, then=then))
    assert isinstance(further, m.Command)
    assert further.flow_id == "~limiter/y/"
    assert isinstance(further.body, m.TellEntity)
    two = Entity("~limiter/y/")
    assert handed(two.tell(**orjson.loads(further.body.message))) == ["f1"]


def test_a_permit_given_back_before_it_was_asked_for_is_not_granted() -> None:
    one = Entity("~limiter/y/")
    one.tell(release=release(1))
    assert one.tell(acquire=acquire(1, 1)) == []


# -- schedules ----------------------------------------------------------------------------------------------------------


def scheduled(schedule: str, version: str = "1.0.0") -> Definition:
    return definition(f"schedule: {schedule}\ndo: [{{a: {{set: {{x: 1}}}}}}]", version=version)


def started(effects: list[Effect]) -> list[str]:
    found = []
    for effect in effects:
        assert isinstance(effect, m.Command)
        assert isinstance(effect.body, m.StartFlow)
        assert effect.command_id == f"schedule:{effect.flow_id}"
        found.append(effect.flow_id)
    return found


@given(
    moves=st.lists(st.integers(-90, 300), max_size=40),
    kind=st.sampled_from(["{every: PT1M}", "{cron: '* * * * *'}"]),
)
@settings(max_examples=100, deadline=None)
def test_a_schedule_fires_each_due_time_at_most_once_whatever_the_clock_does(
    moves: list[int], kind: str
) -> None:
    found = scheduled(kind)
    one = Entity("~schedule/test/test", found)
    one.tell(definition=found.id, published_at=NOON)
    names: list[str] = []
    for seconds in moves:
        one.now += seconds * SECOND
        if 0 < one.due <= one.now:
            due = one.due
            names += started(one.tell(wake=due))
            assert one.due > one.now
            assert stamp(one.now + 1000) > names[-1].split("-")[1]
        else:
            assert started(one.tell(wake=one.due)) == []
    assert names == sorted(set(names))


def test_what_was_missed_is_made_up_for_once_with_the_latest_time() -> None:
    every = Schedule(every=Duration(microseconds=60 * SECOND))
    assert latest_time(every, NOON, NOON + 60 * SECOND, NOON + 3 * 60 * SECOND + 5) == NOON + 180 * SECOND
    assert next_time(every, NOON, NOON + 180 * SECOND) == NOON + 240 * SECOND
    monthly = Schedule(every=Duration(months=1))
    assert stamp(next_time(monthly, 1_706_659_200_000_000, 1_706_659_200_000_000)) == "20240229T000000000Z"
    daily = Schedule(cron="0 0 * * *")
    assert stamp(next_time(daily, 0, NOON)) == "20231115T000000000Z"
    assert stamp(latest_time(daily, 0, NOON, NOON + 3 * 86400 * SECOND)) == "20231117T000000000Z"


def test_after_starts_again_when_the_flow_has_ended() -> None:
    found = scheduled("{after: PT10S}")
    one = Entity("~schedule/test/test", found)
    [first] = started(one.tell(definition=found.id, published_at=NOON))
    assert one.due == 0
    one.tell(ended="another")
    assert one.due == 0
    one.tell(ended=first)
    assert one.due == NOON + 10 * SECOND
    one.now = one.due
    assert started(one.tell(wake=one.due)) != [first]


def test_a_new_version_takes_over_and_one_without_a_schedule_ends_it() -> None:
    first = scheduled("{every: PT1H}")
    one = Entity("~schedule/test/test", first)
    one.tell(definition=first.id, published_at=NOON)
    assert one.due == NOON + 3600 * SECOND
    second = scheduled("{every: PT1M}", "1.1.0")
    one.known = Known(second)
    one.tell(definition=second.id, published_at=NOON + SECOND)
    assert one.due == NOON + 61 * SECOND
    third = definition("do: [{a: {set: {x: 1}}}]", version="1.2.0")
    one.known = Known(third)
    one.tell(definition=third.id, published_at=NOON + SECOND)
    assert one.due == 0


def test_events_start_flows_once_and_all_of_them_together_when_all_are_wanted() -> None:
    text = "{on: {all: [{with: {type: a}, correlate: {k: {from: .data.k}}}, {with: {type: b}, correlate: {k: {from: .data.k}}}]}}"
    found = scheduled(text)
    one = Entity("~schedule/test/test", found)
    one.tell(definition=found.id, published_at=NOON)
    assert one.tell(event=event(1, type="a", data={"k": 1})) == []
    assert one.tell(event=event(2, type="b", data={"k": 2})) == []
    assert one.tell(event=event(1, type="a", data={"k": 1})) == []
    [command] = one.tell(event=event(3, type="b", data={"k": 1}))
    assert isinstance(command, m.Command)
    assert isinstance(command.body, m.StartFlow)
    assert isinstance(command.body.input, bytes)
    assert [e["id"] for e in orjson.loads(command.body.input)] == ["1", "3"]
    assert one.tell(event=event(3, type="b", data={"k": 1})) == []


# -- routing ------------------------------------------------------------------------------------------------------------


def test_an_event_goes_to_the_correlators_of_its_shapes_and_values_only() -> None:
    keyed = "{with: {type: a}, correlate: {k: {from: .data.k, expect: '${ .k }'}}}"
    found = definition(f"do: [{{l: {{listen: {{to: {{all: [{keyed}, {{with: {{type: b}}}}]}}}}}}}}]")
    starting = scheduled("{on: {one: {with: {type: b}}}}")
    way = routes([found], [starting])
    [one] = way.of(event(1, type="a", data={"k": 1}), NOON)
    [other] = way.of(event(2, type="a", data={"k": 2}), NOON)
    assert one.flow_id.count("/") == other.flow_id.count("/") == 2
    assert one.flow_id != other.flow_id
    assert list(way.of(event(3, type="a", data={}), NOON)) == []
    assert [c.flow_id.split("/")[0] for c in way.of(event(4, type="b"), NOON)] == [
        "~correlation",
        "~schedule",
    ]
