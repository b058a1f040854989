"""Performing tasks: from one point of a flow to the next point where it must wait for somebody, or to its end.

Data flow of a task, in the order of the specification (dsl.md, Data Flow): `if` on the raw input; `input.schema`,
`input.from`; the task itself; `output.as`, `output.schema`; `export.as`, `export.schema`; then the flow directive.
Composite tasks are entered and left by events, so the state alone says where a flow stands. A task whose `if` is
false is skipped: its raw input is its output and its own `then` does not apply.
`agenda` holds the tasks to perform next, in order: one per token of the flow that does not wait. What a kind of task
does is in starting.py, what happens at the end of a scope in scopes.py, what an error does in catching.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from engine.core import catching, durable, restoring, scopes, starting
from engine.core.arguments import Arguments
from engine.core.faults import Fault, expression_failed, invalid, runtime_failed
from engine.core.folding import active_of, collected, scope_data
from engine.core.recording import Recording
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Definition, Directive, Expression, Json, Task, Template
from schemas import messages as m

STEPS_OF_DECISION: Final = 1_000
"""How many tasks one decision performs before it yields, so that no flow keeps its partition from the others."""

STEPS_MAX: Final = 100_000
"""How many tasks a flow performs without anybody outside having a say: an endless loop ends here, as a fault."""


_WITHOUT_YIELD: Final = "0.1.0"
"""Flows of this version ended as endless after 10,000 tasks of one decision; their logs must decide the same for ever."""
_STEPS_WITHOUT_YIELD: Final = 10_000


class Interpreter:
    """Performs the tasks of one flow within one decision, through `recording`."""

    __slots__ = ("agenda", "arguments", "definition", "recording")

    def __init__(self, definition: Definition, recording: Recording) -> None:
        self.definition = definition
        self.recording = recording
        self.arguments = Arguments(definition, recording)
        self.agenda: deque[str] = deque()

    # -- the flow -----------------------------------------------------------------------------------------------

    def start(self, body: m.StartFlow, version: str, then: Definition | None = None) -> None:
        """Validates and transforms the input, then performs the first tasks; or goes on from a moment under `then`."""
        rec, definition = self.recording, self.definition
        assert isinstance(body.input, bytes)
        data, fault = body.input, None
        deadline = 0
        try:
            raw = rec.value(body.input)
            if definition.input.schema is not None and (problem := definition.input.schema.problem(raw)):
                raise invalid("flow input", problem)
            started = (body.input, version)
            if (source := definition.input.expression) is not None:
                arguments = self.arguments.of(source.reads, started=started)
                data = self.bytes_of(source, raw, arguments, "input.from")
            if definition.timeout is not None:
                arguments = self.arguments.of(durable.reads_of(definition.timeout), started=started)
                deadline = durable.due_of(definition.timeout, rec.value(data), arguments, rec.now, "timeout")
        except Fault as found:
            data, fault = body.input, found
        transformed = None if data == body.input else data
        rec.emit(m.FlowStarted(body.input, transformed, version, body.parent, deadline))
        if fault is not None:
            rec.emit(m.FlowFaulted(catching.located(fault.error, "/input")))
            return
        if body.restore is not None:
            restoring.begin(self, body.restore, then)
        else:
            self.agenda.append(definition.first)
        self.run()

    def run(self) -> None:
        """Performs what is on the agenda until every token waits or the flow has ended."""
        rec = self.recording
        performed = 0
        while self.agenda and isinstance(rec.state, m.LiveFlow):
            yields = rec.state.engine_version != _WITHOUT_YIELD
            if yields and performed == STEPS_OF_DECISION:
                rec.emit(m.FlowYielded((*rec.state.ready, *self.agenda)))
                return
            performed += 1
            task = self.definition.tasks[self.agenda.popleft()]
            limit = STEPS_MAX if yields else _STEPS_WITHOUT_YIELD
            if (rec.state.steps if yields else performed) > limit:
                detail = (
                    f"Expected the flow to wait or end within {limit} tasks but it went on at {task.pointer}"
                )
                catching.fault(self, task, runtime_failed("Endless loop", detail).error, None)
                continue
            self._perform(task)

    def proceed(self) -> None:
        """Goes on after a yield."""
        ready = self.recording.live.ready
        self.recording.emit(m.FlowContinued())
        self.agenda.extend(ready)
        self.run()

    def complete_flow(self) -> None:
        rec, output = self.recording, self.definition.output
        try:
            data = rec.live.data
            if output.expression is not None:
                arguments = self.arguments.of(output.expression.reads)
                data = self.bytes_of(output.expression, rec.value(data), arguments, "output.as")
            if output.schema is not None and (problem := output.schema.problem(rec.value(data))):
                raise invalid("flow output", problem)
        except Fault as fault:
            catching.end_by(self, catching.located(fault.error, "/output"))
            return
        rec.emit(m.FlowCompleted(output=data))

    # -- one task -----------------------------------------------------------------------------------------------

    def _perform(self, task: Task) -> None:
        """Performs `task`: it completes, waits, faults, or puts tasks on the agenda."""
        rec = self.recording
        raw = scope_data(rec.live, task.pointer)
        try:
            if task.condition is not None:
                arguments = self.arguments.of(task.condition.reads, task, raw=raw)
                if not self.truth(task.condition, rec.value(raw), arguments, "if"):
                    rec.emit(m.TaskSkipped(), task.pointer)
                    self.follow(task, "continue", raw)
                    return
            if task.input.schema is not None and (problem := task.input.schema.problem(rec.value(raw))):
                raise invalid("task input", problem)
            data = raw
            if (source := task.input.expression) is not None:
                arguments = self.arguments.of(source.reads, task, raw=raw)
                data = self.bytes_of(source, rec.value(raw), arguments, "input.from")
            starting.start(self, task, raw, data)
        except Fault as fault:
            catching.fault(self, task, fault.error, None)

    def deadline(self, task: Task, raw: bytes, data: bytes) -> int:
        """When `task`, begun now, times out; 0: never."""
        if task.timeout is None:
            return 0
        return durable.end_of(self, task.timeout, task, raw, data, self.recording.now, "timeout")

    def complete(
        self,
        task: Task,
        run: int,
        attempt: int,
        raw: bytes,
        data: bytes,
        output: bytes,
        *,
        result: bytes | None = None,
        branch: str | None = None,
        directive: Directive | None = None,
    ) -> None:
        """Transforms and validates `output`, exports the context, records the completion, goes on. May raise Fault."""
        rec = self.recording
        raw_output = output
        if (form := task.output.expression) is not None:
            arguments = self.arguments.of(form.reads, task, raw=raw, data=data, raw_output=raw_output)
            output = self.bytes_of(form, rec.value(raw_output), arguments, "output.as")
        if task.output.schema is not None and (problem := task.output.schema.problem(rec.value(output))):
            raise invalid("task output", problem)
        context = self._export(task, raw, data, raw_output, output)
        own = active_of(rec.live, task.pointer)
        if result is not None:
            unchanged = result
        else:
            unchanged = scope_data(rec.live, task.pointer) if own is None else collected(own)
        completed = m.TaskCompleted(
            result=result,
            output=None if output == unchanged else output,
            context=context,
            branch=branch,
            compensable=task.compensate is not None,
        )
        rec.emit(completed, task.pointer, run, attempt)
        if own is not None and (own.queue or own.subscriptions):
            scopes.release(self, own, over=True)
        self.follow(task, task.then if directive is None else directive, output)

    def finish(self, active: m.ActiveTask, result: bytes) -> None:
        """`active` is over, its raw output is `result`."""
        task = self.definition.tasks[active.task]
        try:
            self.complete(
                task, active.run, active.attempt, active.raw_input, active.input, result, result=result
            )
        except Fault as fault:
            catching.fault(self, task, fault.error, result)

    def leave(self, active: m.ActiveTask, output: bytes, directive: Directive | None = None) -> None:
        """The composite task or wait `active` is over, its raw output is `output`."""
        task = self.definition.tasks[active.task]
        try:
            self.complete(
                task,
                active.run,
                active.attempt,
                active.raw_input,
                active.input,
                output,
                directive=directive,
            )
        except Fault as fault:
            catching.fault(self, task, fault.error, None)

    def _export(self, task: Task, raw: bytes, data: bytes, raw_output: bytes, output: bytes) -> bytes | None:
        rec, export = self.recording, task.export
        if export.expression is None and export.schema is None:
            return None
        context = rec.live.context
        if (form := export.expression) is not None:
            arguments = self.arguments.of(
                form.reads, task, raw=raw, data=data, raw_output=raw_output, output=output
            )
            context = self.bytes_of(form, rec.value(output), arguments, "export.as")
        if export.schema is not None and (problem := export.schema.problem(rec.value(context))):
            raise invalid("exported context", problem)
        return None if context == rec.live.context else context

    def follow(self, task: Task, directive: Directive, output: bytes) -> None:
        """What comes after `task`, whose transformed output was `output`."""
        if task.pointer.endswith("/extended"):  # what follows it follows its extensions
            scopes.leave(self, task, "continue", output)
        elif directive == "continue" and task.next is not None:
            self.agenda.appendleft(task.next)
        elif directive.startswith("/"):
            self.agenda.appendleft(directive)
        else:
            scopes.leave(self, task, directive, output)

    # -- expressions --------------------------------------------------------------------------------------------

    def value_of(
        self, form: Expression | Template, value: Json, arguments: Mapping[str, Json], where: str
    ) -> Any:
        try:
            return form.evaluate(value, arguments)
        except ExpressionError as problem:
            raise expression_failed(where, str(problem)) from None

    def bytes_of(
        self, form: Expression | Template, value: Json, arguments: Mapping[str, Json], where: str
    ) -> bytes:
        try:
            return self.recording.bytes_of(form.evaluate(value, arguments))
        except ExpressionError as problem:
            raise expression_failed(where, str(problem)) from None

    def truth(self, form: Expression, value: Json, arguments: Mapping[str, Json], where: str) -> bool:
        """jq's truth: everything but false and null."""
        result = self.value_of(form, value, arguments, where)
        return result is not None and result is not False
