"""The task at hand: heartbeats, deadlines, cancellation, and what a function may ask about it. No Kafka."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from flowtrail import PENDING, Cancelled, InputError, Pending, current_task, heartbeat
from flowtrail.functions import Function, TaskContext
from flowtrail.heart import Heart
from flowtrail.performing import CurrentTask
from flowtrail.tokens import token_of
from flowtrail.wire import Task

CONTEXT = TaskContext("f1", "/do/0/charge", 1, 2, "demo/order@1.0.0", "default", "charge")


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def current(heartbeat_s: float = 0, deadline_s: float = 0) -> CurrentTask:
    task = Task(
        "f1", "demo/order@1.0.0", "/do/0/charge", 1, 2, "charge", b"{}", 1, None,
        deadline=int(deadline_s * 1e6), heartbeat=int(heartbeat_s * 1e6),
    )  # fmt: skip
    return CurrentTask(task, CONTEXT)


def heart() -> tuple[Heart, list[bytes | None], Clock]:
    sent: list[bytes | None] = []
    clock = Clock()
    return Heart(lambda _, progress: sent.append(progress), clock, clock), sent, clock


def test_a_task_that_asks_for_heartbeats_gets_one_each_third_without_a_word_of_its_function() -> None:
    beating, sent, clock = heart()
    assert beating.begin(current(heartbeat_s=3))
    for _ in range(40):
        beating.turn()
        clock.at += 0.1
    assert sent == [None, None, None]


def test_progress_goes_out_with_the_next_beat_and_only_the_newest() -> None:
    beating, sent, clock = heart()
    task = current(heartbeat_s=3)
    beating.begin(task)
    for n in range(5):
        task.heartbeat({"done": n})
    beating.turn()
    assert sent == []
    clock.at += 1
    beating.turn()
    assert sent == [b'{"done":4}']


def test_a_task_without_a_heartbeat_is_silent_until_it_reports_progress() -> None:
    beating, sent, clock = heart()
    task = current()
    beating.begin(task)
    clock.at += 60
    beating.turn()
    assert sent == []
    task.heartbeat("half")
    beating.turn()
    task.heartbeat("more")
    beating.turn()
    assert sent == [b'"half"']
    clock.at += 1
    beating.turn()
    assert sent == [b'"half"', b'"more"']


def test_a_heartbeat_that_cannot_be_sent_does_not_stop_the_others() -> None:
    clock = Clock()

    def fail(_: CurrentTask, __: bytes | None) -> None:
        raise BufferError

    beating = Heart(fail, clock, clock)
    beating.begin(current(heartbeat_s=3))
    clock.at += 2
    assert beating.turn()


def test_a_task_past_its_deadline_is_cancelled_and_one_that_comes_too_late_is_not_begun() -> None:
    beating, _, clock = heart()
    task = current(deadline_s=clock.at + 5)
    assert beating.begin(task)
    beating.turn()
    assert not task.cancelled.is_set()
    clock.at += 5
    beating.turn()
    assert task.cancelled.is_set()
    assert not beating.begin(current(deadline_s=clock.at))


def test_a_cancellation_may_come_before_the_task() -> None:
    beating, _, _ = heart()
    task = current()
    assert not beating.cancel(task.key)
    assert not beating.begin(task)
    assert task.cancelled.is_set()


def test_a_sync_function_learns_of_its_cancellation_at_its_next_heartbeat() -> None:
    beating, _, _ = heart()
    task = current()
    beating.begin(task)
    assert beating.cancel(task.key)
    with task.entered(), pytest.raises(Cancelled, match="was cancelled"):
        heartbeat()
    beating.end(task)
    assert not beating.cancel(task.key)


def test_a_coroutine_is_interrupted_where_it_waits() -> None:
    task = current()

    async def wait_for_ever() -> None:
        with task.awaited():
            threading.Timer(0.01, task.cancel).start()
            await asyncio.sleep(3600)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(wait_for_ever())


def test_the_current_task_is_known_below_the_function_and_nowhere_else() -> None:
    task = current(deadline_s=5)
    seen: list[str] = []

    def ask() -> None:
        seen.append(current_task().context.flow_id)

    with task.entered():
        ask()
        thread = threading.Thread(target=contextvars.copy_context().run, args=(ask,))
        thread.start()
        thread.join()
    assert seen == ["f1", "f1"]
    assert task.deadline == 5
    assert task.token == token_of("f1", "/do/0/charge", 1, 2)
    with pytest.raises(InputError, match="Expected to be called within a task's function"):
        current_task()


def test_progress_must_be_json() -> None:
    with current().entered(), pytest.raises(InputError, match="Expected a heartbeat's progress"):
        heartbeat({1, 2})


def test_a_function_that_returns_or_raises_pending_has_no_outcome() -> None:
    def returns() -> Pending:
        return PENDING

    def raises() -> None:
        raise Pending

    async def awaited() -> Pending:
        return PENDING

    assert isinstance(Function("f", returns).perform(b"{}", CONTEXT), Pending)
    assert isinstance(Function("f", raises).perform(b"{}", CONTEXT), Pending)
    assert isinstance(asyncio.run(Function("f", awaited).perform_async(b"{}", CONTEXT)), Pending)
