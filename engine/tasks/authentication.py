"""From an authentication policy to what a request carries: scheme and parameter, or an exchange (digest).

The policies are those of the specification, evaluated and opened: `{"basic": {...}}`, `{"bearer": ...}`, `{"digest": ...}`,
`{"oauth2": ...}`, `{"oidc": ...}`. A policy that came from a secret may be an object or JSON text; a bearer's secret may be
the bare token. `{"use": ...}` never arrives here: the engine put the policy in its place. Invariant: no error tells a part
of a policy but its scheme and its authority.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from engine.tasks import problems

SCHEMES: Final = ("basic", "bearer", "digest", "oauth2", "oidc")


@dataclass(frozen=True)
class Authorization:
    """`scheme` and `parameter` of the Authorization header. A digest has none before the server's challenge."""

    scheme: str
    parameter: str = field(repr=False)
    auth: httpx2.Auth | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.auth is not None else {"authorization": f"{self.scheme} {self.parameter}"}

    @property
    def parts(self) -> dict[str, str]:
        """What ⟦authorization:scheme⟧ and ⟦authorization:parameter⟧ stand for."""
        return {"scheme": self.scheme, "parameter": self.parameter}


async def authorize(policy: Any) -> Authorization | None:
    """None without a policy. Fetches a token when the policy asks for one. Raises TaskError."""
    policy = _object(policy, "an authentication policy")
    if not policy:
        return None
    chosen = [scheme for scheme in SCHEMES if policy.get(scheme) is not None]
    if len(chosen) != 1 or len(policy) != 1:
        raise problems.configuration(
            f"Expected an authentication policy with one of {', '.join(SCHEMES)} but found {_names(policy)}"
        )
    scheme = chosen[0]
    content = policy[scheme]
    if scheme == "bearer" and isinstance(content, str) and not content.lstrip().startswith("{"):
        content = {"token": content}
    found = _object(content, f"the policy of {scheme}")
    match scheme:
        case "basic":
            pair = f"{text(found, 'username', scheme)}:{text(found, 'password', scheme)}"
            return Authorization("Basic", base64.b64encode(pair.encode()).decode())
        case "bearer":
            return Authorization("Bearer", text(found, "token", scheme))
        case "digest":
            auth = httpx2.DigestAuth(text(found, "username", scheme), text(found, "password", scheme))
            return Authorization("Digest", "", auth)
    from engine.tasks.oauth import token_of

    kind, token = await token_of(found, discover=scheme == "oidc")
    return Authorization(kind, token)


def text(policy: Mapping[str, Any], name: str, scheme: str) -> str:
    """The property `name` as text. Raises TaskError when it is absent or something else."""
    value = policy.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a password of digits, written without quotes
    if not isinstance(value, str):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise problems.configuration(f"Expected text as {name} of the {scheme} policy but found {found}")
    return value


def _object(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = ""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise problems.configuration(f"Expected an object as {what} but found something else")
    return value


def _names(policy: Mapping[str, Any]) -> str:
    return ", ".join(sorted(str(name)[:32] for name in policy))
