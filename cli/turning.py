"""`flowtrail flows rollback|migrate|rerun`: turn one flow or many, with a dry run, a sample first, and each flow's true result.

Through the API, one request a flow. A result is what the engine decided, or, after a rollback that undoes, what the flow has
come to; never that the request was taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.console import note, print_result

if TYPE_CHECKING:
    from flowtrail import Client

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Flows; or choose them by options")]
Of = Annotated[
    str | None,
    typer.Option("--definition", metavar="NAME[@VERSION]", help="Flows of namespace/name, or of one version"),
]
Status = Annotated[str | None, typer.Option(help="Flows of that status")]
After = Annotated[str | None, typer.Option(metavar="TIME", help="Flows started then or later (RFC 3339)")]
Before = Annotated[str | None, typer.Option(metavar="TIME", help="Flows started before then")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; do nothing")]
Sample = Annotated[
    int, typer.Option(help="Do so many first, and the others only if all of those succeed", min=0)
]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the log")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for each flow's result", min=0)]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="JSON|@FILE|-", help="What the first task performed again gets instead"),
]
Url = Annotated[str | None, typer.Option("--url", help="Where the API is [FLOWTRAIL_API_URL]")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object")]

_LIVE: Final = ("running", "waiting", "suspended")
_PAUSE_S: Final = 0.1
Act = Callable[["Client", str], dict[str, Any]]


def rollback(
    ids: Ids = None,
    to: Annotated[str, typer.Option(metavar="TASK|SEQ", help="A task, or the number of an event")] = "",
    data: Data = None,
    definition: Of = None,
    status: Status = None,
    started_after: After = None,
    started_before: Before = None,
    dry_run: Dry = False,
    sample: Sample = 0,
    reason: Reason = None,
    timeout: Timeout = 60.0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Undo what came after a moment, newest first, restore the moment, and go on from there."""
    moment, other = _moment(to), _given(data)
    if moment is None:
        raise _bad("Expected --to TASK or --to SEQ but found neither")

    def act(client: Client, flow_id: str) -> dict[str, Any]:
        answer = client.roll_back(flow_id, moment, data=other, reason=reason, dry_run=dry_run)
        return answer if dry_run else _restored(client, answer, timeout)

    chosen = _Chosen(ids, definition, status, started_after, started_before, live=True)
    _run(url, chosen, act, dry_run=dry_run, sample=sample, as_json=as_json)


def migrate(
    ids: Ids = None,
    to: Annotated[str | None, typer.Option(metavar="NAME@VERSION", help="The version to go on under")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Back under the version before")] = False,
    accept_different: Annotated[
        bool, typer.Option("--accept-different", help="Also flows whose past would have gone another way")
    ] = False,
    definition: Of = None,
    status: Status = None,
    started_after: After = None,
    started_before: Before = None,
    dry_run: Dry = False,
    sample: Sample = 0,
    reason: Reason = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Let live flows go on under another version of their definition; without IDs all of the same name."""
    if (to is None) is not undo:
        raise _bad(
            "Expected one of --to NAME@VERSION and --undo but found " + ("both" if undo else "neither")
        )
    if not ids and definition is None:
        if to is None:
            raise _bad("Expected flows, or --definition, with --undo but found neither")
        definition = to.partition("@")[0]

    def act(client: Client, flow_id: str) -> dict[str, Any]:
        return client.migrate(flow_id, to, accept_different=accept_different, reason=reason, dry_run=dry_run)

    chosen = _Chosen(ids, definition, status, started_after, started_before, live=True, but=to)
    _run(url, chosen, act, dry_run=dry_run, sample=sample, as_json=as_json)


def rerun(
    ids: Ids = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="TASK|SEQ", help="Where to begin; without, at the beginning"),
    ] = None,
    given: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE|-", help="Instead of the recorded input")
    ] = None,
    data: Data = None,
    under: Annotated[
        str | None, typer.Option("--under", metavar="NAME@VERSION", help="Instead of the flow's own version")
    ] = None,
    definition: Of = None,
    status: Status = None,
    started_after: After = None,
    started_before: Before = None,
    dry_run: Dry = False,
    sample: Sample = 0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Start a linked flow with what was recorded up to a task; the old flow stays as it is."""
    moment, value, other = _moment(from_ or ""), _given(given), _given(data)

    def act(client: Client, flow_id: str) -> dict[str, Any]:
        return client.rerun(flow_id, moment, input=value, data=other, definition=under, dry_run=dry_run)

    chosen = _Chosen(ids, definition, status, started_after, started_before, live=False)
    _run(url, chosen, act, dry_run=dry_run, sample=sample, as_json=as_json)


# -- which flows --------------------------------------------------------------------------------------------------------


class _Chosen:
    """The flows that are meant: those named, or those that fit. `but`: not those of that definition already."""

    def __init__(
        self,
        ids: list[str] | None,
        definition: str | None,
        status: str | None,
        started_after: str | None,
        started_before: str | None,
        *,
        live: bool,
        but: str | None = None,
    ) -> None:
        filtered = any(part is not None for part in (status, started_after, started_before))
        if ids and filtered:
            raise _bad("Expected flows by their IDs or by options but found both")
        if not ids and definition is None and not filtered:
            raise _bad("Expected IDs, or options that choose flows, but found neither")
        self._ids = list(dict.fromkeys(ids or ()))
        self._but = but
        self._statuses: tuple[str | None, ...] = (status,) if status or not live else _LIVE
        self._filters = {
            "definition": definition,
            "started_after": started_after,
            "started_before": started_before,
        }

    def of(self, client: Client) -> list[str]:
        """Oldest first; found before anything is done, because what is done changes what fits."""
        if self._ids:
            return self._ids
        found: dict[str, str] = {}
        for status in self._statuses:
            for flow in client.flows(status=status, **self._filters):
                if flow["definition"] != self._but:
                    found[flow["id"]] = flow["started_at"]
        return sorted(found, key=lambda flow_id: (found[flow_id], flow_id))


def _moment(text: str) -> int | str | None:
    return int(text) if text.isdigit() else text or None


def _given(text: str | None) -> Any:
    from cli.flows import read_input

    return None if text is None else read_input(text)


def _bad(text: str) -> Exception:
    from engine.errors import InputError

    return InputError(text)


# -- doing it -----------------------------------------------------------------------------------------------------------


def _run(url: str | None, chosen: _Chosen, act: Act, *, dry_run: bool, sample: int, as_json: bool) -> None:
    from cli.flows import connect

    results: list[dict[str, Any]] = []
    with connect(url) as client:
        flows = chosen.of(client)
        first = sample if 0 < sample < len(flows) and not dry_run else len(flows)
        results += _results(client, flows[:first], act, len(flows), as_json)
        if first < len(flows):
            if all(result["result"] == "done" for result in results):
                note(f"the sample of {first} succeeded; {len(flows) - first} flows more")
                results += _results(client, flows[first:], act, len(flows), as_json, done=first)
            else:
                note(f"stopped after the sample of {first}: not all of it succeeded")
    counts: dict[str, int] = {}
    for result in results:
        counts[result["result"]] = counts.get(result["result"], 0) + 1
    left = len(flows) - len(results)
    report = {"flows": len(flows), "counts": counts, "left": left, "results": results}
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing to do"
    print_result(
        report, [f"{len(flows)} flows: {told}" + (f", {left} left alone" if left else "")], as_json=as_json
    )
    raise typer.Exit(0 if set(counts) <= {"done", "possible"} and not left else 1)


def _results(
    client: Client, flows: list[str], act: Act, of: int, as_json: bool, done: int = 0
) -> Iterator[dict[str, Any]]:
    from flowtrail import ApiError

    for number, flow_id in enumerate(flows, done + 1):
        try:
            answer = act(client, flow_id)
            result = {"id": flow_id, "result": _result(answer)} | answer | {"id": flow_id}
            if answer["id"] != flow_id:
                result["new"] = answer["id"]
        except ApiError as refused:
            if refused.status not in (404, 409, 422):
                raise
            result = {"id": flow_id, "result": "refused", "reason": str(refused)}
        if not as_json:
            typer.echo(f"{flow_id}  {result['result']}{_told(result)}")
        elif number % 100 == 0:
            note(f"{number} of {of} flows")
        yield result


def _result(answer: dict[str, Any]) -> str:
    if "possible" in answer:
        return "possible" if answer["possible"] else "refused"
    return str(answer.get("result") or ("done" if answer["decided"] else "undecided"))


def _told(result: dict[str, Any]) -> str:
    """What a person wants to know of one flow."""
    parts = []
    if (new := result.get("new")) is not None:
        parts.append(f"as {new}")
    if (moment := result.get("moment")) is not None:
        parts.append(f"event {moment['sequence']} ({', '.join(moment['tasks'])})")
    if undo := result.get("compensations"):
        parts.append(f"undoes {', '.join(undo)}")
    if past := result.get("past"):
        parts.append(
            "same path" if past["kind"] == "same" else f"{past['kind']} at {past.get('at') or 'its end'}"
        )
    if reason := result.get("reason"):
        parts.append(str(reason))
    return "  " + "; ".join(parts) if parts else ""


def _restored(client: Client, answer: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Waits until what has to be undone is undone: only then the flow stands where it was to."""
    end = time.monotonic() + timeout_s
    while answer["decided"]:
        flow = client.get(answer["id"], min_position=answer["position"])
        if flow["status"] != "compensating":
            restored = flow["ended_at"] is None or _went_back(client, answer)
            return answer | {"status": flow["status"], "result": "done" if restored else flow["status"]}
        if time.monotonic() > end:
            return answer | {"status": flow["status"], "result": "undoing"}
        time.sleep(_PAUSE_S)
    return answer


def _went_back(client: Client, answer: dict[str, Any]) -> bool:
    """Whether a flow that has ended meanwhile had been restored before."""
    began = False
    for event in client.history(answer["id"]):
        began = began or event["cause"]["command_id"] == answer["command_id"]
        if began and event["kind"] == "FlowRestored":
            return True
    return False
