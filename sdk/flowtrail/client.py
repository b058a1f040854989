"""Client: publish definitions, start flows, follow them, complete tasks, publish events. A thin layer over the API's
routes (its /openapi.json).

Answers are the API's JSON as Python values. Starting always sends an Idempotency-Key, so that it may be repeated after
a lost answer without a second flow. Nothing here talks to Kafka.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2

from flowtrail.errors import ApiError, InputError, TaskError, WaitTimeout
from flowtrail.flows import FlowFunction
from flowtrail.payload import NotJson, to_json
from flowtrail.transport import Api

ENDED: Final = frozenset({"completed", "faulted", "cancelled"})
_JSON: Final = {"Content-Type": "application/json"}
_SERVER_WAIT_MAX_S: Final = 30.0
_POLL_FIRST_S: Final = 0.02
_POLL_MAX_S: Final = 1.0
_PAGE: Final = 500


class Flow:
    """A flow that was started. `position` tells readers which command its read model must have passed."""

    def __init__(self, client: Client, answer: Mapping[str, Any]) -> None:
        self._client = client
        self.id = str(answer["id"])
        self.definition = str(answer.get("definition", ""))
        self.command_id: str | None = answer.get("command_id")
        self.position: str | None = answer.get("position")

    def __repr__(self) -> str:
        return f"Flow({self.id!r}, {self.definition!r})"

    def get(self) -> dict[str, Any]:
        """The flow as its read model has it, at least as new as the start."""
        return self._client.get(self.id, min_position=self.position)

    def wait(self, timeout: float = 60.0) -> dict[str, Any]:
        """The flow once it has ended, however it ended. Raises WaitTimeout."""
        return self._client.wait(self.id, timeout)

    def history(self) -> Iterator[dict[str, Any]]:
        return self._client.history(self.id)

    def state_at(self, moment: int | str) -> dict[str, Any]:
        """The flow as it stood after event number `moment`, or at that RFC 3339 time."""
        return self._client.state_at(self.id, moment)

    def blame(self, path: str = "", *, at: int | str | None = None) -> list[dict[str, Any]]:
        return self._client.blame(self.id, path, at=at)

    def changes(self, since: int | str, until: int | str | None = None) -> list[dict[str, Any]]:
        return self._client.changes(self.id, since, until)

    def cancel(self, reason: str | None = None, *, compensate: bool = False) -> dict[str, Any]:
        return self._client.cancel(self.id, reason, compensate=compensate)

    def suspend(self, reason: str | None = None) -> dict[str, Any]:
        return self._client.suspend(self.id, reason)

    def resume(self, reason: str | None = None) -> dict[str, Any]:
        return self._client.resume(self.id, reason)


class Client:
    """`url` and `api_key` default to FLOWTRAIL_API_URL and FLOWTRAIL_API_KEY. Thread-safe; close it, or use `with`.

    Requests that may be repeated are, for `retry_s` seconds, while the API is away. Raises ApiError when the API
    refuses, Unreachable when it does not answer, InputError for arguments that cannot be meant.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_s: float = 10.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._api = Api(url, api_key, retry_s=retry_s, transport=transport)

    @property
    def url(self) -> str:
        return self._api.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._api.close()

    # -- definitions --------------------------------------------------------------------------------------------

    def publish(self, definition: str | Path | Mapping[str, Any] | FlowFunction[..., Any]) -> dict[str, Any]:
        """Publishes a definition: YAML or JSON text, a path to it, the document as a mapping, or a flow in Python.

        The same content again is fine; other content under the same version is refused (ApiError, 409).
        """
        body, media_type = _source(definition)
        answer: dict[str, Any] = self._api.json(
            "POST",
            "/definitions",
            body=body,
            headers={"Content-Type": media_type},
            idempotent=True,
            timeout_s=30.0,
        )
        return answer

    def definitions(self, **filters: str | None) -> Iterator[dict[str, Any]]:
        """Every published version; filters: namespace, name."""
        yield from self._pages("/definitions", "definitions", filters)

    def definition(self, reference: str) -> dict[str, Any]:
        """The document of `namespace/name@version`; without a version the versions there are."""
        name, _, version = reference.partition("@")
        if name.count("/") != 1:
            raise InputError(f"Expected namespace/name or namespace/name@version but found {reference!r}")
        path = f"/definitions/{quote(name, safe='/')}" + (f"/{quote(version, safe='')}" if version else "")
        answer: dict[str, Any] = self._api.json("GET", path)
        return answer

    # -- flows --------------------------------------------------------------------------------------------------

    def start(
        self,
        definition: str,
        input: Any = None,  # noqa: A002 - the word of the definition language
        *,
        id: str | None = None,  # noqa: A002
        idempotency_key: str | None = None,
    ) -> Flow:
        """Starts a flow of `namespace/name` (its newest version) or `namespace/name@version`.

        The same `idempotency_key` with the same arguments gives the same flow. Without `input` it is {}.
        """
        body = _json_of(
            {"definition": definition, "input": {} if input is None else input} | ({"id": id} if id else {})
        )
        headers = _JSON | {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return Flow(self, self._api.json("POST", "/flows", body=body, headers=headers, idempotent=True))

    def get(self, id: str, *, min_position: str | None = None) -> dict[str, Any]:  # noqa: A002
        """The flow as its read model has it. Raises ApiError 404 when there is none (yet)."""
        answer: dict[str, Any] = self._api.json(
            "GET", _flow(id), query={"min_position": min_position}, timeout_s=20.0
        )
        return answer

    def flows(self, **filters: str | int | None) -> Iterator[dict[str, Any]]:
        """All flows that match, page by page; filters as the API's query parameters (status, definition, namespace, name, version,
        id_prefix, started_after, started_before)."""
        yield from self._pages("/flows", "flows", filters)

    def tasks(self, id: str) -> Iterator[dict[str, Any]]:  # noqa: A002
        yield from self._pages(f"{_flow(id)}/tasks", "tasks", {})

    def history(self, id: str) -> Iterator[dict[str, Any]]:  # noqa: A002
        """Every event of the flow, oldest first."""
        yield from self._pages(f"{_flow(id)}/history", "events", {})

    def state_at(self, id: str, moment: int | str) -> dict[str, Any]:  # noqa: A002
        """The flow as it stood after event number `moment`, or at that RFC 3339 time; from the log."""
        answer: dict[str, Any] = self._api.json(
            "GET", f"{_flow(id)}/states/{quote(str(moment), safe='')}", timeout_s=60.0
        )
        return answer

    def blame(self, id: str, path: str = "", *, at: int | str | None = None) -> list[dict[str, Any]]:  # noqa: A002
        """Every value at or below the JSON pointer `path` (`/context/amount`), each with the event that gave it."""
        answer = self._past(id, "blame", {"path": path, "at": at})
        values: list[dict[str, Any]] = answer["values"]
        return values

    def changes(
        self,
        id: str,  # noqa: A002
        since: int | str,
        until: int | str | None = None,
    ) -> list[dict[str, Any]]:
        """What is different between two moments, each change with its event."""
        answer = self._past(id, "changes", {"since": since, "until": until})
        changes: list[dict[str, Any]] = answer["changes"]
        return changes

    def _past(self, flow_id: str, what: str, query: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: str(value) for name, value in query.items() if value is not None}
        answer: dict[str, Any] = self._api.json(
            "GET", f"{_flow(flow_id)}/{what}", query=given, timeout_s=60.0
        )
        return answer

    def cancel(
        self,
        id: str,  # noqa: A002
        reason: str | None = None,
        *,
        compensate: bool = False,
    ) -> dict[str, Any]:
        """Asks for the flow's end; whether it came in time the flow's history tells. `compensate`: undo first."""
        asked = {"reason": reason} | ({"compensate": True} if compensate else {})
        return self._ask(f"{_flow(id)}/cancel", asked)

    def suspend(self, id: str, reason: str | None = None) -> dict[str, Any]:  # noqa: A002
        """Asks the flow to pause: nothing new is begun, what comes in is kept."""
        return self._ask(f"{_flow(id)}/suspend", {"reason": reason})

    def resume(self, id: str, reason: str | None = None) -> dict[str, Any]:  # noqa: A002
        """Asks a suspended flow (an incident, too) to go on."""
        return self._ask(f"{_flow(id)}/resume", {"reason": reason})

    # -- turning flows ------------------------------------------------------------------------------------------

    def roll_back(
        self,
        id: str,  # noqa: A002
        to: int | str,
        *,
        data: Any = None,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Undoes what was completed after event `to` (or since the task `to` began) and goes on from there.

        `data`: what the first task that is performed again gets instead. Raises ApiError (409) when that cannot be.
        """
        asked = {"to": to, "reason": reason} | ({} if data is None else {"data": data})
        return self._turn(id, "rollback", asked, dry_run)

    def migrate(
        self,
        id: str,  # noqa: A002
        definition: str | None = None,
        *,
        accept_different: bool = False,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """The flow goes on under another version; without `definition`, back under the one before the last migration."""
        asked = {"definition": definition, "accept_different": accept_different, "reason": reason}
        return self._turn(id, "migrate", asked, dry_run)

    def rerun(
        self,
        id: str,  # noqa: A002
        from_: int | str | None = None,
        *,
        input: Any = None,  # noqa: A002
        data: Any = None,
        definition: str | None = None,
        new_id: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Starts a linked flow, with what was recorded up to `from_`; from the beginning without. `id` is the new flow's."""
        asked: dict[str, Any] = {"from": from_, "definition": definition, "id": new_id}
        given = {name: value for name, value in (("input", input), ("data", data)) if value is not None}
        return self._turn(id, "rerun", asked | given, dry_run)

    def _turn(self, flow_id: str, verb: str, asked: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        answer: dict[str, Any] = self._api.json(
            "POST",
            f"{_flow(flow_id)}/{verb}",
            body=_json_of(asked),
            headers=_JSON | {"Idempotency-Key": uuid.uuid4().hex},
            query={"dry_run": "true"} if dry_run else None,
            idempotent=verb != "rollback",  # going back twice undoes nothing twice, but performs again twice
            timeout_s=60.0,
        )
        return answer

    # -- tasks and approvals ------------------------------------------------------------------------------------

    def complete(self, token: str, output: Any = None, *, wait: bool = True) -> dict[str, Any]:
        """Completes a task (a function that returned PENDING) by its token.

        With `wait` the engine's refusal, such as of a task that is over, is raised as ApiError (409 or 422).
        """
        return self._ask(f"{_task(token)}/complete", {"output": output}, wait)

    def fail(
        self,
        token: str,
        error: TaskError | str,
        *,
        incident: bool = False,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Fails a task by its token: a TaskError, or a text that becomes the detail of a runtime error."""
        if isinstance(error, TaskError):
            said = {"type": error.type, "status": error.status, "title": error.title, "detail": error.detail}
        else:
            said = {"detail": error}
        return self._ask(f"{_task(token)}/fail", {"error": said, "incident": incident}, wait)

    def heartbeat(self, token: str, progress: Any = None, *, wait: bool = False) -> dict[str, Any]:
        """Says that a task completed from elsewhere is alive."""
        said = {} if progress is None else {"progress": progress}
        return self._ask(f"{_task(token)}/heartbeat", said, wait)

    def approvals(self, **filters: str | int | None) -> Iterator[dict[str, Any]]:
        """What waits for a person, oldest first; filters as the API's query parameters. Each has its `token`."""
        yield from self._pages("/approvals", "approvals", filters)

    def answer(self, token: str, answer: Any) -> dict[str, Any]:
        """Answers an approval. Raises ApiError when its form does not accept the answer, or it was answered before."""
        return self._ask(f"/approvals/{_named(token)}", {"answer": answer})

    # -- events -------------------------------------------------------------------------------------------------

    def publish_event(
        self,
        type: str,  # noqa: A002 - the word of CloudEvents
        data: Any = None,
        *,
        source: str = "/flowtrail/client",
        id: str | None = None,  # noqa: A002
        **attributes: str | int | bool | None,
    ) -> dict[str, Any]:
        """Publishes a CloudEvent; attributes are subject, time and extensions. The same source and id count once."""
        given = {name: value for name, value in attributes.items() if value is not None}
        event = {"id": id or uuid.uuid4().hex, "source": source, "type": type, **given, "data": data}
        return self.publish_events([event])

    def publish_events(self, events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Publishes events in CloudEvents' JSON format; `specversion` and `id` are added where they are missing."""
        complete = [{"specversion": "1.0", "id": uuid.uuid4().hex, **event} for event in events]
        answer: dict[str, Any] = self._api.json(
            "POST",
            "/events",
            body=_json_of(complete),
            headers={"Content-Type": "application/cloudevents-batch+json"},
            idempotent=True,
            timeout_s=20.0,
        )
        return answer

    def _ask(self, path: str, asked: Mapping[str, Any], wait: bool = False) -> dict[str, Any]:
        """POSTs what becomes one command, however often it has to be repeated."""
        headers = _JSON | {"Idempotency-Key": uuid.uuid4().hex}
        query = {"wait": "decided"} if wait else None
        answer: dict[str, Any] = self._api.json(
            "POST",
            path,
            query=query,
            body=_json_of(dict(asked)),
            headers=headers,
            idempotent=True,
            timeout_s=20.0,
        )
        return answer

    def analysis(self, question: str, **query: Any) -> dict[str, Any]:
        """`question`: graph, variants, steps, heat, rework, cases, throughput, queues or recommendations (docs/analysis.md)."""
        given = {name: value for name, value in query.items() if value is not None}
        answer: dict[str, Any] = self._api.json(
            "GET", f"/analysis/{quote(question, safe='')}", query=given, timeout_s=60.0
        )
        return answer

    # -- waiting ------------------------------------------------------------------------------------------------

    def wait(self, id: str, timeout: float = 60.0) -> dict[str, Any]:  # noqa: A002
        """The flow once it has ended, however it ended: look at its `status`. Raises WaitTimeout.

        The server is asked to hold the answer back until then; where it does not, polling with back-off does it.
        A flow the read model does not know yet is waited for as well.
        """
        end = time.monotonic() + timeout
        pause = _POLL_FIRST_S
        status: str | None = None
        while True:
            left = max(0.0, end - time.monotonic())
            hold = min(left, _SERVER_WAIT_MAX_S)
            try:
                flow: dict[str, Any] = self._api.json(
                    "GET",
                    _flow(id),
                    query={"wait": "completed", "timeout": f"{hold:.3f}"},
                    timeout_s=hold + 10,
                )
            except ApiError as refusal:
                if refusal.status != 404:
                    raise
            else:
                status = str(flow.get("status"))
                if status in ENDED:
                    return flow
            left = end - time.monotonic()
            if left <= 0:
                why = status or f"not known{self._refusal(id)}"
                raise WaitTimeout(f"Expected flow {id} to end within {timeout:g} s but it is {why}")
            time.sleep(min(left, pause * (0.5 + random.random() / 2)))  # noqa: S311 - jitter
            pause = min(_POLL_MAX_S, pause * 1.5)

    def _refusal(self, flow_id: str) -> str:
        """Why the flow was never started, when the engine refused it."""
        page = self._api.json("GET", "/rejections", query={"flow_id": flow_id, "limit": 1})
        return "".join(f"; its command was refused: {refused['reason']}" for refused in page["rejections"])

    def _pages(self, path: str, key: str, filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        limit = int(filters.get("limit") or _PAGE)
        while True:
            page = self._api.json("GET", path, query={**filters, "limit": limit, "cursor": cursor})
            yield from page[key]
            cursor = page.get("next")
            if not cursor:
                return


def _flow(flow_id: str) -> str:
    if not flow_id:
        raise InputError("Expected a flow's id but it is empty")
    return f"/flows/{quote(flow_id, safe='')}"


def _task(token: str) -> str:
    return f"/tasks/{_named(token)}"


def _named(token: str) -> str:
    if not token:
        raise InputError("Expected a task's token but it is empty")
    return quote(token, safe="")


def _json_of(value: Any) -> bytes:
    try:
        return to_json(value, "a request", limit=None)
    except NotJson as problem:
        raise InputError(str(problem)) from None


def _source(definition: str | Path | Mapping[str, Any] | FlowFunction[..., Any]) -> tuple[bytes, str]:
    """The definition's bytes and their media type. Text of one line that is no JSON is taken for a path."""
    if isinstance(definition, FlowFunction):
        return definition.yaml().encode(), "application/yaml"
    if isinstance(definition, Mapping):
        return _json_of(dict(definition)), "application/json"
    if isinstance(definition, Path) or ("\n" not in definition and not definition.lstrip().startswith("{")):
        try:
            data = Path(definition).read_bytes()
        except OSError as problem:
            raise InputError(f"Expected a definition's file at {definition} but {problem.strerror}") from None
        return data, "application/json" if str(definition).endswith(".json") else "application/yaml"
    text = definition.encode()
    return text, "application/json" if text.lstrip().startswith(b"{") else "application/yaml"
