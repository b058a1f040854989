"""The read side: one function a question, each returning an `Ask[T]`; a reader (readers.py) puts it to Postgres.

    flow = await reader.ask(get_flow("f-1"))      # readers.Reader, asynchronous, pooled
    flow = SyncReader(connection).ask(get_flow("f-1"))

Pure: an Ask is a statement's name, its parameters, and how rows become the answer. Pages are cut by key (time, then
id, newest first), so inserting or updating flows never shifts or repeats what a reader has seen.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec

from engine.errors import InputError
from projections import rows, views
from projections.views import Page

T = TypeVar("T")
LIMIT_MAX: Final = 1000
_LAST_CHARACTER: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    statement: str
    parameters: dict[str, Any]
    answer: Callable[[list[tuple[Any, ...]]], T]


def get_flow(flow_id: str) -> Ask[views.Flow | None]:
    return Ask("get_flow", {"flow_id": flow_id}, lambda found: rows.flow(found[0]) if found else None)


def list_flows(
    *,
    status: str | None = None,
    definition: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    version: str | None = None,
    id_prefix: str | None = None,
    parent: str | None = None,
    started_after: datetime | None = None,
    started_before: datetime | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Ask[Page[views.FlowSummary]]:
    """Newest first. `definition` is namespace/name or namespace/name@version; times are [after, before).

    `parent` is the flow whose sub-flows are asked for, or the schedule (~schedule/namespace/name) that starts flows.
    """
    if definition is not None and "@" not in definition:
        namespace, name, definition = *split_definition(definition)[:2], None
    at, last = _read_cursor(cursor, (datetime, str)) if cursor is not None else (None, None)
    parameters = {
        "status": status,
        "stored_status": "running" if status == "waiting" else status,
        "parent": parent,
        "definition": definition,
        "namespace": namespace,
        "name": name,
        "version": version,
        "id_from": id_prefix or None,
        "id_to": id_prefix + _LAST_CHARACTER if id_prefix else None,
        "started_after": started_after,
        "started_before": started_before,
        "at": at,
        "id": last,
        "limit": _limit(limit) + 1,
    }
    return Ask(
        "list_flows",
        parameters,
        lambda found: _page(found, limit, rows.summary, lambda flow: (flow.started_at, flow.id)),
    )


def tasks_of(flow_id: str) -> Ask[list[views.TaskView]]:
    """Every task of a flow in the order it began."""
    return Ask("tasks_of", {"flow_id": flow_id}, rows.tasks)


def history_of(
    flow_id: str, *, after_sequence: int = 0, limit: int = LIMIT_MAX
) -> Ask[list[views.HistoryEntry]]:
    parameters = {"flow_id": flow_id, "after": after_sequence, "limit": _limit(limit)}
    return Ask("history_of", parameters, lambda found: [rows.history(row) for row in found])


def rejections(
    *, flow_id: str | None = None, code: str | None = None, cursor: str | None = None, limit: int = 100
) -> Ask[Page[views.RejectionView]]:
    """Newest first."""
    at, partition, offset = (
        _read_cursor(cursor, (datetime, int, int)) if cursor is not None else (None, None, None)
    )
    parameters = {
        "flow_id": flow_id,
        "code": code,
        "at": at,
        "partition": partition,
        "event_offset": offset,
        "limit": _limit(limit) + 1,
    }
    return Ask(
        "rejections",
        parameters,
        lambda found: _page(found, limit, rows.rejection, lambda r: (r.time, r.partition, r.offset)),
    )


def rejection_of_command(flow_id: str, command_id: str) -> Ask[views.RejectionView | None]:
    """The refusal of one command, None when it was not refused (or not yet)."""
    parameters = {"flow_id": flow_id, "command_id": command_id}
    return Ask("rejection_of_command", parameters, lambda found: rows.rejection(found[0]) if found else None)


def unreadable(limit: int = 100) -> Ask[list[views.Unreadable]]:
    """Records of the log that are in no read model, and why."""
    return Ask("unreadable", {"limit": _limit(limit)}, lambda found: [rows.unreadable(row) for row in found])


def count_unreadable() -> Ask[int]:
    return Ask("count_unreadable", {}, lambda found: int(found[0][0]))


def count_broken() -> Ask[int]:
    """Flows whose events in the log do not follow one another."""
    return Ask("count_broken", {}, lambda found: int(found[0][0]))


def count_healings() -> Ask[int]:
    return Ask("count_healings", {}, lambda found: int(found[0][0]))


def healings(limit: int = 100) -> Ask[list[views.Healing]]:
    """The last flows whose rows were not what the log says, and were folded anew."""
    return Ask("healings", {"limit": _limit(limit)}, lambda found: [views.Healing(*row) for row in found])


def positions(topic: str) -> Ask[list[views.PositionView]]:
    """How far the read models have come, a row a partition of `topic` (its full name)."""
    return Ask("positions", {"topic": topic}, lambda found: [rows.position(row) for row in found])


def positions_of_flow(flow_id: str) -> Ask[list[tuple[int, int, int]]]:
    """(partition, offset, sequence) of every event of a flow: where replay finds it in the log."""
    return Ask("positions_of_flow", {"flow_id": flow_id}, lambda found: [(p, o, s) for p, o, s in found])


def ended_among(flow_ids: Sequence[str]) -> Ask[dict[str, str]]:
    """Flow id -> status of those that have ended."""
    return Ask("ended_among", {"flow_ids": list(flow_ids)}, lambda found: {row[0]: row[1] for row in found})


def rejected_among(flow_ids: Sequence[str]) -> Ask[dict[str, tuple[str, str]]]:
    """Flow id -> (code, reason) of those whose start was refused."""
    return Ask(
        "rejected_among",
        {"flow_ids": list(flow_ids)},
        lambda found: {row[0]: (row[1], row[2]) for row in found},
    )


def counts_by_status(definition: str) -> Ask[dict[str, int]]:
    """Status -> flows of a definition (namespace/name: all versions)."""
    return Ask("counts_by_status", _parts(definition), lambda found: {row[0]: row[1] for row in found})


def counts_by_branch(definition: str) -> Ask[list[views.BranchCount]]:
    """How many flows took each branch of each switch of a definition (namespace/name: all versions)."""
    namespace, name, version = split_definition(definition)
    exact = f"{namespace}/{name}@{version or ''}"
    upper = exact + ("\x01" if version else _LAST_CHARACTER)
    return Ask(
        "counts_by_branch",
        {"definition_from": exact, "definition_to": upper},
        lambda found: [views.BranchCount(*row) for row in found],
    )


def durations(definition: str) -> Ask[views.Durations]:
    """How long the ended flows of a definition took (namespace/name: all versions)."""
    return Ask("durations", _parts(definition), lambda found: views.Durations(*found[0]))


def split_definition(definition: str) -> tuple[str, str, str | None]:
    """namespace/name[@version] in its parts. Raises InputError."""
    name, _, version = definition.partition("@")
    namespace, slash, name = name.partition("/")
    if not (namespace and slash and name):
        raise InputError(f"Expected namespace/name or namespace/name@version but found {definition!r}")
    return namespace, name, version or None


def _parts(definition: str) -> dict[str, Any]:
    namespace, name, version = split_definition(definition)
    return {"namespace": namespace, "name": name, "version": version}


def _limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MAX:
        raise InputError(f"Expected a limit from 1 to {LIMIT_MAX} but found {limit}")
    return limit


def _page(
    found: list[tuple[Any, ...]],
    limit: int,
    build: Callable[[tuple[Any, ...]], T],
    key: Callable[[T], tuple[Any, ...]],
) -> Page[T]:
    items = [build(row) for row in found[:limit]]
    return Page(items, _write_cursor(key(items[-1])) if len(found) > limit else None)


def _write_cursor(key: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _read_cursor(cursor: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=tuple[kinds])  # type: ignore[valid-type]
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise InputError(
            f"Expected the cursor of a page that was answered before but found {cursor[:100]!r}"
        ) from None
