"""The runtime arguments of an expression (dsl.md, Runtime Expression Arguments), and no more than it reads.

Building them is what an evaluation costs, so only what the compiler found in `reads` is built. Variables of loops and
catches are found in the run of the task that defines them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from engine.core.folding import active_of, consumed, scope_of
from engine.core.recording import Recording
from engine.dsl.model import Definition, Extended, Json, Task
from schemas import messages as m

_NO_ARGUMENTS: Final[Mapping[str, Json]] = {}


def moment(microseconds: int) -> Json:
    """The DSL's DateTime descriptor."""
    at = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return {
        "iso8601": at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{microseconds % 1_000_000:06d}Z",
        "epoch": {"seconds": microseconds // 1_000_000, "milliseconds": microseconds // 1000},
    }


@lru_cache(maxsize=16)
def items_of(collection: bytes) -> list[Json]:
    """The items of a for's collection: decoded once for many iterations. Nobody may change them."""
    found: list[Json] = orjson.loads(collection)
    return found


class Arguments:
    """Gives the arguments of one flow's expressions within one decision."""

    __slots__ = ("definition", "recording")

    def __init__(self, definition: Definition, recording: Recording) -> None:
        self.definition = definition
        self.recording = recording

    def of(
        self,
        reads: frozenset[str],
        task: Task | None = None,
        *,
        raw: bytes | None = None,
        data: bytes | None = None,
        raw_output: bytes | None = None,
        output: bytes | None = None,
        started: tuple[bytes, str] | None = None,
        given: Mapping[str, Json] = _NO_ARGUMENTS,
    ) -> Mapping[str, Json]:
        """`given` are variables that no state holds yet (the item of the iteration to come, the error to catch)."""
        if not reads:
            return _NO_ARGUMENTS
        rec = self.recording
        found: dict[str, Json] = {}
        for name in reads:
            if name in given:
                found[name] = given[name]
                continue
            match name:
                case "context":
                    found[name] = rec.value(rec.live.context)
                case "input":
                    found[name] = None if data is None else rec.value(data)
                case "output":
                    found[name] = None if output is None else rec.value(output)
                case "task":
                    found[name] = self._task(task, raw, raw_output)
                case "workflow":
                    found[name] = self._workflow(started)
                case "runtime":
                    version = rec.live.engine_version if started is None else started[1]
                    found[name] = {"name": "flowtrail", "version": version, "metadata": {}}
                case _:
                    found[name] = self._variable(task, name)
        return found

    def _variable(self, task: Task | None, name: str) -> Json:
        if task is None or (place := task.variables.get(name)) is None:
            return None
        pointer, which = place
        active = active_of(self.recording.live, pointer)
        if active is None:
            return None
        match which:
            case "error":
                return None if active.error is None else self.recording.value(active.error)
            case "index":
                return active.index
            case "item" if active.items is not None:
                return items_of(active.items)[active.index]
            case _:
                return self.recording.value(consumed(active)[active.index].value)

    def _task(self, task: Task | None, raw: bytes | None, raw_output: bytes | None) -> Json:
        if task is None:
            return None
        rec = self.recording
        scope = scope_of(rec.live, task.pointer)
        if scope is not None and task.pointer.startswith("/extensions/", len(scope.task)):
            return self.extended(
                scope, after=task.pointer.split("/", 4 + scope.task.count("/"))[-2] == "after"
            )
        own = active_of(rec.live, task.pointer)
        return {
            "name": task.name,
            "reference": task.reference or task.pointer,
            "definition": task.definition,
            "input": None if raw is None else rec.value(raw),
            "output": None if raw_output is None else rec.value(raw_output),
            "startedAt": moment(rec.now if own is None else own.started_at),
        }

    def extended(self, scope: m.ActiveTask, *, after: bool) -> Json:
        """What `$task` reads in an extension: the task that is extended, its properties beside its description."""
        rec, task = self.recording, self.definition.tasks[scope.task]
        assert isinstance(task, Extended)
        return {
            **task.definition,
            "name": task.name,
            "reference": task.reference or task.pointer,
            "definition": task.definition,
            "input": rec.value(scope.raw_input),
            "output": rec.value(scope.data) if after else None,
            "startedAt": moment(scope.started_at),
        }

    def _workflow(self, started: tuple[bytes, str] | None) -> Json:
        rec = self.recording
        raw, at = (rec.live.input, rec.live.started_at) if started is None else (started[0], rec.now)
        value: Any = rec.value(raw)
        return {
            "id": rec.command.flow_id,
            "definition": self.definition.document,
            "input": value,
            "startedAt": moment(at),
        }
