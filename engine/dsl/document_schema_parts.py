"""The parts of the JSON Schema for editors that tasks share: texts, durations, endpoints, authentications, events.

Data and the few functions that write them; no call (document_schema_calls.py), no task and no document (document_schema.py) here. Every property has a
description of one sentence, because an editor shows it. Objects name all their properties: a wrong name is an error.
"""

from __future__ import annotations

from typing import Any, Final

from engine.dsl.authentications import GRANTS

Schema = dict[str, Any]


def ref(name: str, description: str = "") -> Schema:
    found: Schema = {"$ref": f"#/$defs/{name}"}
    return {**found, "description": description} if description else found


def record(
    description: str, properties: dict[str, Schema], required: tuple[str, ...] = (), **more: Any
) -> Schema:
    """An object of these properties and no others."""
    made: Schema = {"type": "object", "description": description, "properties": properties}
    if required:
        made["required"] = list(required)
    return {**made, "additionalProperties": False, **more}


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def flag(description: str, default: bool) -> Schema:
    return {
        "description": description,
        "default": default,
        "anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/expression"}],
    }


def choice(description: str, names: tuple[str, ...], **more: Any) -> Schema:
    allowed = [{"enum": list(names)}, {"$ref": "#/$defs/expression"}]
    return {"type": "string", "description": description, "anyOf": allowed, **more}


def mapping(description: str, of: Schema | None = None) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": of or True}


def listing(description: str, of: Schema, **more: Any) -> Schema:
    return {"type": "array", "description": description, "items": of, **more}


def either(description: str, *schemas: Schema) -> Schema:
    return {"description": description, "anyOf": list(schemas)}


def one_of_properties(*names: str) -> Schema:
    return {"oneOf": [{"required": [name]} for name in names]}


EXPRESSION: Final = {"$ref": "#/$defs/expression"}
_SCALAR: Final = {"type": ["string", "number", "boolean"]}
_NAME: Final = {"type": "string", "minLength": 1}


def scalars(description: str) -> Schema:
    return either(description, mapping("By name.", _SCALAR), EXPRESSION)


def values(description: str) -> Schema:
    return either(description, mapping("By name."), EXPRESSION)


def common() -> dict[str, Schema]:
    """What many places refer to."""
    counts = {
        part: either(f"How many {part}.", {"type": "integer", "minimum": 0, "maximum": 10**15}, EXPRESSION)
        for part in ("days", "hours", "minutes", "seconds", "milliseconds")
    }
    return {
        "expression": text("A runtime expression, written ${ … }.", pattern=r"^\s*\$\{[\s\S]*\}\s*$"),
        "program": text("A runtime expression; here ${ } may be left out.", minLength=1),
        "label": text(
            "At most 63 letters, digits and '-'.",
            pattern="^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$",
        ),
        "variable": text(
            "The name of a variable, without $.",
            pattern="^[A-Za-z_][A-Za-z0-9_]*$",
            **{"not": {"enum": ["context", "input", "output", "task", "workflow", "runtime", "secrets"]}},
        ),
        "duration": either(
            "How long: ISO 8601 text such as PT15M, parts, or an expression that gives one of these.",
            text("ISO 8601.", pattern=r"^\s*P(?!\s*$)[0-9YMWDTHS.,]+\s*$"),
            EXPRESSION,
            record("Parts that are added up.", counts, minProperties=1),
        ),
        "timeout": either(
            "What may take this long and no longer: in place, or the name of one of use.timeouts.",
            _NAME,
            record("In place.", {"after": ref("duration", "Counted from the start.")}, ("after",)),
        ),
        **_places(),
        "error": record(
            "A problem, as RFC 7807 describes one.",
            {
                "type": text("The kind of the error: a URI, or an expression."),
                "status": {"type": "integer", "description": "The status code of HTTP that is closest."},
                "instance": text("JSON pointer of where it happened; the raising task's when absent."),
                "title": text("The kind in words."),
                "detail": text("What happened this time."),
            },
            ("type", "status"),
        ),
        "retry": _retry(),
        "metadata": mapping("Anything else about it; the engine gives some names a meaning."),
    }


def _places() -> dict[str, Schema]:
    """What is somewhere else."""
    return {
        "schema": record(
            "What the data must look like; JSON Schema 2020-12.",
            {
                "format": text("json, also with a version.", pattern="^json(?::.*)?$", default="json"),
                "document": {"type": ["object", "boolean"], "description": "The schema itself."},
                "resource": ref(
                    "resource", "Where the schema is read from when the definition is published."
                ),
            },
            **one_of_properties("document", "resource"),
        ),
        "endpoint": either(
            "Where something answers: a URI template, an expression, or with an authentication.",
            text(
                "A URI; {name} is replaced by the input's property.", pattern=r"^[A-Za-z][A-Za-z0-9+.\-]*://"
            ),
            EXPRESSION,
            record(
                "A URI and who calls it.",
                {
                    "uri": either(
                        "The URI, its template or an expression.",
                        text("A URI.", pattern=r"^[A-Za-z][A-Za-z0-9+.\-]*://"),
                        EXPRESSION,
                    ),
                    "authentication": ref("authentication"),
                },
                ("uri",),
            ),
        ),
        "resource": record(
            "A document somewhere else.",
            {
                "name": text("What to call it."),
                "endpoint": ref("endpoint", "Where it is."),
            },
            ("endpoint",),
        ),
    }


def _retry() -> Schema:
    empty = {"type": ["object", "null"], "description": "Has no settings."}
    return record(
        "Whether, when and how often to try again.",
        {
            "when": ref("program", "Try again only when this is true."),
            "exceptWhen": ref("program", "Do not try again when this is true."),
            "delay": ref("duration", "The pause before the first retry."),
            "backoff": record(
                "How the pause grows.",
                {"constant": empty, "linear": empty, "exponential": empty},
                **one_of_properties("constant", "linear", "exponential"),
            ),
            "limit": record(
                "When to give up.",
                {
                    "attempt": record(
                        "Of the attempts.",
                        {
                            "count": {
                                "type": "integer",
                                "minimum": 0,
                                "description": "At most so many retries.",
                            },
                            "duration": ref("duration", "How long one attempt may take."),
                        },
                    ),
                    "duration": ref("duration", "How long all attempts may take together."),
                },
            ),
            "jitter": record(
                "A random time added to each pause.",
                {"from": ref("duration", "At least."), "to": ref("duration", "At most.")},
                ("from", "to"),
            ),
        },
    )


# -- who calls ----------------------------------------------------------------------------------------------------


def authentications() -> dict[str, Schema]:
    secret = record("Kept in a secret.", {"use": text("The secret's name.")}, ("use",))
    password = record(
        "A user's name and password.",
        {"username": text("Who."), "password": text("The password; better a secret.")},
        ("username", "password"),
    )
    bearer = record("A token.", {"token": text("The token; better a secret.")}, ("token",))
    token = record("A token.", {"token": text("The token."), "type": text("Its kind.")}, ("token", "type"))
    grant = {
        "authority": text("The URI of the server that gives tokens."),
        "grant": choice("How the token is asked for.", GRANTS),
        "client": record(
            "What the authority knows us as.",
            {
                "id": text("Its name."),
                "secret": text("Its secret."),
                "assertion": text("A signed token instead of a secret."),
                "authentication": text("How the client proves itself."),
            },
        ),
        "request": record("How the request is written.", {"encoding": text("Its media type.")}),
        "issuers": listing("Whose tokens are taken.", _NAME),
        "scopes": listing("What the token is for.", _NAME),
        "audiences": listing("Who the token is for.", _NAME),
        "username": text("With the grant password."),
        "password": text("With the grant password."),
        "subject": token,
        "actor": token,
    }
    paths = {
        "token": text("Where tokens are given."),
        "revocation": text("Where they are taken back."),
        "introspection": text("Where they are looked at."),
    }
    endpoints = record("Paths below the authority.", paths)
    schemes = {
        "basic": either("A user's name and password with each request.", password, secret),
        "bearer": either("A token with each request.", bearer, secret),
        "digest": either("As basic, without sending the password.", password, secret),
        "oauth2": either(
            "A token from an OAuth 2 server.",
            record("In place.", {**grant, "endpoints": endpoints}, ("authority", "grant")),
            secret,
        ),
        "oidc": either(
            "A token from an OpenID Connect server.",
            record("In place.", dict(grant), ("authority", "grant")),
            secret,
        ),
    }
    return {
        "policy": record("How a caller proves who it is.", schemes, **one_of_properties(*schemes)),
        "authentication": either(
            "How to authenticate: in place, or one of use.authentications by name.",
            ref("policy"),
            record("By name.", {"use": text("One of use.authentications.")}, ("use",)),
            _NAME,
        ),
    }


# -- events -------------------------------------------------------------------------------------------------------


def events() -> dict[str, Schema]:
    attributes = {
        "id": text("The event's own name."),
        "source": text("Where events come from: a URI."),
        "type": text("What kind of event."),
        "time": text("When it happened."),
        "subject": text("What it is about."),
        "datacontenttype": text("The media type of the data."),
        "dataschema": text("The URI of the data's schema."),
        "data": {"description": "The event's content."},
    }
    extensions = {"description": "An attribute of one's own."}
    whole = {"type": "object", "properties": attributes, "additionalProperties": extensions}
    strategies = {
        "one": ref("filter", "Exactly one event, of this kind."),
        "any": listing("The first event of one of these kinds; of every kind when empty.", ref("filter")),
        "all": listing("An event of each of these kinds.", ref("filter"), minItems=1),
    }
    chosen = one_of_properties(*strategies)
    until = either(
        "Until when events are taken: an expression on those taken, or events; false: for ever.",
        ref("program"),
        {"const": False},
        record("Events that end it.", strategies, **chosen),
    )
    return {
        "emitted": {
            **whole,
            "description": "The attributes of an event to publish; id and time are filled in.",
            "required": ["source", "type"],
        },
        "filter": record(
            "Which events.",
            {
                "with": {
                    **whole,
                    "description": "Attributes the event has: a value, a regular expression, or an expression.",
                    "minProperties": 1,
                },
                "correlate": mapping(
                    "What ties the event to this flow, by a name of one's own.",
                    record(
                        "A value of the event.",
                        {
                            "from": ref("program", "Takes the value from the event."),
                            "expect": {
                                "description": "The value it must have; the first event's when absent."
                            },
                        },
                        ("from",),
                    ),
                ),
            },
            ("with",),
        ),
        "strategy": record("Which events, and how many.", {**strategies, "until": until}, **chosen),
    }
