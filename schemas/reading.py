"""The hot command read field by field: what `writing` is for events, for CompleteTask and StartFlow.

fastavro reads any schema into dictionaries, which are then made into records; these commands come tens of thousands of
times a second. Only the usual form is read here. Whatever is not (another body, a claim, a damaged record) gives None, and
the caller lets fastavro read it, whose answer or error counts. tests/unit/test_reading.py proves both ways equal under
Hypothesis, damaged bytes included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

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
    trace = None
    if value[at]:
        if value[at] != 2:
            raise _Unusual
        size, at = _size(value, at + 1)
        trace = value[at : at + size].decode()
        at += size
    else:
        at += 1
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
    if value[at]:  # a claim
        raise _Unusual
    size, at = _size(value, at + 1)
    end = at + size
    return m.CompleteTask(task, run, attempt, value[at:end]), end


def _start(value: bytes, at: int) -> tuple[m.StartFlow, int]:
    size, at = _size(value, at)
    definition = _text(value[at : at + size])
    at += size
    if value[at]:  # a claim
        raise _Unusual
    size, at = _size(value, at + 1)
    end = at + size
    if value[end]:  # a parent
        raise _Unusual
    return m.StartFlow(definition, value[at:end]), end + 1


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
