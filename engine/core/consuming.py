"""Listening: which events a flow waits for, whether one that a correlator found matches, and when that is enough.

The correlator (entities/) finds events by what is constant about a filter; the flow itself makes the match, because
only it has the data that expressions read. A filter's number counts through the consumption's filters, then through
those of its `until`. With `foreach`, events are worked off one after the other, in the order they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from engine.core import catching
from engine.core.entities.correlation import key_of
from engine.core.faults import Fault, expression_failed, invalid
from engine.core.folding import active_of, collected, consumed
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Consumption, EventFilter, Json, Listen
from schemas import messages as m

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter


def filters_of(consumption: Consumption) -> tuple[EventFilter, ...]:
    """Every filter, in the order of their numbers."""
    until = consumption.until_events
    return consumption.filters if until is None else (*consumption.filters, *until.filters)


# -- beginning ----------------------------------------------------------------------------------------------------------


def listen(it: Interpreter, task: Listen, run: int, raw: bytes, data: bytes) -> None:
    """Subscribes to the events of `task`. May raise Fault."""
    rec = it.recording
    subscriptions = []
    for number, wanted in enumerate(filters_of(task.to)):
        values = _expected(it, task, wanted, raw, data)
        keyed = values if values and None not in values else None
        encoded = rec.bytes_of(values) if values else None
        subscriptions.append(m.Subscription(number, key_of(wanted, keyed), encoded))
    deadline = it.deadline(task, raw, data)
    changed = None if data == raw else data
    rec.emit(m.ListenStarted(changed, deadline, tuple(subscriptions)), task.pointer, run, 1)
    subscribe(it, task.pointer, run, tuple(subscriptions))


def subscribe(it: Interpreter, pointer: str, run: int, subscriptions: tuple[m.Subscription, ...]) -> None:
    rec = it.recording
    for subscription in subscriptions:
        expected = subscription.expected
        question = {
            "flow": rec.live.flow_id,
            "task": pointer,
            "run": run,
            "filter": subscription.filter,
            "started_at": rec.live.started_at,
            "values": None if expected is None else orjson.loads(expected),
        }
        message = m.TellEntity(orjson.dumps({"subscribe": question}))
        rec.ask(f"subscribe{subscription.filter}", subscription.key, message)


def _expected(it: Interpreter, task: Listen, wanted: EventFilter, raw: bytes, data: bytes) -> list[Json]:
    """What each correlation expects; None where the first event decides."""
    values: list[Json] = []
    for correlation in wanted.correlate:
        if correlation.expect is None:
            values.append(None)
            continue
        arguments = it.arguments.of(correlation.expect.reads, task, raw=raw, data=data)
        where = f"correlation {correlation.name}"
        value = it.value_of(correlation.expect, it.recording.value(data), arguments, where)
        if value is None:
            raise expression_failed(where, "Expected a value to expect of the events but found null")
        values.append(value)
    return values


# -- events -------------------------------------------------------------------------------------------------------------


def deliver(it: Interpreter, own: m.ActiveTask, body: m.DeliverEvent) -> None:
    """An event for the listen `own`: takes it if it matches, and goes on when that was enough."""
    rec = it.recording
    task = it.definition.tasks[own.task]
    assert isinstance(task, Listen)
    assert isinstance(body.event, bytes)
    filters = filters_of(task.to)
    event = rec.value(body.event)
    if not isinstance(event, dict) or not 0 <= body.filter < len(filters):
        return
    until = body.filter >= len(task.to.filters)
    mode = task.to.mode if not until or task.to.until_events is None else task.to.until_events.mode
    seen = ("~" if until else "") + str(body.filter)
    if mode == "all" and any(result.key == seen for result in own.results):
        return
    try:
        matched = _matched(it, task, own, body.filter, event)
        if matched is None:
            return
    except ExpressionError:
        return  # an event for which a filter has no answer does not match it
    changed = matched if matched not in (b"", own.keys) else None
    rec.emit(
        m.EventConsumed(body.filter, body.event, "" if until else task.read, changed),
        task.pointer,
        own.run,
        own.attempt,
    )
    try:
        _go_on(it, task)
    except Fault as fault:
        catching.fault(it, task, fault.error, None)
    it.run()


def _matched(
    it: Interpreter, task: Listen, own: m.ActiveTask, number: int, event: dict[str, Any]
) -> bytes | None:
    """The correlation values after `event` (empty: none), or None when it does not match. May raise ExpressionError."""
    wanted = filters_of(task.to)[number]
    arguments = it.arguments.of(wanted.reads, task, raw=own.raw_input, data=own.input)
    if not wanted.fixed(event) or not wanted.fits(event, arguments):
        return None
    keys: dict[str, Json] = {} if own.keys is None else dict(it.recording.value(own.keys))
    expected = next((s.expected for s in own.subscriptions if s.filter == number), None)
    values = [] if expected is None else it.recording.value(expected)
    for position, correlation in enumerate(wanted.correlate):
        reads = it.arguments.of(correlation.from_.reads, task, raw=own.raw_input, data=own.input)
        value = correlation.from_.evaluate(event, reads)
        if value is None:
            return None
        known = values[position] if position < len(values) else None
        if known is None:
            known = keys.setdefault(correlation.name, value)
        if known != value:
            return None
    return orjson.dumps(keys, option=orjson.OPT_SORT_KEYS) if keys else b""


# -- going on -----------------------------------------------------------------------------------------------------------


def _own(it: Interpreter, task: Listen) -> m.ActiveTask:
    found = active_of(it.recording.live, task.pointer)
    assert found is not None
    return found


def _go_on(it: Interpreter, task: Listen) -> None:
    """After an event or an iteration: the next iteration, the end, or further waiting. May raise Fault."""
    own = _own(it, task)
    if task.foreach is not None:
        if _iterating(it, task):
            return
        if own.index + 1 < len(consumed(own)) and not _stopped(it, task, own):
            it.recording.emit(m.TaskIterated(own.index + 1), task.pointer, own.run, own.attempt)
            if task.foreach.first is not None:
                it.agenda.append(task.foreach.first)
            else:
                iterated(it, task, _own(it, task))
            return
    if _satisfied(it, task, own):
        output = collected(own) if consumed(own) else b"[]"
        it.leave(own, catching.small(output))


def _iterating(it: Interpreter, task: Listen) -> bool:
    """Whether an iteration is under way: something below it waits, or is to be performed."""
    prefix = task.pointer + "/foreach/"
    live = it.recording.live
    return any(active.task.startswith(prefix) for active in live.active) or any(
        pointer.startswith(prefix) for pointer in (*it.agenda, *live.ready)
    )


def _stopped(it: Interpreter, task: Listen, own: m.ActiveTask) -> bool:
    """Whether `until` (an expression) already holds, so that further events that came are left alone."""
    return task.to.until is not None and own.index >= 0 and _until(it, task, own)


def _until(it: Interpreter, task: Listen, own: m.ActiveTask) -> bool:
    until = task.to.until
    if until is None:
        return False
    taken = consumed(own) if task.foreach is None else consumed(own)[: own.index + 1]
    events = [it.recording.value(result.value) for result in taken]
    arguments = it.arguments.of(until.reads, task, raw=own.raw_input, data=own.input)
    return it.truth(until, events, arguments, "until")


def _satisfied(it: Interpreter, task: Listen, own: m.ActiveTask) -> bool:
    to = task.to
    seen = {result.key for result in own.results}
    if to.mode == "all":
        return all(str(number) in seen for number in range(len(to.filters)))
    if to.mode == "one":
        return bool(seen)
    if to.until_events is not None:
        marks = [f"~{len(to.filters) + n}" for n in range(len(to.until_events.filters))]
        hits = [mark in seen for mark in marks]
        return all(hits) if to.until_events.mode == "all" else any(hits)
    if to.until is not None:
        return bool(consumed(own)) and _until(it, task, own)
    return bool(seen) and not to.forever


def iterated(it: Interpreter, task: Listen, own: m.ActiveTask) -> None:
    """The tasks of an iteration are over: its output, its export, and what comes next. May raise Fault."""
    rec, foreach = it.recording, task.foreach
    assert foreach is not None
    given = {
        foreach.each: rec.value(consumed(own)[own.index].value),
        foreach.at: own.index,
    }
    output = own.data
    if (form := foreach.output.expression) is not None:
        arguments = it.arguments.of(form.reads, task, raw=own.raw_input, data=own.input, given=given)
        output = it.bytes_of(form, rec.value(output), arguments, "foreach.output.as")
    schema = foreach.output.schema
    if schema is not None and (problem := schema.problem(rec.value(output))):
        raise invalid("item output", problem)
    context = None
    if (form := foreach.export.expression) is not None:
        arguments = it.arguments.of(
            form.reads, task, raw=own.raw_input, data=own.input, output=output, given=given
        )
        context = it.bytes_of(form, rec.value(output), arguments, "foreach.export.as")
        schema = foreach.export.schema
        if schema is not None and (problem := schema.problem(rec.value(context))):
            raise invalid("exported context", problem)
    changed = None if output == own.data else output
    kept = None if context == rec.live.context else context
    rec.emit(m.TaskIterationCompleted(own.index, changed, kept), task.pointer, own.run, own.attempt)
    _go_on(it, task)
