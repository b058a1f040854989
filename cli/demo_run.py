"""The demo's run: publish the definition, start a flow a case, see them end, and check what came out of it.

Everything found is told by somebody else than who did it: starts go through the API, ends and branches are read from
the read model, the counts they must equal come from the event log, and replay proves every flow from Kafka alone.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.demo_progress import Progress
from engine.errors import AwayError

if TYPE_CHECKING:
    from flowtrail import Client

    from cli.demo_installation import DemoInstallation
    from examples.permit.xes import CaseInput
    from projections.readers import SyncReader

NAME: Final = "municipality/permit"
SWITCH: Final = "/route"
_SOURCE: Final = Path(__file__).resolve().parents[1] / "examples" / "permit" / "permit.yaml"
_VERSION: Final = "version: '1.0.0'"
_STARTERS: Final = 16
_PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.1
_DIFFERENCES_MAX: Final = 20


@dataclass(kw_only=True)
class Outcome:
    """`differences` says what is not as it must be; empty means that all is well."""

    flows: int
    completed: int
    faulted: int
    by_branch: dict[str, int]
    expected_by_branch: dict[str, int]
    flows_per_second: float
    p50_ms: float
    p99_ms: float
    replay_verified: int
    first_id: str
    differences: list[str] = field(default_factory=list)


def run(
    installation: DemoInstallation,
    cases: Sequence[CaseInput],
    expected: Mapping[str, int],
    turn: int,
    say: Callable[[str], None],
) -> Outcome:
    """Flows are named after their cases.

    Each later run in a kept directory has a prefix and a version of the definition of its own, so that what an
    earlier one left running cannot be taken for its own.
    """
    from flowtrail import Client

    from projections.readers import SyncReader

    prefix = "" if turn == 1 else f"run{turn}-"
    with (
        Client(installation.api_url, installation.api_key, retry_s=30) as client,
        SyncReader(installation.postgres) as reader,
    ):
        definition = _publish(client, turn)
        say(f"published {definition}")
        with Progress(len(cases)) as progress:
            ids = {prefix + case["case"]: case for case in cases}
            refused = _start(client, definition, ids, progress, lambda: _ended(reader, definition))
            _await_ends(len(cases) - len(refused), progress, lambda: _ended(reader, definition))
        found = _summary(reader, definition, len(cases))
        by_branch = _branches(reader, definition)
    say("verifying every flow by replay")
    verified, unverified = _verify(installation, len(cases))
    outcome = Outcome(
        **found,
        by_branch=by_branch,
        expected_by_branch={name: expected[name] for name in sorted(expected, key=lambda n: -expected[n])},
        replay_verified=verified,
        first_id=prefix + cases[0]["case"],
    )
    outcome.differences = _some([*refused, *_differences(outcome), *unverified])
    return outcome


def _some(differences: list[str]) -> list[str]:
    """What a person can read; the count says how much more there is."""
    left = len(differences) - _DIFFERENCES_MAX
    return differences if left <= 0 else [*differences[:_DIFFERENCES_MAX], f"and {left} more"]


# -- starting and waiting ------------------------------------------------------------------------------------------


def _publish(client: Client, turn: int) -> str:
    source = _SOURCE.read_text("utf-8")
    assert source.count(_VERSION) == 1, f"Expected {_VERSION} once in {_SOURCE}"
    version = f"1.0.{turn - 1}"
    client.publish(source.replace(_VERSION, f"version: '{version}'"))
    return f"{NAME}@{version}"


def _start(
    client: Client,
    definition: str,
    cases: Mapping[str, CaseInput],
    progress: Progress,
    ended: Callable[[], int],
) -> list[str]:
    """Starts a flow for every case by its id; what the API refused, in words."""
    from flowtrail import ApiError, Unreachable

    refused = []
    with ThreadPoolExecutor(_STARTERS, thread_name_prefix="start") as pool:
        starts: dict[Future[Any], str] = {}
        for flow_id, case in cases.items():
            started = pool.submit(
                client.start, definition, case, id=flow_id, idempotency_key=f"demo-{flow_id}"
            )
            starts[started] = flow_id
        try:
            for number, started in enumerate(as_completed(starts), 1):
                try:
                    started.result()
                except ApiError as refusal:
                    refused.append(f"Expected flow {starts[started]} to start but {refusal}")
                except Unreachable as silence:
                    raise AwayError(str(silence)) from None
                progress.started = number
                if progress.due():
                    progress.show(number, ended())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return refused


def _await_ends(flows: int, progress: Progress, ended: Callable[[], int]) -> None:
    """Until as many flows have ended, or none ends for a long time: what is missing is found by the checks."""
    most, last_change = -1, time.monotonic()
    while (now_ended := ended()) < flows:
        if now_ended > most:
            most, last_change = now_ended, time.monotonic()
        elif time.monotonic() - last_change > _PATIENCE_S:
            return
        progress.show(progress.started, now_ended)
        time.sleep(_POLL_S)
    progress.show(progress.started, now_ended)


# -- what came of it -----------------------------------------------------------------------------------------------


def _branches(reader: SyncReader, definition: str) -> dict[str, int]:
    from projections.queries import counts_by_branch

    counts = reader.ask(counts_by_branch(definition))
    return {row.branch: row.flows for row in counts if row.task.endswith(SWITCH)}


def _ended(reader: SyncReader, definition: str) -> int:
    from projections.queries import counts_by_status

    counts = reader.ask(counts_by_status(definition))
    return sum(count for status, count in counts.items() if status in ("completed", "faulted", "cancelled"))


def _summary(reader: SyncReader, definition: str, flows: int) -> dict[str, Any]:
    """Statuses, speed and times of these flows, as the read model has them."""
    from projections.queries import list_flows

    statuses: Counter[str] = Counter()
    times_ms: list[float] = []
    first: datetime | None = None
    last: datetime | None = None
    cursor: str | None = None
    while True:
        page = reader.ask(list_flows(definition=definition, limit=1000, cursor=cursor))
        for flow in page.items:
            if flow.ended_at is None:
                continue
            statuses[flow.status] += 1
            times_ms.append((flow.ended_at - flow.started_at).total_seconds() * 1000)
            first = flow.started_at if first is None else min(first, flow.started_at)
            last = flow.ended_at if last is None else max(last, flow.ended_at)
        if (cursor := page.next_cursor) is None:
            break
    took = (last - first).total_seconds() if first and last else 0.0
    times_ms.sort()
    return {
        "flows": flows,
        "completed": statuses["completed"],
        "faulted": statuses["faulted"],
        "flows_per_second": round(len(times_ms) / took, 1) if took else 0.0,
        "p50_ms": _share(times_ms, 0.5),
        "p99_ms": _share(times_ms, 0.99),
    }


def _share(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return round(ordered[max(0, math.ceil(len(ordered) * share) - 1)], 1) if ordered else 0.0


def _verify(installation: DemoInstallation, flows: int) -> tuple[int, list[str]]:
    """How many of the run's flows `replay verify` found right, and what it found wrong.

    It verifies every flow of the log. In a kept directory those are more than this run's; one that is not right counts
    against this run then, whosever it is.
    """
    done = installation.run("replay", "verify", "--all", "--json")
    try:
        report = json.loads(done.stdout.strip().splitlines()[-1])
        found, verified = int(report["flows"]), int(report["verified"])
        wrong = [f"replay: {d['flow_id']}: {d['text']}" for d in report["different"]]
        wrong += [f"read model: {d['flow_id']}: {d['text']}" for d in report["read_model"]["different"]]
    except (IndexError, ValueError, KeyError, TypeError):
        text = (done.stderr or done.stdout).strip()[-2000:]
        return 0, [f"Expected `replay verify` to report but it ended with {done.returncode}: {text}"]
    if done.returncode and not wrong:
        said = (done.stderr or done.stdout).strip()[-2000:]
        wrong.append(f"Expected `replay verify` to end with 0 but it ended with {done.returncode}: {said}")
    ours = max(0, min(verified, flows - (found - verified)))
    if ours < flows:
        wrong.append(f"Expected {flows} flows to verify by replay but {ours} did")
    return ours, wrong


def _differences(outcome: Outcome) -> list[str]:
    found = []
    ended = outcome.completed + outcome.faulted
    if ended != outcome.flows:
        found.append(f"Expected {outcome.flows} flows to end completed or faulted but {ended} did")
    for name in sorted(outcome.by_branch.keys() | outcome.expected_by_branch.keys()):
        flows, expected = outcome.by_branch.get(name, 0), outcome.expected_by_branch.get(name, 0)
        if flows != expected:
            found.append(f"Expected {expected} flows on branch {name} but {flows} took it")
    return found
