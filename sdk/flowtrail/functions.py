"""A registered function: from a task's JSON arguments to a call, and from what it returns or raises to an outcome.

Pure apart from the function itself; knows neither Kafka nor HTTP. The type hints are compiled once, at registration,
into a msgspec decoder, so that a wrong hint is found before the first task and a call costs microseconds.

Arguments are a JSON object whose keys are the parameters. A function with a single parameter whose name is no key of
it gets the whole value. A parameter annotated `TaskContext` gets the context. Keys that no parameter takes are refused
unless the function has `**rest`; a function without parameters gets nothing. Sealed references to secrets are replaced
before (secrets.py). A function that returns PENDING or raises Pending has no outcome of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec

from flowtrail.errors import RUNTIME, VALIDATION, InputError, Pending, TaskError
from flowtrail.payload import NotJson, to_json
from flowtrail.secrets import unseal_json

_DETAIL_CHARACTERS_MAX: Final = 8192


class TaskContext(msgspec.Struct, frozen=True):
    """What a function may know about the task it performs. `run` counts loops, `attempt` counts retries."""

    flow_id: str
    task: str
    run: int
    attempt: int
    definition: str
    queue: str
    function: str
    trace: str | None = None


class Failure(msgspec.Struct, frozen=True):
    """Problem details of a task that failed."""

    type: str
    status: int
    title: str
    detail: str | None = None
    incident: bool = False
    """A person has to look at it: the flow is suspended, not faulted."""


Outcome = bytes | Failure | Pending
"""JSON of the result, why there is none, or that somebody else will tell."""


class WrongArguments(ValueError):
    """The task's arguments are not what the function declares."""


def failure_of(error: BaseException) -> Failure:
    """What the flow gets to see of `error`."""
    match error:
        case TaskError():
            return _clean(error.type, error.status, error.title or type(error).__name__, error.detail)
        case WrongArguments():
            return _clean(VALIDATION, 400, "Wrong arguments", str(error))
        case NotJson():
            return _clean(RUNTIME, 500, "Wrong result", str(error))
        case _:
            return _clean(RUNTIME, 500, type(error).__name__, _text_of(error))


def _outcome_of(result: Any) -> Outcome:
    return result if isinstance(result, Pending) else to_json(result, "a result")


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception whose __str__ raises must still become a FailTask
        return "(its text cannot be read)"


def _clean(type_: str, status: int, title: str, detail: str | None) -> Failure:
    """Avro strings are UTF-8 and the log keeps them for ever: no lone surrogates, no endless text."""

    def text(value: str) -> str:
        kept = str(value).encode("utf-8", "replace").decode()
        if len(kept) <= _DETAIL_CHARACTERS_MAX:
            return kept
        return kept[:_DETAIL_CHARACTERS_MAX] + f" … ({len(kept)} characters)"

    return Failure(text(type_), status, text(title), None if detail is None else text(detail))


class Function:
    """One registered function and how to call it."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self.call = call
        self.is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
            getattr(call, "__call__", None)  # noqa: B004 - an object with an async __call__
        )
        self._context: str | None = None
        self._names: list[str] = []
        self._single: inspect.Parameter | None = None
        self._rest = False
        self._compile()

    def arguments(self, raw: bytes, context: TaskContext) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """How to call the function with the JSON `raw`. Raises WrongArguments."""
        keywords = {} if self._context is None else {self._context: context}
        if not self._names and not self._rest:
            return (), keywords
        try:
            if self._single is not None and not self._has_key(raw, self._single.name):
                return self._whole(raw, keywords)
            decoded = self._decode(raw)
        except msgspec.DecodeError as problem:  # covers ValidationError, its subclass
            raise WrongArguments(self._explain(str(problem))) from None
        if self._rest:
            return (), keywords | self._with_rest(raw, decoded)
        found = {name: getattr(decoded, name) for name in self._names}
        if self._single is not None and self._single.kind is inspect.Parameter.POSITIONAL_ONLY:
            return tuple(v for v in found.values() if v is not msgspec.UNSET), keywords
        return (), keywords | {name: v for name, v in found.items() if v is not msgspec.UNSET}

    def perform(self, raw: bytes, context: TaskContext) -> Outcome:
        """Calls a sync function. Never raises: whatever happens becomes an outcome."""
        try:
            positional, keywords = self.arguments(unseal_json(raw), context)
            return _outcome_of(self.call(*positional, **keywords))
        except Pending as pending:
            return pending
        except BaseException as error:  # SystemExit out of a task must not end the worker
            return failure_of(error)

    async def perform_async(self, raw: bytes, context: TaskContext) -> Outcome:
        """Awaits an async function. Raises only CancelledError, when the worker's loop is torn down."""
        try:
            positional, keywords = self.arguments(unseal_json(raw), context)
            return _outcome_of(await self.call(*positional, **keywords))
        except Pending as pending:
            return pending
        except GeneratorExit:
            raise
        except BaseException as error:
            current = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling():
                raise  # the loop is torn down; without this, the function itself gave up, which is an outcome
            return failure_of(error)

    # -- compiling the signature --------------------------------------------------------------------------------

    def _compile(self) -> None:
        hints = self._hints()
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(self.call).parameters.values():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                raise InputError(
                    f"Expected named parameters for task {self.name!r} but found *{parameter.name}"
                )
            if hints.get(parameter.name) is TaskContext:
                self._context = parameter.name
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._rest = True
            else:
                parameters.append(parameter)
        self._names = [p.name for p in parameters]
        if len(parameters) == 1 and not self._rest:
            self._single = parameters[0]
        elif positional := [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]:
            raise InputError(
                f"Expected parameters of task {self.name!r} to be given by name but {positional[0]!r} is positional-only"
            )
        self._build_decoders(parameters, hints)

    def _build_decoders(self, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> None:
        fields: list[tuple[str, Any, Any] | tuple[str, Any]] = []
        for parameter in parameters:
            hint = hints.get(parameter.name, Any)
            if parameter.default is inspect.Parameter.empty:
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, hint | msgspec.UnsetType, msgspec.UNSET))
        try:
            record = msgspec.defstruct(
                "Arguments", fields, kw_only=True, forbid_unknown_fields=not self._rest, gc=False
            )
            self._decode = msgspec.json.Decoder(record, dec_hook=_other_type).decode
            if self._single is not None:
                hint = hints.get(self._single.name, Any)
                self._decode_whole = msgspec.json.Decoder(hint, dec_hook=_other_type).decode
        except TypeError as problem:
            raise InputError(
                f"Expected hints that JSON can be read into for task {self.name!r} but {problem}"
            ) from None

    def _hints(self) -> dict[str, Any]:
        target = self.call if inspect.isroutine(self.call) else getattr(self.call, "__call__", self.call)  # noqa: B004
        try:
            return typing.get_type_hints(target, include_extras=True)
        except (NameError, TypeError) as problem:
            raise InputError(
                f"Expected the type hints of task {self.name!r} to be defined at module level but {problem}"
            ) from None

    # -- calling ------------------------------------------------------------------------------------------------

    def _whole(self, raw: bytes, keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert self._single is not None
        if self._single.default is not inspect.Parameter.empty and raw.strip() in (b"{}", b"null"):
            return (), keywords
        value = self._decode_whole(raw)
        if self._single.kind is inspect.Parameter.KEYWORD_ONLY:
            return (), keywords | {self._single.name: value}
        if self._context is None or self._single.kind is inspect.Parameter.POSITIONAL_ONLY:
            return (value,), keywords
        return (), keywords | {self._single.name: value}

    def _with_rest(self, raw: bytes, decoded: Any) -> dict[str, Any]:
        everything: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        for name in self._names:
            everything.pop(name, None)
            if (value := getattr(decoded, name)) is not msgspec.UNSET:
                everything[name] = value
        return everything

    @staticmethod
    def _has_key(raw: bytes, name: str) -> bool:
        return raw.lstrip()[:1] == b"{" and name in _keys(raw)

    def _explain(self, text: str) -> str:
        """msgspec's text in our words."""
        if found := re.fullmatch(r"Object missing required field `(.+?)`(?: - at `\$`)?", text):
            return f"Expected argument {found[1]} but it is missing"
        if found := re.fullmatch(r"Object contains unknown field `(.+?)`(?: - at `\$`)?", text):
            return f"Expected arguments {', '.join(self._names)} but found also {found[1]}"
        if found := re.fullmatch(r"Expected (.+), got `(.+?)`(?: - at `(.+)`)?", text):
            at = f" at {found[3]}" if found[3] else ""
            return f"Expected {found[1].replace('`', '')} but got {found[2]}{at}"
        return f"Expected arguments as {self.name} declares them but {text.replace('`', '')}"


_keys: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _other_type(wanted: type, value: Any) -> Any:
    """Types msgspec does not know: those that validate themselves the way pydantic's models do."""
    validate = getattr(wanted, "model_validate", None)
    if validate is None:
        raise TypeError(f"Expected a type JSON can be read into but the hint is {wanted.__name__}")
    return validate(value)
