"""Live progress on standard error: a bar on a terminal, a plain line now and then elsewhere. Standard output stays clean."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_BAR_EVERY_S: Final = 0.1
_LINE_EVERY_S: Final = 1.0


class Progress:
    """`show` as often as you like; `due` says when asking for numbers that cost something is worth it."""

    def __init__(self, flows: int) -> None:
        self.flows = flows
        self.started = 0
        self.ended = 0
        self._shown_at = 0.0
        self._line_shown = (-1, -1)
        self._bars: Bars | None = None
        self._tasks: tuple[TaskID, TaskID] | None = None
        self._every_s = _BAR_EVERY_S if sys.stderr.isatty() else _LINE_EVERY_S

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bars = Bars(*columns, console=Console(stderr=True))
            self._tasks = (
                self._bars.add_task("flows started", total=self.flows),
                self._bars.add_task("flows ended", total=self.flows),
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None and self._tasks is not None:
            self._bars.update(self._tasks[0], completed=self.started)
            self._bars.update(self._tasks[1], completed=self.ended)
            self._bars.stop()
        elif kind is None and self._line_shown != (self.started, self.ended):
            self._line()

    def due(self) -> bool:
        return time.monotonic() - self._shown_at >= self._every_s

    def show(self, started: int, ended: int) -> None:
        self.started, self.ended = started, ended
        if not self.due():
            return
        self._shown_at = time.monotonic()
        if self._bars is None or self._tasks is None:
            if self._line_shown != (started, ended):
                self._line()
        else:
            self._bars.update(self._tasks[0], completed=started)
            self._bars.update(self._tasks[1], completed=ended)

    def _line(self) -> None:
        self._line_shown = (self.started, self.ended)
        print(
            f"{self.started} of {self.flows} flows started, {self.ended} ended", file=sys.stderr, flush=True
        )
