"""Shared queries: many wait, one asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from api.errors import Behind, Invalid
from api.gathered import Gathered
from api.memory import MemoryReads
from api.ports import Outcome
from api.positions import Positions, read_tokens
from api.waiters import Waiters
from engine.errors import AwayError
from tests.unit.api_calls import position


def test_what_is_asked_while_a_query_runs_goes_into_the_next() -> None:
    loads: list[list[int]] = []

    async def load(keys: list[int]) -> Mapping[int, int]:
        loads.append(keys)
        await asyncio.sleep(0.01)
        return {key: key * 10 for key in keys if key != 3}

    async def scenario() -> list[int | None]:
        gathered = Gathered(load)
        first = asyncio.create_task(gathered.get(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [await first, *await asyncio.gather(*(gathered.get(key) for key in (1, 2, 3, 1)))]

    assert asyncio.run(scenario()) == [0, 10, 20, None, 10]
    assert loads == [[0], [1, 2, 3]]


def test_an_error_reaches_everyone_who_asked_and_the_next_query_runs() -> None:
    fails = [True]

    async def load(keys: list[int]) -> Mapping[int, int]:
        if fails.pop() if fails else False:
            raise AwayError("Expected Postgres to answer but it is away")
        return dict.fromkeys(keys, 1)

    async def scenario() -> None:
        gathered = Gathered(load)
        found = await asyncio.gather(gathered.get(1), gathered.get(2), return_exceptions=True)
        assert all(isinstance(one, AwayError) for one in found)
        assert await gathered.get(1) == 1

    asyncio.run(scenario())


def test_a_caller_that_goes_away_takes_nobodys_answer_with_it() -> None:
    async def load(keys: list[int]) -> Mapping[int, int]:
        await asyncio.sleep(0.01)
        return dict.fromkeys(keys, 1)

    async def scenario() -> int | None:
        gathered = Gathered(load)
        leaving, staying = (asyncio.create_task(gathered.get(1)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(scenario()) == 1


class World:
    """Flows that end; counts the queries and how many run at once."""

    def __init__(self) -> None:
        self.ended: dict[str, Outcome] = {}
        self.queries = self.running = self.most = 0
        self.away = False

    async def outcomes(self, flow_ids: Sequence[str], command_ids: Sequence[str]) -> list[Outcome]:
        self.queries += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        if self.away:
            raise AwayError("Expected Postgres to answer but it is away")
        return [self.ended[flow_id] for flow_id in flow_ids if flow_id in self.ended]


def test_a_thousand_waiters_share_one_query_at_a_time() -> None:
    world = World()

    async def scenario() -> list[Outcome | None]:
        waiters = Waiters(world.outcomes)
        waiting = [asyncio.create_task(waiters.ended(f"f{n}", None, 5)) for n in range(1000)]
        await asyncio.sleep(0.02)
        world.ended = {f"f{n}": Outcome(f"f{n}", "c") for n in range(1000)}
        return await asyncio.gather(*waiting)

    found = asyncio.run(scenario())
    assert all(found)
    assert world.most == 1
    assert world.queries < 20


def test_a_wait_ends_with_its_time_and_the_queries_with_the_last_wait() -> None:
    world = World()

    async def scenario() -> None:
        waiters = Waiters(world.outcomes)
        assert await waiters.ended("f", None, 0.02) is None
        await asyncio.sleep(0.05)
        asked = world.queries
        await asyncio.sleep(0.05)
        assert world.queries == asked

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [None, "flow-exists"])
def test_the_end_or_refusal_of_anothers_start_ends_no_wait(code: str | None) -> None:
    world = World()
    world.ended["f"] = Outcome("f", "other", code, "Expected ... but ...")

    async def scenario() -> tuple[Outcome | None, Outcome | None]:
        waiters = Waiters(world.outcomes)
        return await waiters.ended("f", "mine", 0.03), await waiters.ended("f", "other", 1)

    mine, others = asyncio.run(scenario())
    assert mine is None
    assert others is not None


def test_postgres_away_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.waiters.AWAY_PAUSE_S", 0.01)
    world = World()
    world.away = True

    async def scenario() -> Outcome | None:
        waiters = Waiters(world.outcomes)
        waiting = asyncio.create_task(waiters.ended("f", None, 5))
        await asyncio.sleep(0.03)
        world.away, world.ended = False, {"f": Outcome("f", "c")}
        return await waiting

    assert asyncio.run(scenario()) == Outcome("f", "c")


def test_stopping_releases_everyone() -> None:
    async def scenario() -> None:
        waiters = Waiters(World().outcomes)
        waiting = [asyncio.create_task(waiters.ended("f", None, 60)) for _ in range(3)]
        await asyncio.sleep(0.01)
        waiters.release()
        assert await asyncio.gather(*waiting) == [None, None, None]
        assert await waiters.ended("f", None, 60) is None

    asyncio.run(scenario())


def test_tokens_are_read_strictly() -> None:
    assert read_tokens("0:5, 3:7,0:2", 8) == {0: 5, 3: 7}
    for bad in ("", "0", "0:", ":1", "8:0", "0:-1", "0:1;1:2", "0:" + "9" * 30, "\u0660:1"):
        with pytest.raises(Invalid, match=r"^Expected min_position"):
            read_tokens(bad, 8)


def test_a_position_is_waited_for_until_it_is_reached_or_time_is_over() -> None:
    reads = MemoryReads(positions={0: position(0, 1)})

    async def scenario() -> None:
        positions = Positions(reads, "flowtrail.events", 8)
        waiting = [asyncio.create_task(positions.reached({0: 5}, 5)) for _ in range(50)]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in waiting)
        reads.positions[0] = position(0, 5)
        await asyncio.gather(*waiting)
        assert await positions.header(0) == {"Flowtrail-Position": "0:5"}
        assert await positions.header(1) == {}
        with pytest.raises(Behind, match="it is at 1:-1 for 1:0"):
            await positions.reached({0: 5, 1: 0}, 0.02)

    asyncio.run(scenario())
