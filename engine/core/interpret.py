"""Performing tasks: from one point of a flow to the next point where it must wait for somebody, or to its end.

Data flow of a task, in the order of the specification (dsl.md, Data Flow): `if` on the raw input; `input.schema`,
`input.from`; the task itself; `output.as`, `output.schema`; `export.as`, `export.schema`; then the flow directive.
Composite tasks are entered and left by events, so the state alone says where a flow stands. A task whose `if` is
false is skipped: its raw input is its output and its own `then` does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from engine.core.evolve import active_of, scope_data, scope_of
from engine.core.faults import Fault, expression_failed, invalid, runtime_failed
from engine.core.recording import Recording
from engine.dsl.errors import ExpressionError
from engine.dsl.model import (
    Call,
    Definition,
    Directive,
    Do,
    Expression,
    Json,
    Raise,
    Set,
    Switch,
    Task,
    Template,
)
from schemas import messages as m

STEPS_MAX: Final = 10_000
"""How many tasks one decision may perform: a loop that waits for nobody ends here, as a fault of its flow."""

_NO_ARGUMENTS: Final[Mapping[str, Json]] = {}


def _moment(microseconds: int) -> Json:
    """The DSL's DateTime descriptor."""
    at = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    return {
        "iso8601": at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{microseconds % 1_000_000:06d}Z",
        "epoch": {"seconds": microseconds // 1_000_000, "milliseconds": microseconds // 1000},
    }


class Interpreter:
    """Performs the tasks of one flow within one decision, through `recording`."""

    __slots__ = ("definition", "recording", "steps")

    def __init__(self, definition: Definition, recording: Recording) -> None:
        self.definition = definition
        self.recording = recording
        self.steps = 0

    # -- the flow -----------------------------------------------------------------------------------------------

    def start(self, body: m.StartFlow, version: str) -> None:
        """Validates and transforms the input, then performs the first tasks."""
        rec, definition = self.recording, self.definition
        assert isinstance(body.input, bytes)
        started = m.FlowStarted(input=body.input, engine_version=version)
        try:
            raw = rec.value(body.input)
            if definition.input.schema is not None and (problem := definition.input.schema.problem(raw)):
                raise invalid("flow input", problem)
            data = body.input
            if (source := definition.input.expression) is not None:
                arguments = self._arguments(source, None, started=(body.input, version))
                data = self._bytes(source, raw, arguments, "input.from")
        except Fault as fault:
            rec.emit(started)
            self._fault_flow(fault.error, "/input")
            return
        transformed = None if data == body.input else data
        rec.emit(m.FlowStarted(input=body.input, transformed=transformed, engine_version=version))
        self.run(definition.first)

    def run(self, pointer: str | None) -> None:
        """Performs tasks from `pointer` on until the flow waits or has ended."""
        while pointer is not None:
            self.steps += 1
            if self.steps > STEPS_MAX:
                detail = (
                    f"Expected the flow to wait or end within {STEPS_MAX} tasks but it went on at {pointer}"
                )
                self._fault_task(
                    self.definition.tasks[pointer], runtime_failed("Endless loop", detail).error, None
                )
                return
            pointer = self._perform(self.definition.tasks[pointer])

    def _complete_flow(self) -> None:
        rec, output = self.recording, self.definition.output
        try:
            data = rec.live.data
            if output.expression is not None:
                arguments = self._arguments(output.expression, None)
                data = self._bytes(output.expression, rec.value(data), arguments, "output.as")
            if output.schema is not None and (problem := output.schema.problem(rec.value(data))):
                raise invalid("flow output", problem)
        except Fault as fault:
            self._fault_flow(fault.error, "/output")
            return
        rec.emit(m.FlowCompleted(output=data))

    def _fault_flow(self, error: m.Error, instance: str) -> None:
        self.recording.emit(m.FlowFaulted(_located(error, instance)))

    # -- one task -----------------------------------------------------------------------------------------------

    def _perform(self, task: Task) -> str | None:
        """Performs `task`; the pointer of the next one, or None when the flow waits or has ended."""
        rec = self.recording
        raw = scope_data(rec.live, task.pointer)
        try:
            if task.condition is not None:
                arguments = self._arguments(task.condition, task, raw=raw)
                if not self._truth(task.condition, rec.value(raw), arguments, "if"):
                    rec.emit(m.TaskSkipped(), task.pointer)
                    return self._next(task, "continue")
            if task.input.schema is not None and (problem := task.input.schema.problem(rec.value(raw))):
                raise invalid("task input", problem)
            data = raw
            if (source := task.input.expression) is not None:
                data = self._bytes(
                    source, rec.value(raw), self._arguments(source, task, raw=raw), "input.from"
                )
            return self._execute(task, raw, data)
        except Fault as fault:
            self._fault_task(task, fault.error, None)
            return None

    def _execute(self, task: Task, raw: bytes, data: bytes) -> str | None:
        rec = self.recording
        run = rec.live.runs.get(task.pointer, 0) + 1
        changed = None if data == raw else data
        match task:
            case Set():
                arguments = self._arguments(task.value, task, raw=raw, data=data)
                output = self._bytes(task.value, rec.value(data), arguments, "set")
                return self._complete(task, run, 1, raw, data, output)
            case Switch():
                branch, directive = self._choose(task, raw, data)
                return self._complete(task, run, 1, raw, data, data, branch=branch, directive=directive)
            case Raise():
                raise self._raised(task, raw, data)
            case Do():
                rec.emit(m.TaskStarted(input=changed), task.pointer, run, 1)
                return task.first
            case Call():
                given = None
                if task.arguments is not None:
                    arguments = self._arguments(task.arguments, task, raw=raw, data=data)
                    made = self._bytes(task.arguments, rec.value(data), arguments, "with")
                    given = None if made == data else made
                scheduled = m.TaskScheduled(task.queue, task.function, changed, given)
                rec.emit(scheduled, task.pointer, run, 1)
                return None
            case _:
                raise AssertionError(f"Expected a known task but found {task.kind}")

    def _choose(self, task: Switch, raw: bytes, data: bytes) -> tuple[str | None, Directive]:
        """The first case that holds, or the default one; without either the flow goes on by the task's `then`."""
        default: tuple[str | None, Directive] = (None, task.then)
        for case in task.cases:
            if case.when is None:
                default = (case.name, case.then)
                continue
            arguments = self._arguments(case.when, task, raw=raw, data=data)
            if self._truth(case.when, self.recording.value(data), arguments, f"switch case {case.name}"):
                return case.name, case.then
        return default

    def _raised(self, task: Raise, raw: bytes, data: bytes) -> Fault:
        arguments = self._arguments(task.error, task, raw=raw, data=data)
        error = self._value(task.error, self.recording.value(data), arguments, "raise")
        kind, status = error.get("type"), error.get("status")
        if not isinstance(kind, str) or not isinstance(status, int) or isinstance(status, bool):
            return expression_failed(
                "raise", f"Expected a type and a whole status but found {kind!r}, {status!r}"
            )
        title, detail = error.get("title"), error.get("detail")
        return Fault(
            m.Error(
                kind,
                status,
                None if title is None else str(title),
                None if detail is None else str(detail),
                error.get("instance"),
            )
        )

    # -- leaving a task -----------------------------------------------------------------------------------------

    def finish(self, active: m.ActiveTask, result: bytes) -> None:
        """A worker returned `result` for `active`: completes the task and performs what follows."""
        task = self.definition.tasks[active.task]
        try:
            following = self._complete(
                task, active.run, active.attempt, active.raw_input, active.input, result, result=result
            )
        except Fault as fault:
            self._fault_task(task, fault.error, result)
            return
        self.run(following)

    def fail(self, active: m.ActiveTask, error: m.Error) -> None:
        """A worker could not perform `active`."""
        self._fault_task(self.definition.tasks[active.task], error, None)

    def _complete(
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
    ) -> str | None:
        """Transforms and validates `output`, exports the context, records the completion. May raise Fault."""
        rec = self.recording
        raw_output = output
        if (form := task.output.expression) is not None:
            arguments = self._arguments(form, task, raw=raw, data=data, raw_output=raw_output)
            output = self._bytes(form, rec.value(raw_output), arguments, "output.as")
        if task.output.schema is not None and (problem := task.output.schema.problem(rec.value(output))):
            raise invalid("task output", problem)
        context = self._export(task, raw, data, raw_output, output)
        own = active_of(rec.live, task.pointer)
        if result is not None:
            unchanged = result
        else:
            unchanged = scope_data(rec.live, task.pointer) if own is None else own.data
        completed = m.TaskCompleted(
            result=result,
            output=None if output == unchanged else output,
            context=context,
            branch=branch,
        )
        rec.emit(completed, task.pointer, run, attempt)
        return self._next(task, task.then if directive is None else directive)

    def _export(self, task: Task, raw: bytes, data: bytes, raw_output: bytes, output: bytes) -> bytes | None:
        rec, export = self.recording, task.export
        if export.expression is None and export.schema is None:
            return None
        context = rec.live.context
        if (form := export.expression) is not None:
            arguments = self._arguments(form, task, raw=raw, data=data, raw_output=raw_output, output=output)
            context = self._bytes(form, rec.value(output), arguments, "export.as")
        if export.schema is not None and (problem := export.schema.problem(rec.value(context))):
            raise invalid("exported context", problem)
        return None if context == rec.live.context else context

    def _next(self, task: Task, directive: Directive) -> str | None:
        match directive:
            case "continue":
                return self._leave(task, end=False) if task.next is None else task.next
            case "exit":
                return self._leave(task, end=False)
            case "end":
                return self._leave(task, end=True)
            case _:
                return directive

    def _leave(self, task: Task, *, end: bool) -> str | None:
        """Completes the scope `task` stands in; with `end`, every scope around it and the flow."""
        rec = self.recording
        if (scope := scope_of(rec.live, task.pointer)) is None:
            self._complete_flow()
            return None
        outer = self.definition.tasks[scope.task]
        try:
            return self._complete(
                outer,
                scope.run,
                scope.attempt,
                scope.raw_input,
                scope.input,
                scope.data,
                directive="end" if end else None,
            )
        except Fault as fault:
            self._fault_task(outer, fault.error, None)
            return None

    def _fault_task(self, task: Task, error: m.Error, result: bytes | None) -> None:
        """Records the fault of `task`, of every composite task around it, and of the flow."""
        rec = self.recording
        error = _located(error, task.pointer)
        own = active_of(rec.live, task.pointer)
        run = rec.live.runs.get(task.pointer, 0) + 1 if own is None else own.run
        rec.emit(m.TaskFaulted(error, result), task.pointer, run, 1 if own is None else own.attempt)
        pointer = task.pointer
        while (scope := scope_of(rec.live, pointer)) is not None:
            rec.emit(m.TaskFaulted(error), scope.task, scope.run, scope.attempt)
            pointer = scope.task
        rec.emit(m.FlowFaulted(error))

    # -- expressions --------------------------------------------------------------------------------------------

    def _value(
        self, form: Expression | Template, value: Json, arguments: Mapping[str, Json], where: str
    ) -> Any:
        try:
            return form.evaluate(value, arguments)
        except ExpressionError as problem:
            raise expression_failed(where, str(problem)) from None

    def _bytes(
        self, form: Expression | Template, value: Json, arguments: Mapping[str, Json], where: str
    ) -> bytes:
        try:
            return self.recording.bytes_of(form.evaluate(value, arguments))
        except ExpressionError as problem:
            raise expression_failed(where, str(problem)) from None

    def _truth(self, form: Expression, value: Json, arguments: Mapping[str, Json], where: str) -> bool:
        """jq's truth: everything but false and null."""
        result = self._value(form, value, arguments, where)
        return result is not None and result is not False

    def _arguments(
        self,
        form: Expression | Template,
        task: Task | None,
        *,
        raw: bytes | None = None,
        data: bytes | None = None,
        raw_output: bytes | None = None,
        output: bytes | None = None,
        started: tuple[bytes, str] | None = None,
    ) -> Mapping[str, Json]:
        """The runtime arguments that `form` reads, and no others: building them is what costs."""
        if not form.reads:
            return _NO_ARGUMENTS
        rec = self.recording
        found: dict[str, Json] = {}
        for name in form.reads:
            match name:
                case "context":
                    found[name] = rec.value(rec.live.context)
                case "input":
                    found[name] = None if data is None else rec.value(data)
                case "output":
                    found[name] = None if output is None else rec.value(output)
                case "task":
                    found[name] = self._task_descriptor(task, raw, raw_output)
                case "workflow":
                    found[name] = self._workflow_descriptor(started)
                case "runtime":
                    version = rec.live.engine_version if started is None else started[1]
                    found[name] = {"name": "flowtrail", "version": version, "metadata": {}}
                case _:
                    found[name] = None
        return found

    def _task_descriptor(self, task: Task | None, raw: bytes | None, raw_output: bytes | None) -> Json:
        if task is None:
            return None
        rec = self.recording
        own = active_of(rec.live, task.pointer)
        return {
            "name": task.name,
            "reference": task.pointer,
            "definition": task.definition,
            "input": None if raw is None else rec.value(raw),
            "output": None if raw_output is None else rec.value(raw_output),
            "startedAt": _moment(rec.now if own is None else own.started_at),
        }

    def _workflow_descriptor(self, started: tuple[bytes, str] | None) -> Json:
        rec = self.recording
        raw, at = (rec.live.input, rec.live.started_at) if started is None else (started[0], rec.now)
        return {
            "id": rec.command.flow_id,
            "definition": self.definition.document,
            "input": rec.value(raw),
            "startedAt": _moment(at),
        }


def _located(error: m.Error, instance: str) -> m.Error:
    if error.instance is not None:
        return error
    return m.Error(error.type, error.status, error.title, error.detail, instance)
