"""Partitions verified by several processes at once: each gets its share, and tells what it read and what it found.

Started by `spawn`, because clients of Kafka do not survive a fork. A process whose parent is gone ends at its next
word; a process that dies ends the verification with an error, because a part nobody read is not verified.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Generic, Protocol, TypeVar, cast

from engine.errors import FlowtrailError

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class Job(Protocol[Found_co]):
    """What a process does. Picklable; `verify` tells `passed` how many records were read since it was told last."""

    def verify(self, partition: int, passed: Callable[[int], None]) -> Found_co: ...


class _Done(Generic[Found]):
    """A partition's result on its way to the parent."""

    def __init__(self, found: Found) -> None:
        self.found = found


def share(sizes: Mapping[int, int], processes: int) -> list[list[int]]:
    """Partitions for each process, the greatest first, so that all have about the same to read. No share is empty."""
    shares: list[list[int]] = [[] for _ in range(max(1, min(processes, len(sizes))))]
    loads = [0] * len(shares)
    for partition in sorted(sizes, key=lambda p: (-sizes[p], p)):
        least = loads.index(min(loads))
        shares[least].append(partition)
        loads[least] += sizes[partition] + 1
    return shares


def run(job: Job[Found], shares: list[list[int]], passed: Callable[[int], None]) -> Iterator[Found]:
    """What the job found of each partition, in any order. One share runs in this process."""
    if len(shares) == 1:
        for partition in shares[0]:
            yield job.verify(partition, passed)
        return
    context = get_context("spawn")
    children = []
    waiting: dict[Connection, int] = {}
    try:
        for partitions in shares:
            reader, writer = context.Pipe(duplex=False)
            child = context.Process(target=_work, args=(writer, job, partitions), daemon=True)
            child.start()
            children.append(child)
            writer.close()
            waiting[reader] = len(partitions)
        while waiting:
            for ready in wait(list(waiting)):
                yield from _hear(cast("Connection", ready), waiting, passed)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join()


def _hear(
    reader: Connection, waiting: dict[Connection, int], passed: Callable[[int], None]
) -> Iterator[Found]:
    try:
        heard = reader.recv()
    except EOFError:
        raise FlowtrailError(
            "Expected every process to verify its partitions but one ended before (killed, or out of memory)"
        ) from None
    if isinstance(heard, Exception):
        raise heard
    if isinstance(heard, int):
        passed(heard)
        return
    waiting[reader] -= 1
    if not waiting[reader]:
        del waiting[reader]
    yield heard.found


def _work(writer: Connection, job: Job[Found], partitions: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    try:
        for partition in partitions:
            writer.send(_Done(job.verify(partition, writer.send)))
    except BrokenPipeError:
        return
    except FlowtrailError as problem:
        writer.send(problem)
    except Exception as defect:
        writer.send(FlowtrailError(f"{type(defect).__name__}: {defect} (while verifying {partitions})"))
