"""The hot records' datums, read field by field: the usual commands and events.

fastavro reads any schema into dictionaries, which are then made into records; these come tens of thousands of times a
second, to the engine, the projections and every replay. Only the usual form is read here. Whatever is not (another body, a
claim, a damaged record) gives None, and the caller lets fastavro read it, whose answer or error counts.
tests/unit/test_reading.py proves both ways equal under Hypothesis, damaged bytes included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from schemas import messages as m

_START: Final = m.COMMAND_BODIES.index(m.StartFlow) << 1
_COMPLETE: Final = m.COMMAND_BODIES.index(m.CompleteTask) << 1
_KINDS: Final = ("user", "worker", "timer", "event", "engine")


class _Unusual(Exception):
    """Left to fastavro."""


def command(value: bytes, at: int) -> m.Command | None:
    """The command whose datum, under the newest schema, begins at `at` and ends with `value`."""
    try:
        return _command(value, at)
    except (_Unusual, IndexError, UnicodeDecodeError):
        return None


def _command(value: bytes, at: int) -> m.Command:
    size, at = _size(value, at)
    command_id = value[at : at + size].decode()
    size, at = _size(value, at + size)
    flow_id = value[at : at + size].decode()
    time, at = _long(value, at + size)
    begin = at
    size, at = _size(value, at + 1)
    actor = (_actor if size < 256 else _actor.__wrapped__)(value[begin], value[at : at + size])
    at += size
    trace, at = _maybe_text(value, at)
    branch = value[at]
    if branch == _COMPLETE:
        body: m.CommandBody
        body, at = _complete(value, at + 1)
    elif branch == _START:
        body, at = _start(value, at + 1)
    else:
        raise _Unusual
    if at != len(value):  # also when a text was cut short: its size was added all the same
        raise _Unusual
    return m.Command(command_id, flow_id, time, actor, body, trace)


def _complete(value: bytes, at: int) -> tuple[m.CompleteTask, int]:
    size, at = _size(value, at)
    task = _text(value[at : at + size])
    run, at = _long(value, at + size)
    attempt, at = _long(value, at)
    output, at = _payload(value, at)
    return m.CompleteTask(task, run, attempt, output), at


def _start(value: bytes, at: int) -> tuple[m.StartFlow, int]:
    size, at = _size(value, at)
    definition = _text(value[at : at + size])
    given, at = _payload(value, at + size)
    if value[at] or value[at + 1]:  # a parent, a moment to begin from
        raise _Unusual
    return m.StartFlow(definition, given), at + 2


# -- events ---------------------------------------------------------------------------------------------------------


def event(value: bytes, at: int) -> m.Event | None:
    """The event whose datum, under the newest schema, begins at `at` and ends with `value`."""
    try:
        return _event(value, at)
    except (_Unusual, IndexError, UnicodeDecodeError):
        return None


def _event(value: bytes, at: int) -> m.Event:
    size, at = _size(value, at)
    flow_id = value[at : at + size].decode()
    sequence, at = _long(value, at + size)
    size, at = _size(value, at)
    value[
        at : at + size
    ].decode()  # the event's id follows from the two; what is no text is fastavro's to refuse
    time, at = _long(value, at + size)
    begin = at
    size, at = _size(value, at + 1)
    actor = (_actor if size < 256 else _actor.__wrapped__)(value[begin], value[at : at + size])
    size, at = _size(value, at + size)
    command_id = value[at : at + size].decode()
    partition, at = _long(value, at + size)
    offset, at = _long(value, at)
    size, at = _size(value, at)
    definition = _text(value[at : at + size])
    size, at = _size(value, at + size)
    definition_hash = value[at : at + size]
    task, at = _maybe_text(value, at + size)
    run, at = _long(value, at)
    attempt, at = _long(value, at)
    trace, at = _maybe_text(value, at)
    size, at = _size(value, at)
    previous_hash = value[at : at + size]
    at += size
    read = _EVENTS.get(value[at])
    if read is None:
        raise _Unusual
    body, at = read(value, at + 1)
    if at != len(value):
        raise _Unusual
    return m.Event(
        flow_id,
        sequence,
        time,
        actor,
        m.Cause(command_id, partition, offset),
        definition,
        definition_hash,
        task,
        run,
        attempt,
        trace,
        previous_hash,
        body,
    )


def _flow_started(value: bytes, at: int) -> tuple[m.FlowStarted, int]:
    given, at = _payload(value, at)
    transformed, at = _maybe_payload(value, at)
    size, at = _size(value, at)
    version = _text(value[at : at + size])
    at += size
    if value[at]:  # a parent
        raise _Unusual
    deadline, at = _long(value, at + 1)
    return m.FlowStarted(given, transformed, version, None, deadline), at


def _flow_completed(value: bytes, at: int) -> tuple[m.FlowCompleted, int]:
    output, at = _payload(value, at)
    return m.FlowCompleted(output), at


def _task_scheduled(value: bytes, at: int) -> tuple[m.TaskScheduled, int]:
    size, at = _size(value, at)
    queue = _text(value[at : at + size])
    size, at = _size(value, at + size)
    function = _text(value[at : at + size])
    given, at = _maybe_payload(value, at + size)
    arguments, at = _maybe_payload(value, at)
    deadline, at = _long(value, at)
    due, at = _long(value, at)
    size, at = _size(value, at)
    priority = _text(value[at : at + size])
    reply, at = _boolean(value, at + size)
    return m.TaskScheduled(queue, function, given, arguments, deadline, due, priority, reply), at


def _task_started(value: bytes, at: int) -> tuple[m.TaskStarted, int]:
    given, at = _maybe_payload(value, at)
    deadline, at = _long(value, at)
    due, at = _long(value, at)
    size, at = _size(value, at)
    purpose = _text(value[at : at + size])
    items, at = _maybe_payload(value, at + size)
    size, at = _size(value, at)
    kind = _text(value[at : at + size])
    return m.TaskStarted(given, deadline, due, purpose, items, kind), at + size


def _task_completed(value: bytes, at: int) -> tuple[m.TaskCompleted, int]:
    result, at = _maybe_payload(value, at)
    output, at = _maybe_payload(value, at)
    context, at = _maybe_payload(value, at)
    branch, at = _maybe_text(value, at)
    compensable, at = _boolean(value, at)
    return m.TaskCompleted(result, output, context, branch, compensable), at


def _task_iterated(value: bytes, at: int) -> tuple[m.TaskIterated, int]:
    index, at = _long(value, at)
    return m.TaskIterated(index), at


_READERS: Final[dict[type, Callable[[bytes, int], tuple[Any, int]]]] = {
    m.FlowStarted: _flow_started,
    m.FlowCompleted: _flow_completed,
    m.TaskScheduled: _task_scheduled,
    m.TaskStarted: _task_started,
    m.TaskCompleted: _task_completed,
    m.TaskIterated: _task_iterated,
}
_EVENTS: Final = {m.EVENT_BODIES.index(body) << 1: read for body, read in _READERS.items()}


# -- fields ---------------------------------------------------------------------------------------------------------


def _payload(value: bytes, at: int) -> tuple[bytes, int]:
    if value[at]:  # a claim
        raise _Unusual
    size, at = _size(value, at + 1)
    end = at + size
    return value[at:end], end


def _maybe_payload(value: bytes, at: int) -> tuple[bytes | None, int]:
    present = value[at]
    if not present:
        return None, at + 1
    if present != 2:
        raise _Unusual
    return _payload(value, at + 1)


def _maybe_text(value: bytes, at: int) -> tuple[str | None, int]:
    present = value[at]
    if not present:
        return None, at + 1
    if present != 2:
        raise _Unusual
    size, at = _size(value, at + 1)
    end = at + size
    return _text(value[at:end]), end


def _boolean(value: bytes, at: int) -> tuple[bool, int]:
    byte = value[at]
    if byte > 1:
        raise _Unusual
    return byte == 1, at + 1


@lru_cache(1024)
def _actor(kind: int, name: bytes) -> m.Actor:
    if kind & 1 or kind >> 1 >= len(_KINDS):
        raise _Unusual
    return m.Actor(_KINDS[kind >> 1], name.decode())


@lru_cache(4096)
def _known(value: bytes) -> str:
    return value.decode()


def _text(value: bytes) -> str:
    """Definitions and pointers come again and again; what is long is not one, and not to be kept."""
    return _known(value) if len(value) < 256 else value.decode()


def _size(value: bytes, at: int) -> tuple[int, int]:
    """A length, and where what has it begins."""
    first = value[at]
    if first < 0x80:
        if first & 1:
            raise _Unusual
        return first >> 1, at + 1
    size, at = _long(value, at)
    if size < 0:
        raise _Unusual
    return size, at


def _long(value: bytes, at: int) -> tuple[int, int]:
    byte = value[at]
    rest, shift = byte & 0x7F, 7
    while byte >= 0x80:
        at += 1
        byte = value[at]
        rest |= (byte & 0x7F) << shift
        shift += 7
    if shift > 63:  # longer than a time: not what our writers write
        raise _Unusual
    return (rest >> 1) ^ -(rest & 1), at + 1
