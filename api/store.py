"""The port `Store` over Postgres, through the read side's pool.

Claims commit without waiting for the disk: an idempotency key also determines the ids it leads to (starting.py), so a
row lost with a crashed Postgres is written again with the same content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from api.ports import Claim, Kept, Outcome, PendingApproval, StoredKey
from api.statements import statements
from engine.errors import AwayError
from projections.migrations import released

Row = tuple[Any, ...]


class PostgresStore:
    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._sql = statements()

    async def key(self, key_id: str) -> StoredKey | None:
        rows = await self._run("key", {"key_id": key_id})
        return StoredKey(rows[0][0], bytes(rows[0][1]), *rows[0][2:]) if rows else None

    async def key_used(self, key_id: str) -> None:
        await self._run("key_used", {"key_id": key_id}, durable=False)

    async def claim(self, claims: Sequence[Claim]) -> dict[tuple[str, str], Kept]:
        parameters = {
            "key_ids": [claim.key_id for claim in claims],
            "idempotency_keys": [claim.idempotency_key for claim in claims],
            "request_hashes": [claim.request_hash for claim in claims],
            "flow_ids": [claim.flow_id for claim in claims],
            "command_ids": [claim.command_id for claim in claims],
        }
        rows = await self._run("claim", parameters, durable=False)
        return {(row[0], row[1]): Kept(bytes(row[2]), *row[3:]) for row in rows}

    async def forget_claims(self, days: int, most: int) -> int:
        return len(await self._run("forget_claims", {"days": days, "most": most}, durable=False))

    async def claim_definition(self, definition: str, digest: bytes) -> bytes:
        rows = await self._run("claim_definition", {"definition": definition, "hash": digest})
        return bytes(rows[0][0])

    async def started_by(self, flow_ids: Sequence[str]) -> dict[str, str]:
        return dict(await self._run("started_by", {"flow_ids": list(flow_ids)}))

    async def outcomes(self, flow_ids: Sequence[str], command_ids: Sequence[str]) -> list[Outcome]:
        parameters = {"flow_ids": list(flow_ids), "command_ids": list(command_ids)}
        return [Outcome(*row) for row in await self._run("outcomes", parameters)]

    async def approvals(
        self, flow_id: str | None, definition: str | None, after: tuple[datetime, str, str] | None, limit: int
    ) -> list[PendingApproval]:
        at, last_flow, last_task = after or (None, None, None)
        parameters = {
            "flow_id": flow_id,
            "definition": definition,
            "any_version": definition is not None and "@" not in definition,
            "at": at,
            "last_flow": last_flow,
            "last_task": last_task,
            "limit": limit,
        }
        return [PendingApproval(*row) for row in await self._run("approvals", parameters)]

    async def check(self) -> None:
        try:
            rows = await self._run("applied", {})
        except psycopg.errors.UndefinedTable:
            rows = []
        missing = len(released()) - len(rows)
        if missing > 0:
            raise AwayError(
                f"Expected the database to have {len(released())} migrations but {missing} are missing; "
                "run: flowtrail admin init"
            )

    async def _run(self, statement: str, parameters: Mapping[str, Any], *, durable: bool = True) -> list[Row]:
        """Rows of `statement`. Every statement may be repeated: one more try heals a pool of dead connections."""
        try:
            return await self._once(statement, parameters, durable)
        except PoolTimeout as problem:
            raise _away(problem) from None
        except (psycopg.OperationalError, psycopg.InterfaceError):
            pass
        try:
            await self._pool.check()
            return await self._once(statement, parameters, durable)
        except (psycopg.OperationalError, psycopg.InterfaceError) as problem:
            raise _away(problem) from None

    async def _once(self, statement: str, parameters: Mapping[str, Any], durable: bool) -> list[Row]:
        async with self._pool.connection() as connection:
            if durable:
                cursor = await connection.execute(self._sql[statement], parameters)
                return await cursor.fetchall() if cursor.description else []
            async with connection.transaction(), connection.pipeline() as pipeline:
                await connection.execute(self._sql["not_durable"])
                cursor = await connection.execute(self._sql[statement], parameters)
                await pipeline.sync()  # until then a cursor does not know whether there are rows
                return await cursor.fetchall() if cursor.description else []


def _away(problem: Exception) -> AwayError:
    return AwayError(f"Expected Postgres to answer but {str(problem).strip() or type(problem).__name__}")
