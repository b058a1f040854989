"""What a call with limits says to its limiters: may I, and I am done. The limiter (entities/) hands the task over.

A call with several limits asks the first one; each limiter passes the task on to the next, the last one hands it to
the queue, so a task is handed over only when it holds a permit of each.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import orjson

from engine.core.faults import expression_failed
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Call, Limit
from schemas import messages as m
from schemas.codec import encode_task

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter

_KEY_MAX: Final = 64


def acquire(it: Interpreter, task: Call, active: m.ActiveTask, message: m.Task) -> None:
    """Asks for permits; the task travels with the question. May raise Fault."""
    rec = it.recording
    stops = [
        {
            "key": _entity(limit, _key(it, task, active, limit)),
            "concurrency": limit.concurrency,
            "rate": limit.rate,
            "per": limit.per,
        }
        for limit in task.limits
    ]
    question: dict[str, Any] = {
        "task": b64encode(encode_task(message)).decode(),
        "queue": task.queue,
        "flow": message.flow_id,
        "at": message.task,
        "run": active.run,
        "attempt": active.attempt,
        **{name: stops[0][name] for name in ("concurrency", "rate", "per")},
        "then": stops[1:],
    }
    rec.ask("acquire", str(stops[0]["key"]), m.TellEntity(orjson.dumps({"acquire": question})))


def release(it: Interpreter, task: Call, active: m.ActiveTask) -> None:
    """Gives the permits back, or withdraws the question."""
    rec = it.recording
    answer = {
        "flow": rec.command.flow_id,
        "at": active.task,
        "run": active.run,
        "attempt": active.attempt,
    }
    for number, limit in enumerate(task.limits):
        key = _entity(limit, _key(it, task, active, limit))
        rec.ask(f"release{number}", key, m.TellEntity(orjson.dumps({"release": answer})))


def _key(it: Interpreter, task: Call, active: m.ActiveTask, limit: Limit) -> str:
    if limit.key is None:
        return ""
    arguments = it.arguments.of(limit.key.reads, task, raw=active.raw_input, data=active.input)
    try:
        value = limit.key.evaluate(it.recording.value(active.input), arguments)
    except ExpressionError as problem:
        raise expression_failed("the limit's key", str(problem)) from None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if len(text) <= _KEY_MAX and text.isascii() and text.isprintable():
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _entity(limit: Limit, key: str) -> str:
    return f"~limiter/{limit.name}/{key}"
