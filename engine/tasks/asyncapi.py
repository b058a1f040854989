"""`call: asyncapi`: publishes a message, or consumes messages and gives their list.

A message is `{payload, headers, correlationId}`. The filter sees each as its data; `while` and `until` see each that passed
the filter, after it was taken: the first that does not fulfil `while`, or fulfils `until`, is the last of the list. `amount`
and `for` end it too; when `for` ends it, what was consumed until then is the result. Publishing gives null. Invariant: the
list has no more than `http_response_bytes_max` bytes of payloads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any, Final

from engine.dsl import durations
from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import ExpressionProblem, compile_expression, unmarked
from engine.dsl.model import Expression
from engine.tasks import asyncapi_http, asyncapi_kafka, problems
from engine.tasks.asyncapi_documents import Place, correlation_of, place_of
from engine.tasks.asyncapi_messages import Received
from engine.tasks.authentication import Authorization, authorize
from engine.tasks.configured import configured
from engine.tasks.documents import parse
from engine.tasks.fetching import fetch
from engine.tasks.sandbox import ProcessSandbox
from engine.tasks.uris import INPUT, endpoint_of

Test = Callable[[Any], bool]
_MIB: Final = 1024 * 1024


async def call(arguments: dict[str, Any]) -> Any:
    """The function `asyncapi`."""
    resource = arguments.get("document")
    given = arguments.get(INPUT)
    uri, policy = endpoint_of(
        resource.get("endpoint") if isinstance(resource, dict) else resource,
        given if isinstance(given, dict) else {},
    )
    document = parse(await fetch(uri, policy), problems.place(uri))
    place = place_of(document, arguments, uri)
    subscription = arguments.get("subscription")
    if isinstance(subscription, dict):
        tests = _tests(subscription, arguments)
        authorization = await authorize(arguments.get("authentication"))
        return await _consumed(place, authorization, subscription, tests)
    authorization = await authorize(arguments.get("authentication"))
    message = arguments.get("message")
    message = message if isinstance(message, dict) else {}
    headers = message.get("headers")
    port = asyncapi_kafka if place.is_kafka else asyncapi_http
    await port.publish(
        place, authorization, message.get("payload"), headers if isinstance(headers, dict) else {}
    )
    return None


async def _consumed(
    place: Place, authorization: Authorization | None, subscription: dict[str, Any], tests: dict[str, Test]
) -> list[Any]:
    consume = subscription.get("consume")
    consume = consume if isinstance(consume, dict) else {}
    amount = consume.get("amount")
    found: list[Any] = []
    async with contextlib.AsyncExitStack() as stack:
        port = asyncapi_kafka if place.is_kafka else asyncapi_http
        messages = await stack.enter_async_context(port.subscribed(place, authorization))
        with contextlib.suppress(_Over):
            async with _within(_seconds(consume.get("for"))):
                await _collect(place, messages, amount, tests, found)
    return found


async def _collect(
    place: Place, messages: AsyncIterator[Received], amount: Any, tests: dict[str, Test], found: list[Any]
) -> None:
    size, most = 0, configured().http_response_bytes_max
    async for received in messages:
        message = {"payload": received.payload, "headers": received.headers}
        correlation = correlation_of(place.correlation, received.headers, received.payload)
        if correlation is not None:
            message["correlationId"] = correlation
        if not await _fulfils(tests, "filter", message, True):
            continue
        size += received.size
        if size > most:
            raise problems.communication(
                f"Expected messages of at most {most} bytes together but they are larger"
            )
        found.append(message)
        if isinstance(amount, int) and len(found) >= amount:
            return
        if not await _fulfils(tests, "while", message, True) or await _fulfils(
            tests, "until", message, False
        ):
            return


class _Over(Exception):
    """The time to consume is over."""


@contextlib.asynccontextmanager
async def _within(seconds: float | None) -> AsyncIterator[None]:
    """Raises _Over after `seconds`; a TimeoutError from within stays what it is."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise _Over from None
        raise


def _seconds(duration: Any) -> float | None:
    if duration is None:
        return None
    now = int(time.time() * 1e6)
    try:
        return (durations.due(duration, now) - now) / 1e6
    except ExpressionError as problem:
        raise problems.configuration(str(problem)) from None


# -- conditions ---------------------------------------------------------------------------------------------------


def _tests(subscription: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Test]:
    """The conditions of `subscription` by name. Raises TaskError (configuration) for one that is no expression."""
    given = arguments.get("__arguments__")
    given = given if isinstance(given, dict) else {}
    consume = subscription.get("consume")
    texts = {"filter": subscription.get("filter")}
    texts |= {name: consume.get(name) for name in ("while", "until")} if isinstance(consume, dict) else {}
    found = {}
    for name, text in texts.items():
        if text is not None:
            expression = _compiled(str(text), frozenset(given), str(arguments.get("__language__") or "jq"))
            found[name] = _test(name, expression, given)
    return found


def _test(name: str, expression: Expression, given: dict[str, Any]) -> Test:
    def fulfilled(message: Any) -> bool:
        try:
            value = expression.evaluate(message, given)
        except ExpressionError as problem:
            raise problems.expression(
                f"Expected the subscription's {name} to have a result but {problem}"
            ) from None
        return value is not None and value is not False

    return fulfilled


async def _fulfils(tests: dict[str, Test], name: str, message: Any, otherwise: bool) -> bool:
    """In a thread: an unbounded expression waits for the sandbox."""
    return otherwise if name not in tests else await asyncio.to_thread(tests[name], message)


def _compiled(text: str, names: frozenset[str], language: str) -> Expression:
    try:
        if language == "cel":
            from engine.dsl.cel import compile_cel

            return compile_cel(unmarked(text), names, _sandbox())
        return compile_expression(text, names, _sandbox())
    except ExpressionProblem as problem:
        raise problems.configuration(str(problem)) from None


@cache
def _sandbox() -> ProcessSandbox:
    settings = configured()
    return ProcessSandbox(settings.expression_deadline_ms, settings.expression_memory_mib * _MIB)
