"""Who performs how many jobs at once, without Kafka; and what a Worker refuses before it starts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flowtrail import InputError, Worker
from flowtrail.crew import Crew


class Job:
    def __init__(
        self, do: Callable[[], Any], is_async: bool = False, dropped: bool = False, rank: int = 1
    ) -> None:
        self.do = do
        self.is_async = is_async
        self.dropped = dropped
        self.rank = rank


def sync(job: Job) -> None:
    job.do()


async def asynchronous(job: Job) -> None:
    await job.do()


def crew(concurrency: int) -> Crew[Job]:
    return Crew(concurrency, sync, asynchronous)


def test_a_slow_job_does_not_hold_up_others() -> None:
    team = crew(2)
    release, done = threading.Event(), threading.Semaphore(0)
    team.submit([Job(lambda: release.wait(10)), *(Job(done.release) for _ in range(50))])
    for _ in range(50):
        assert done.acquire(timeout=10)
    assert team.running == 1
    release.set()
    assert team.wait(10)
    team.close()


def test_no_more_jobs_run_at_once_than_allowed_sync_and_async_together() -> None:
    team = crew(3)
    lock, now, most = threading.Lock(), [0], [0]

    def enter(change: int) -> None:
        with lock:
            now[0] += change
            most[0] = max(most[0], now[0])

    def sync_job() -> None:
        enter(1)
        threading.Event().wait(0.005)
        enter(-1)

    async def async_job() -> None:
        enter(1)
        await asyncio.sleep(0.005)
        enter(-1)

    team.submit([Job(sync_job) if i % 2 else Job(async_job, is_async=True) for i in range(40)])
    assert team.wait(20)
    assert most[0] == 3
    team.close()


def test_jobs_of_a_revoked_partition_are_not_started() -> None:
    team = crew(1)
    release, started = threading.Event(), []
    first = Job(lambda: release.wait(10))
    second = Job(lambda: started.append("second"))
    third = Job(lambda: started.append("third"))
    team.submit([first, second, third])
    second.dropped = True
    release.set()
    assert team.wait(10)
    assert started == ["third"]
    team.close()


def test_what_was_not_started_can_be_dropped() -> None:
    team = crew(1)
    release, started = threading.Event(), []
    team.submit([Job(lambda: release.wait(10)), *(Job(lambda: started.append(1)) for _ in range(5))])
    assert team.drop_pending() == 5
    assert not team.wait(0.01)
    release.set()
    assert team.wait(10)
    assert started == []
    team.close()


def test_closing_cancels_what_is_still_awaited() -> None:
    team = crew(1)
    begun, cancelled = threading.Event(), threading.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    team.submit([Job(endless, is_async=True)])
    assert begun.wait(10)
    team.close()
    assert cancelled.wait(10)


def test_a_worker_refuses_what_cannot_be_meant() -> None:
    with pytest.raises(InputError, match="Expected a queue's name"):
        Worker("a queue")
    with pytest.raises(InputError, match=r"at least one @worker\.task"):
        Worker("q").run()
    worker = Worker("q", concurrency=0)
    worker.task("a")(lambda: None)
    with pytest.raises(InputError, match="Expected a concurrency from 1"):
        worker.run()
    with pytest.raises(InputError, match="Expected a name no other function has but found 'a'"):
        worker.task("a")(lambda: None)
    with pytest.raises(InputError, match="without parentheses"):
        worker.task(lambda: None)  # type: ignore[arg-type]


def test_a_worker_stopped_while_the_api_is_away_ends(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker("q", "http://127.0.0.1:9", "k.s")

    @worker.task()
    def charge() -> None: ...

    assert list(worker.functions) == ["charge"]
    thread = threading.Thread(target=worker.run)
    thread.start()
    while "trying again" not in caplog.text:
        thread.join(0.01)
    worker.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert "Expected the API at http://127.0.0.1:9 to answer but" in caplog.text


def test_higher_ranks_go_first_and_lower_ones_get_a_small_share() -> None:
    team = crew(1)
    release, order = threading.Event(), []

    def note(rank: int) -> Callable[[], None]:
        return lambda: order.append(rank)

    team.submit([Job(lambda: release.wait(10))])
    team.submit([Job(note(rank), rank=rank) for rank in (2, 1, 0) for _ in range(100)])
    release.set()
    assert team.wait(10)
    assert len(order) == 300
    assert sum(rank == 0 for rank in order[:100]) >= 85
    assert set(order[:20]) == {0, 1, 2}
    assert order[-20:] == [2] * 20
    team.close()
