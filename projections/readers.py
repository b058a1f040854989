"""Puts the questions of queries.py to Postgres: `Reader` for asyncio (pooled), `SyncReader` over one connection.

Sessions speak UTC. A Postgres that does not answer is an AwayError, and the pool recovers by itself.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from engine.errors import AwayError
from projections.queries import Ask
from projections.statements import analysis_statements, statements

T = TypeVar("T")
_SQL: Final = statements("reads") | analysis_statements()
_SESSION: Final = {"autocommit": True, "options": "-c timezone=UTC", "connect_timeout": 5}


def _away(problem: Exception) -> AwayError:
    return AwayError(f"Expected Postgres to answer but {str(problem).strip() or type(problem).__name__}")


class Reader:
    """Use `open()` and `close()`, or `async with`. Opening does not need Postgres to be up."""

    def __init__(self, postgres: str, *, connections_max: int = 10, timeout_s: float = 5.0) -> None:
        self.pool = AsyncConnectionPool(
            postgres,
            min_size=1,
            max_size=connections_max,
            open=False,
            timeout=timeout_s,
            kwargs=dict(_SESSION),
        )

    async def open(self) -> None:
        await self.pool.open(wait=False)

    async def close(self) -> None:
        await self.pool.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ask(self, ask: Ask[T]) -> T:
        """Raises AwayError when Postgres does not answer."""
        try:
            return await self._put(ask)
        except PoolTimeout as problem:
            raise _away(problem) from None
        except (psycopg.OperationalError, psycopg.InterfaceError):
            pass  # a restarted Postgres leaves dead connections in the pool: replace them, then ask once more
        try:
            await self.pool.check()
            return await self._put(ask)
        except (psycopg.OperationalError, psycopg.InterfaceError) as problem:
            raise _away(problem) from None

    async def _put(self, ask: Ask[T]) -> T:
        async with self.pool.connection() as connection:
            # never a prepared generic plan: filters that are null must be planned away
            cursor = await connection.execute(_SQL[ask.statement], ask.parameters, prepare=False)
            return ask.answer(await cursor.fetchall())


class SyncReader:
    """For the command line and replay: one connection, opened at once."""

    def __init__(self, postgres: str) -> None:
        try:
            self.connection = psycopg.connect(
                postgres, autocommit=True, options="-c timezone=UTC", connect_timeout=5
            )
        except psycopg.OperationalError as problem:
            raise _away(problem) from None

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, ask: Ask[T]) -> T:
        """Raises AwayError when Postgres does not answer."""
        try:
            cursor = self.connection.execute(_SQL[ask.statement], ask.parameters, prepare=False)
            return ask.answer(cursor.fetchall())
        except (psycopg.OperationalError, psycopg.InterfaceError) as problem:
            raise _away(problem) from None
