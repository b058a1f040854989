"""Rows of `sql/queries/reads.sql` to the structs of views.py. Pure; the order of columns is that of the statements."""

from __future__ import annotations

from typing import Any

import msgspec

from projections import views
from projections.dataflow import Happening, Step, Turn, fill
from schemas import messages as m

Row = tuple[Any, ...]


def raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())


def _summary(row: Row) -> dict[str, Any]:
    return {
        "id": row[0],
        "definition": row[1],
        "namespace": row[2],
        "name": row[3],
        "version": row[4],
        "definition_hash": row[5].hex(),
        "status": row[6],
        "sequence": row[7],
        "head": row[8].hex(),
        "started_at": row[9],
        "updated_at": row[10],
        "ended_at": row[11],
        "started_by": m.Actor(row[12], row[13]),
        "command_id": row[14],
        "trace": row[15],
        "reason": row[16],
        "partition": row[17],
        "first_offset": row[18],
        "last_offset": row[19],
        "engine_version": row[20],
        "error": raw(row[21]),
    }


def summary(row: Row) -> views.FlowSummary:
    return views.FlowSummary(**_summary(row))


def flow(row: Row) -> views.Flow:
    return views.Flow(
        **_summary(row),
        input=raw(row[22]),
        transformed=raw(row[23]),
        context=raw(row[24]),
        output=raw(row[25]),
        active=row[26],
        parent_flow=row[27],
        parent_task=row[28],
        deadline_at=row[29],
        broken=row[30],
    )


def tasks(found: list[Row]) -> list[views.TaskView]:
    """In the order they began, with "same as before" resolved. The flow's data comes with the first row only."""
    data = next((row[0] for row in found if row[0] is not None), None)
    steps = [
        Step(
            task=row[1],
            status=row[8],
            begun=row[10],
            ended=row[11],
            input=row[16],
            result=row[18],
            output=row[19],
            happened=[_happening(text) for text in row[29] or ()],
        )
        for row in found
    ]
    turns = next((row[30] for row in found if row[30] is not None), ())
    fill(data, steps, [_turn(text) for text in turns])
    paired = sorted(zip(found, steps, strict=True), key=lambda pair: pair[1].begun or pair[0][9])
    return [_task(row, step) for row, step in paired]


def _happening(text: str) -> Happening:
    sequence, kind, body = text.split(" ", 2)
    return Happening(int(sequence), kind, body)


def _turn(text: str) -> Turn:
    sequence, kind, body = text.split(" ", 2)
    return Turn(int(sequence), kind, body)


def _task(row: Row, step: Step) -> views.TaskView:
    scheduled_at, ended_at = row[12], row[13]
    timed = scheduled_at is not None and ended_at is not None
    return views.TaskView(
        task=row[1],
        run=row[2],
        attempt=row[3],
        name=row[4],
        kind=row[5],
        queue=row[6],
        function=row[7],
        status=row[8],
        sequence=row[9],
        scheduled_sequence=row[10],
        ended_sequence=row[11],
        scheduled_at=scheduled_at,
        ended_at=ended_at,
        duration_ms=(ended_at - scheduled_at).total_seconds() * 1000 if timed else None,
        ended_by=None if row[14] is None else m.Actor(row[14], row[15]),
        input=raw(step.input),
        arguments=raw(row[17]),
        result=raw(row[18]),
        output=raw(step.output),
        error=raw(row[20]),
        branch=row[21],
        deadline_at=row[22],
        due_at=row[23] if ended_at is None else None,
        due_for=row[24] if ended_at is None else None,
        iteration=row[25],
        progress=raw(row[26]),
        child=row[27],
        priority=row[28],
    )


def history(row: Row) -> views.HistoryEntry:
    return views.HistoryEntry(
        time=row[0],
        flow_id=row[1],
        sequence=row[2],
        event_id=f"{row[1]}/{row[2]}",
        kind=row[3],
        ce_type=m.CLOUDEVENT_TYPES[row[3]],
        task=row[4],
        run=row[5],
        attempt=row[6],
        actor=m.Actor(row[7], row[8]),
        cause=m.Cause(row[9], row[10], row[11]),
        partition=row[12],
        offset=row[13],
        definition=row[14],
        trace=row[15],
        body=msgspec.Raw(row[16].encode()),
    )


def rejection(row: Row) -> views.RejectionView:
    return views.RejectionView(
        time=row[0],
        flow_id=row[1],
        command=row[2],
        code=row[3],
        reason=row[4],
        task=row[5],
        actor=m.Actor(row[6], row[7]),
        cause=m.Cause(row[8], row[9], row[10]),
        partition=row[11],
        offset=row[12],
        trace=row[13],
    )


def unreadable(row: Row) -> views.Unreadable:
    return views.Unreadable(
        partition=row[0],
        offset=row[1],
        seen_at=row[2],
        key=row[3],
        value=row[4],
        code=row[5],
        reason=row[6],
    )


def position(row: Row) -> views.PositionView:
    return views.PositionView(
        projection=row[0],
        topic=row[1],
        partition=row[2],
        next_offset=row[3],
        command_offset=row[4],
        event_time=row[5],
        updated_at=row[6],
    )
