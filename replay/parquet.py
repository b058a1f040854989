"""Parquet by pyarrow, where it is installed: the log's events and rejections, or flows' states, as tables.

pyarrow is no dependency of Flowtrail (it is larger than everything else together); without it the command ends with bad
input and says what to do. Rows are written in groups, so memory holds one group.
"""

from __future__ import annotations

import importlib
from typing import IO, Any, Final

from engine.errors import InputError
from projections import history
from projections.copying import Unstorable
from replay.export import Exported
from replay.selection import Taken
from schemas import messages as m

_GROUP: Final = 10_000
_EVENTS: Final = {
    "flow_id": "string",
    "sequence": "int64",
    "time": "time",
    "kind": "string",
    "task": "string",
    "run": "int64",
    "attempt": "int64",
    "actor_kind": "string",
    "actor_id": "string",
    "command_id": "string",
    "definition": "string",
    "definition_hash": "binary",
    "partition": "int32",
    "offset": "int64",
    "body": "string",
    "value": "binary",
}
STATES: Final = {
    "flow_id": "string",
    "definition": "string",
    "status": "string",
    "sequence": "int64",
    "head": "binary",
    "started_at": "time",
    "updated_at": "time",
    "ended_at": "time",
    "state": "string",
}


def pyarrow() -> Any:
    """The library. Raises InputError when it is not installed."""
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise InputError(
            "Expected pyarrow to be installed for Parquet but it is not; install pyarrow, or use avro or jsonl"
        ) from None


class Table:
    """Rows of `columns` (name -> kind), written in groups."""

    def __init__(self, out: IO[bytes], columns: dict[str, str]) -> None:
        self._arrow = pyarrow()
        kinds = {"time": self._arrow.timestamp("us", tz="UTC")}
        fields = [
            (name, kinds[kind] if kind in kinds else getattr(self._arrow, kind)())
            for name, kind in columns.items()
        ]
        self._schema = self._arrow.schema(fields)
        self._writer = self._arrow.parquet.ParquetWriter(out, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


class Events:
    """One row a record; of a rejection `sequence` is null and the body says what was refused, and why."""

    def __init__(self, out: IO[bytes]) -> None:
        self._table = Table(out, _EVENTS)

    def take(self, taken: Taken) -> None:
        logged, message = taken.logged, taken.message
        assert logged is not None  # export() refuses what is unreadable
        row: dict[str, Any] = {
            "flow_id": logged.flow_id,
            "time": logged.time,
            "task": logged.task,
            "actor_kind": logged.actor.kind,
            "actor_id": logged.actor.id,
            "command_id": logged.cause.command_id,
            "partition": message.partition(),
            "offset": message.offset(),
            "value": message.value(),
        }
        row |= _rejection(logged) if isinstance(logged, m.Rejection) else _event(logged)
        self._table.add(row)

    def finish(self, report: Exported) -> None:
        self._table.close()


def _event(event: m.Event) -> dict[str, Any]:
    try:
        body = history.body_json(event.body).decode("utf-8", "replace")
    except Unstorable as problem:
        body = str(problem)
    return {
        "sequence": event.sequence,
        "kind": event.kind,
        "run": event.run,
        "attempt": event.attempt,
        "definition": event.definition,
        "definition_hash": event.definition_hash,
        "body": body,
    }


def _rejection(refused: m.Rejection) -> dict[str, Any]:
    from msgspec import json

    body = {"command": refused.command, "code": refused.code, "reason": refused.reason}
    return {"kind": "Rejection", "body": json.encode(body).decode()}
