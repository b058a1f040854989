"""The JSON Schema (2020-12) of a definition, for editors: `flowtrail definitions schema`.

Written from the specification's reference and from what the compiler takes, with our own words for every property.
It is no gatekeeper: the compiler (compile.py) decides what a definition is, and knows more (names, expressions,
reachability). A definition that makes sense and compiles is valid here, though not every value the compiler lets pass.
"""

from __future__ import annotations

from typing import Any, Final

from engine.dsl import document_schema_parts as parts
from engine.dsl.document_schema_calls import calls
from engine.dsl.document_schema_parts import (
    Schema,
    either,
    listing,
    mapping,
    one_of_properties,
    record,
    ref,
    text,
)
from engine.dsl.limits import PRIORITIES
from engine.dsl.protocols import BUILTIN
from engine.dsl.use import EXTENDED

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_FORMED: Final = (*BUILTIN, "decision", "approval")
"""Functions whose `with` has a form of its own."""

_QUEUE: Final = text("Whose workers perform it.", pattern="^[a-z0-9][a-z0-9._-]{0,63}$")


def document_schema() -> dict[str, Any]:
    """A new copy each time: the caller may change it."""
    return {
        "$schema": _DIALECT,
        "title": "Flowtrail definition",
        "description": "A workflow of the Serverless Workflow DSL 1.0, with Flowtrail's extensions.",
        "type": "object",
        "properties": {
            "document": _head(),
            "input": ref("input", "What a flow is started with."),
            "use": _use(),
            "do": ref("tasks", "The tasks, in order."),
            "output": ref("output", "What a flow gives in the end."),
            "timeout": ref("timeout", "How long a flow may take."),
            "schedule": _schedule(),
            "evaluate": record(
                "How expressions are read.",
                {
                    "language": {"enum": ["jq", "cel"], "default": "jq", "description": "Their language."},
                    "mode": {
                        "enum": ["strict", "loose"],
                        "default": "strict",
                        "description": "strict: only ${ … } is an expression; loose: any text may be one.",
                    },
                },
            ),
        },
        "required": ["document", "do"],
        "additionalProperties": False,
        "$defs": {
            **parts.common(),
            **parts.authentications(),
            **parts.events(),
            **calls(),
            **_tasks(),
        },
    }


def _head() -> Schema:
    return record(
        "What the definition is called.",
        {
            "dsl": text(
                "The DSL's version: 1.0.x.", pattern=r"^1\.0\.(?:0|[1-9][0-9]*)(?:[-+][0-9a-zA-Z.+-]+)?$"
            ),
            "namespace": ref("label", "Whose it is."),
            "name": ref("label", "Its name in the namespace."),
            "version": text(
                "Its semantic version; what was published under one never changes.",
                pattern=r"^(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)(?:[-+][0-9A-Za-z.+-]+)?$",
            ),
            "title": text("Its name for people."),
            "summary": text("What it does; Markdown."),
            "tags": mapping("Labels to find it by."),
            "metadata": {
                **mapping("Anything else about it."),
                "properties": {"queue": {**_QUEUE, "description": "The queue of tasks that name none."}},
            },
        },
        ("dsl", "namespace", "name", "version"),
    )


def _schedule() -> Schema:
    ways = {
        "every": ref("duration", "Again and again, with this time between two starts."),
        "cron": text("At the times of a cron expression, in UTC."),
        "after": ref("duration", "Again, so long after the last flow has ended."),
        "on": ref("strategy", "When these events arrive; they are the flow's input."),
    }
    return record("When flows start by themselves.", ways, **one_of_properties(*ways))


def _use() -> Schema:
    return record(
        "What tasks refer to by name.",
        {
            "authentications": mapping("Ways to authenticate.", ref("policy")),
            "catalogs": mapping(
                "Where cataloged functions are.",
                record(
                    "A catalog.",
                    {
                        "endpoint": either(
                            "Its root: a URI, or a folder below the operator's catalogs.",
                            ref("endpoint"),
                            {"type": "string"},
                        )
                    },
                    ("endpoint",),
                ),
            ),
            "errors": mapping("Errors to raise.", ref("error")),
            "extensions": listing(
                "Tasks performed around other tasks.",
                {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": _extension(),
                },
            ),
            "functions": mapping("Tasks to call by name.", ref("task")),
            "retries": mapping("Ways to try again.", ref("retry")),
            "secrets": listing("Names of the secrets that are used.", {"type": "string", "minLength": 1}),
            "timeouts": mapping(
                "Times.",
                record("A time.", {"after": ref("duration", "Counted from the start.")}, ("after",)),
            ),
        },
    )


def _extension() -> Schema:
    return record(
        "What surrounds tasks of a kind.",
        {
            "extend": {"enum": list(EXTENDED), "description": "Which kind of tasks."},
            "when": ref("program", "Only when this is true."),
            "before": {**_task_list("Performed before the task.", 0)},
            "after": {**_task_list("Performed after the task.", 0)},
        },
        ("extend",),
    )


# -- tasks --------------------------------------------------------------------------------------------------------


def _task_list(description: str, least: int = 1) -> Schema:
    entry = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "propertyNames": {"minLength": 1},
        "additionalProperties": ref("task"),
    }
    return listing(description, entry, minItems=least)


def _transform(description: str, name: str, how: str) -> Schema:
    shaped = either(how, {"type": "string"}, {"type": "object"})
    return record(description, {"schema": ref("schema", "What the data must fit."), name: shaped})


def _tasks() -> dict[str, Schema]:
    """`task` is one flat object: its kind follows from the one property that only that kind has."""
    names = ("item", "at", "do", "output", "export")
    foreach = dict(
        zip(
            names,
            (
                ref("variable", "The variable of the event; default: item."),
                ref("variable", "The variable of its index; default: index."),
                _task_list("What is done with it.", 0),
                ref("output", "What it gives."),
                ref("export", "What it leaves in the context."),
            ),
            strict=True,
        )
    )
    return {
        "tasks": _task_list("Tasks, in order; each an object of one property, its name."),
        "task": _task(),
        "input": _transform(
            "What goes in.", "from", "Chosen and shaped by an expression, or an object of them."
        ),
        "output": _transform("What comes out.", "as", "Shaped by an expression, or an object of them."),
        "export": _transform("What the context becomes.", "as", "An expression, or an object of them."),
        "foreach": record("For each event or message.", foreach),
        "catch": _catch(),
        "directive": text("continue, exit, end, or the name of a task of the same list.", minLength=1),
    }


def _events() -> dict[str, Schema]:
    """The kinds that publish or await events."""
    return {
        "emit": record(
            "Publishes an event.",
            {"event": record("The event.", {"with": ref("emitted")}, ("with",), additionalProperties=True)},
            ("event",),
        ),
        "listen": record(
            "Waits for events.",
            {
                "to": ref("strategy"),
                "read": {
                    "enum": ["data", "envelope", "raw"],
                    "default": "data",
                    "description": "What of the events is the output.",
                },
            },
            ("to",),
        ),
    }


def _kinds() -> dict[str, Schema]:
    return {
        **_events(),
        "call": text(
            "A function: http, …, decision, approval, one of use.functions, or one of a worker.", minLength=1
        ),
        "do": ref("tasks", "Tasks, one after the other; of a for: what is repeated."),
        "for": record(
            "Repeats tasks, once for each item.",
            {
                "each": ref("variable", "The variable of the item; default: item."),
                "in": ref("program", "The collection."),
                "at": ref("variable", "The variable of the index; default: index."),
            },
            ("in",),
        ),
        "fork": record(
            "Performs tasks at the same time.",
            {
                "branches": ref("tasks", "What is performed at the same time."),
                "compete": {
                    "type": "boolean",
                    "default": False,
                    "description": "The first that completes wins, the others are cancelled.",
                },
            },
            ("branches",),
        ),
        "raise": record(
            "Raises an error.",
            {
                "error": either(
                    "In place, or the name of one of use.errors.", ref("error"), {"type": "string"}
                )
            },
            ("error",),
        ),
        "run": ref("process", "Runs a program or another workflow."),
        "set": either(
            "Makes this the data: an object, or an expression.",
            {"type": "object", "minProperties": 1},
            {"type": "string", "minLength": 1},
        ),
        "switch": listing("Goes on by the first case that is true.", _case(), minItems=1),
        "try": ref("tasks", "Tasks whose errors are caught."),
        "wait": ref("duration", "Waits so long."),
    }


def _properties() -> dict[str, Schema]:
    """What every task may have, and what stands beside some kinds."""
    return {
        "if": ref("program", "Performed only when this is true."),
        "input": ref("input", "What the task gets."),
        "output": ref("output", "What the task gives to the next one."),
        "export": ref("export", "What the task leaves in the context, for all later ones."),
        "timeout": ref("timeout", "How long the task may take."),
        "then": ref("directive", "Where the flow goes on."),
        "metadata": _metadata(),
        "with": {"type": "object", "description": "The call's arguments."},
        "while": ref("program", "Of a for: only as long as this is true."),
        "foreach": ref("foreach", "Of a listen: what is done with each event."),
        "catch": ref("catch", "Of a try: which errors are caught, and what then."),
    }


def _task() -> Schema:
    kinds = _kinds()
    alone = [{"required": [kind]} for kind in kinds if kind != "do"]
    only_do = {"required": ["do"], "not": {"anyOf": alone}}
    forms = [
        {
            "if": {"properties": {"call": {"const": name}}, "required": ["call"]},
            "then": {
                "properties": {"with": ref(name)},
                **({} if name == "approval" else {"required": ["with"]}),
            },
        }
        for name in _FORMED
    ]
    return {
        "type": "object",
        "description": "A task. Its kind is the property that only this kind has.",
        "properties": {**kinds, **_properties()},
        "additionalProperties": False,
        "oneOf": [only_do, *alone],
        "dependentRequired": {
            "with": ["call"],
            "while": ["for"],
            "for": ["do"],
            "foreach": ["listen"],
            "catch": ["try"],
            "try": ["catch"],
        },
        "allOf": [
            {
                "if": {"required": ["do"]},
                "then": {"not": {"anyOf": [{"required": [k]} for k in kinds if k not in ("do", "for")]}},
            },
            *forms,
        ],
    }


def _case() -> Schema:
    case = record(
        "A case.",
        {
            "when": ref("program", "When it applies; absent: in all other cases."),
            "then": ref("directive", "Where the flow goes on."),
        },
        ("then",),
    )
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "propertyNames": {"minLength": 1},
        "additionalProperties": case,
    }


def _catch() -> Schema:
    wanted = {
        "type": text("The error's kind."),
        "status": either("Its status.", {"type": "integer"}, {"$ref": "#/$defs/expression"}),
        "instance": text("Where it happened."),
        "title": text("Its kind in words."),
        "detail": text("What happened."),
        "details": text("The same as detail."),
    }
    return record(
        "Which errors are caught, and what is done then.",
        {
            "errors": record(
                "Which errors; all when absent.",
                {"with": record("What the error has.", wanted, minProperties=1)},
            ),
            "as": ref("variable", "The variable of the error; default: error."),
            "when": ref("program", "Only when this is true."),
            "exceptWhen": ref("program", "Not when this is true."),
            "retry": either(
                "How to try again: in place, or one of use.retries by name.", ref("retry"), {"type": "string"}
            ),
            "do": _task_list("What is done once it is not tried again.", 0),
        },
    )


def _metadata() -> Schema:
    """Open, as the specification has it; the names here are those this engine gives a meaning."""
    count = {"type": "integer", "minimum": 1}
    key = {"description": "Calls with the same value share the limit; an expression on the task's input."}
    at_once = record(
        "At once, for each key.",
        {"limit": {**count, "description": "So many."}, "key": key},
        ("limit",),
    )
    rate = record(
        "At most so many calls in a time.",
        {"limit": {**count, "description": "So many."}, "per": ref("duration", "In this time."), "key": key},
        ("limit", "per"),
    )
    return {
        **mapping("Anything else about the task; these names have a meaning here."),
        "properties": {
            "compensate": either(
                "What undoes the task when the flow faults: a task, or the name of one of use.functions.",
                ref("task"),
                {"type": "string"},
            ),
            "queue": _QUEUE,
            "priority": {
                "enum": list(PRIORITIES),
                "default": "normal",
                "description": "Which tasks go first.",
            },
            "heartbeat": ref("duration", "How long a worker may be silent."),
            "attempts": {**count, "default": 3, "description": "How often a silent call is given out."},
            "concurrency": either("At most so many calls at once.", count, at_once),
            "rateLimit": rate,
        },
    }
