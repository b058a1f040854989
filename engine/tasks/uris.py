"""URIs of calls: templates expanded with properties of the task's input, endpoints taken apart, queries put together.

Templates know the simple expansion of RFC 6570 only: `{name}` becomes the property of exactly that name, percent-encoded;
nothing when there is none. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from engine.tasks import problems

INPUT: Final = "__input__"
"""Where a call's arguments hold the properties that its templates expand."""

_TEMPLATE: Final = re.compile(r"\{([^{}]*)\}")


def expand(template: str, values: Mapping[str, Any]) -> str:
    """Raises TaskError (expression) for a value that is an object or a list."""

    def one(found: re.Match[str]) -> str:
        value = values.get(found[1])
        if isinstance(value, dict | list):
            kind = "an object" if isinstance(value, dict) else "a list"
            raise problems.expression(
                f"Expected text, a number, a boolean or null as {found[1]!r} in a URI but found {kind}"
            )
        return quote(text_of(value), safe="")

    return _TEMPLATE.sub(one, template)


def text_of(value: Any) -> str:
    """A scalar as it stands in a URI, a header or a form."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case _:
            return str(value)


def endpoint_of(endpoint: Any, given: Mapping[str, Any]) -> tuple[str, Any]:
    """The expanded URI of `endpoint` (text, or `{uri, authentication}`) and its authentication policy, if any."""
    policy = None
    if isinstance(endpoint, dict):
        policy = endpoint.get("authentication")
        endpoint = endpoint.get("uri")
    if not isinstance(endpoint, str) or not endpoint:
        raise problems.configuration("Expected an endpoint's URI but there is none")
    return expand(endpoint, given), policy


def with_query(uri: str, query: Mapping[str, Any]) -> str:
    """`uri` with `query` behind its own query. A list repeats its name, null leaves it out."""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                raise problems.configuration(
                    f"Expected text, a number or a boolean as query parameter {name!r} but found an object or a list"
                )
            if item is not None:
                pairs.append((name, text_of(item)))
    if not pairs:
        return uri
    rest, hash_mark, fragment = uri.partition("#")
    joint = "" if rest.endswith(("?", "&")) else "&" if "?" in rest else "?"
    return f"{rest}{joint}{urlencode(pairs, quote_via=quote)}{hash_mark}{fragment}"
