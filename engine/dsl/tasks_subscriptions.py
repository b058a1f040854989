"""AsyncAPI subscriptions: the call consumes messages, and `foreach` goes on with each of them in the engine.

The filter and the conditions of a subscription are about messages, so the worker evaluates them: it gets their text,
under `__arguments__` the runtime arguments they read, under `__language__` jq or cel. With a `foreach` the call becomes a scope of two tasks: the
call itself (POINTER/subscribe), whose result is the list of messages, and a `for` over them (POINTER/foreach).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from engine.dsl.limits import call_settings
from engine.dsl.model import Call, Do, Expression, For, Json, Task, Template, Transform
from engine.dsl.protocols import replaced
from engine.dsl.scopes import IN_TASK, Spot

if TYPE_CHECKING:
    from engine.dsl.tasks import Common, TaskCompiler

_MESSAGES: Final = Expression(".", frozenset(), lambda value, _arguments: value)
_INPUT: Final = Expression("$input", frozenset({"input"}), lambda _value, arguments: arguments["input"])


def subscribed(compiler: TaskCompiler, found: dict[str, Json], spot: Spot, common: Common) -> Task | None:
    """The task of a call with a subscription; None for a call that publishes."""
    given = found["with"]
    subscription = given.get("subscription")
    if not isinstance(subscription, dict):
        return None
    call = _call(compiler, given, subscription, spot, common)
    if "foreach" not in subscription:
        return call
    return _scope(compiler, subscription["foreach"], call, spot, common)


def _call(
    compiler: TaskCompiler, given: dict[str, Json], subscription: dict[str, Json], spot: Spot, common: Common
) -> Call:
    from engine.dsl.tasks_calls import BUILTIN_QUEUE, worker_arguments

    checks, place = compiler.checks, f"{spot.place}/with"
    consume = subscription.get("consume")
    conditions: dict[str, Json] = {}
    for owner, name, at in (
        (subscription, "filter", "subscription/filter"),
        (consume, "while", "subscription/consume/while"),
        (consume, "until", "subscription/consume/until"),
    ):
        if isinstance(owner, dict) and name in owner:
            checks.expression(owner[name], f"{place}/{at}", spot.available(IN_TASK - {"authorization"}))
            conditions[name] = owner[name]
    reads: frozenset[str] = frozenset()
    with checks.silently():
        for text in conditions.values():
            reads |= checks.expression(text, place, spot.available(IN_TASK)).reads
    kept = {name: value for name, value in subscription.items() if name not in ("filter", "foreach")}
    if isinstance(consume, dict):
        kept["consume"] = {name: value for name, value in consume.items() if name not in conditions}
    template = worker_arguments(compiler, replaced(given, ("subscription",), kept), spot, place)
    settings = call_settings(compiler, common["metadata"], spot, "asyncapi", BUILTIN_QUEUE)
    return Call(
        **common,
        function="asyncapi",
        arguments=_with(template, conditions, reads, checks.language),
        **settings,
    )


def _with(
    template: Template, conditions: Mapping[str, Json], reads: frozenset[str], language: str
) -> Template:
    """The arguments with the texts of the conditions where they were, and what those read."""
    evaluate = template.evaluate

    def complete(value: Json, arguments: Mapping[str, Json]) -> Json:
        made = evaluate(value, arguments)
        subscription = dict(made["subscription"])
        if "filter" in conditions:
            subscription["filter"] = conditions["filter"]
        later = {name: text for name, text in conditions.items() if name != "filter"}
        subscription["consume"] = {**subscription.get("consume", {}), **later}
        given = {name: arguments[name] for name in sorted(reads)}
        return {**made, "subscription": subscription, "__arguments__": given, "__language__": language}

    return Template(template.reads | reads, False, complete)


def _scope(compiler: TaskCompiler, value: Json, call: Call, spot: Spot, common: Common) -> Task:
    from engine.dsl.tasks_events import foreach

    subscribe, each = f"{spot.pointer}/subscribe", f"{spot.pointer}/foreach"
    place = f"{spot.place}/with/subscription/foreach"
    plain: dict[str, Any] = {
        "condition": None,
        "input": Transform(),
        "output": Transform(),
        "export": Transform(),
        "then": "continue",
        "scope": spot.pointer,
        "timeout": None,
        "compensate": None,
    }
    compiler.keep(replace(call, pointer=subscribe, next=each, **plain))
    compiler.keep(None, each)
    iterator = foreach(compiler, value, replace(spot, pointer=each), place, "")
    if iterator.first is None:
        compiler.drop(each)
        compiler.keep(replace(call, pointer=subscribe, next=None, **plain))
    else:
        output = Transform(expression=_INPUT)
        compiler.keep(
            For(
                **{**common, **plain, "pointer": each, "kind": "for", "next": None, "output": output},
                each=iterator.each,
                at=iterator.at,
                collection=_MESSAGES,
                while_=None,
                first=iterator.first,
            )
        )
    if iterator.export.expression is not None or iterator.export.schema is not None:
        compiler.checks.warn("'export' of a subscription's foreach has no effect", f"{place}/export")
    if (form := iterator.output.expression) is not None:
        common = {**common, "output": _each(common["output"], form, iterator.each, iterator.at)}
    return Do(**{**common, "kind": "do"}, first=subscribe)


def _each(after: Transform, form: Expression | Template, item: str, index: str) -> Transform:
    """The output transform `after` a list each of whose items was transformed by `form`."""
    reads = form.reads - {item, index}
    following = after.expression

    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        made = [
            form.evaluate(message, {**arguments, item: message, index: number})
            for number, message in enumerate(value if isinstance(value, list) else [])
        ]
        return made if following is None else following.evaluate(made, arguments)

    if following is not None:
        reads |= following.reads
    return Transform(after.schema, Template(reads, False, evaluate))
