"""How far the read models have come: `partition:offset` tokens of commands, waited for and reported.

A position only grows, so one read before an answer's data is a promise that answer keeps. Waiting requests share one
query at a time. A command without consequences (the same one sent twice) moves no position by itself; the next one in
its partition does.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from api.errors import Behind, Invalid
from api.gathered import Gathered
from api.metrics import WAITERS
from api.ports import Reads
from projections.queries import positions

HEADER: Final = "Flowtrail-Position"
WAIT_MAX_S: Final = 10.0
_PAUSE_S: Final = 0.005
_OLD_S: Final = 0.02
_TOKEN: Final = re.compile(r"([0-9]{1,4}):([0-9]{1,18})")


def read_tokens(text: str, partitions: int) -> dict[int, int]:
    """Partition -> offset of "p:o[,p:o ...]". Raises Invalid."""
    wanted: dict[int, int] = {}
    for token in text.split(","):
        found = _TOKEN.fullmatch(token.strip())
        if found is None or int(found[1]) >= partitions:
            raise Invalid(
                f"Expected min_position as an earlier answer gave it (partition:offset) but found {text[:100]!r}",
                slug="invalid-parameter",
            )
        wanted[int(found[1])] = max(int(found[2]), wanted.get(int(found[1]), 0))
    return wanted


def token(partition: int, offset: int) -> str:
    return f"{partition}:{offset}"


class Positions:
    """`topic` is the full name of the events topic."""

    def __init__(self, reads: Reads, topic: str, partitions: int) -> None:
        self._reads, self._topic, self.partitions = reads, topic, partitions
        self._known: dict[int, int] = {}
        self._at = float("-inf")
        self._shared: Gathered[None, dict[int, int]] = Gathered(self._load)

    async def now(self) -> dict[int, int]:
        """Partition -> offset of the last command whose consequences are in the read models, just read."""
        return await self._shared.get(None) or {}

    async def reached(self, wanted: dict[int, int], timeout_s: float = WAIT_MAX_S) -> None:
        """Raises Behind when that takes too long, AwayError when Postgres does not answer."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        with WAITERS.track_inprogress():
            while True:
                known = await self.now()
                if all(known.get(partition, -1) >= offset for partition, offset in wanted.items()):
                    return
                if loop.time() > end:
                    behind = ", ".join(
                        f"{partition}:{known.get(partition, -1)} for {partition}:{offset}"
                        for partition, offset in wanted.items()
                        if known.get(partition, -1) < offset
                    )
                    raise Behind(
                        f"Expected the read model to reach the position within {timeout_s:.0f} s but it is at {behind}"
                    )
                await asyncio.sleep(_PAUSE_S)

    async def header(self, partition: int | None = None) -> dict[str, str]:
        """What an answer begun now is at least as of, in one partition or in all of them."""
        if asyncio.get_running_loop().time() - self._at > _OLD_S:
            await self.now()
        shown = {partition: self._known.get(partition, -1)} if partition is not None else self._known
        value = ",".join(token(p, offset) for p, offset in sorted(shown.items()) if offset >= 0)
        return {HEADER: value} if value else {}

    async def _load(self, _: list[None]) -> dict[None, dict[int, int]]:
        found: dict[int, int] = {}
        for row in await self._reads.ask(positions(self._topic)):
            known = found.get(row.partition)
            found[row.partition] = row.command_offset if known is None else min(known, row.command_offset)
        self._known, self._at = found, asyncio.get_running_loop().time()
        return {None: found}
