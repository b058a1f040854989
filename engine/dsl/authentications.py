"""Authentication policies: checked, and put in place of their names.

Calls give workers whole policies: `{use: name}` becomes the policy of use.authentications, and a policy kept in a secret
(`basic: {use: mySecret}`) becomes the sealed reference to that secret as a whole, which the worker opens to the
policy's properties. The expressions of a reusable policy are evaluated on the calling task's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.dsl.checks import Checks, described
from engine.dsl.model import Json
from engine.dsl.secrets import secret
from engine.dsl.shapes import URI, Shape, exactly_one, listing, one_of, record, text

SCHEMES: Final = ("basic", "bearer", "digest", "oauth2", "oidc")
GRANTS: Final = (
    "authorization_code",
    "client_credentials",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:token-exchange",
)
_METHODS: Final = (
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "none",
)
_ENCODINGS: Final = ("application/x-www-form-urlencoded", "application/json")
_TOKEN: Final = record(("token", "type"), token=text(), type=text())
_GRANT: Final[dict[str, Shape]] = {
    "authority": text("a URI with a scheme", URI),
    "grant": one_of(*GRANTS),
    "client": record(id=text(), secret=text(), assertion=text(), authentication=one_of(*_METHODS)),
    "request": record(encoding=one_of(*_ENCODINGS)),
    "issuers": listing(text()),
    "scopes": listing(text()),
    "audiences": listing(text()),
    "username": text(),
    "password": text(),
    "subject": _TOKEN,
    "actor": _TOKEN,
}
_ENDPOINTS: Final = record(token=text(), revocation=text(), introspection=text())
_PASSWORD: Final = record(("username", "password"), username=text(), password=text())
_POLICIES: Final[Mapping[str, Shape]] = {
    "basic": _PASSWORD,
    "digest": _PASSWORD,
    "bearer": record(("token",), token=text()),
    "oauth2": record(("authority", "grant"), **_GRANT, endpoints=_ENDPOINTS),
    "oidc": record(("authority", "grant"), **_GRANT),
}


class Authentications:
    """The reusable policies of one document, and which of them were used."""

    def __init__(self, checks: Checks, reusable: Mapping[str, Json], used: set[tuple[str, str]]) -> None:
        self.checks = checks
        self.reusable = reusable
        self.used = used

    def check(self, policy: Json, pointer: str) -> None:
        """A policy defined at `pointer`, not one named there."""
        checks = self.checks
        if isinstance(policy, dict) and "certificate" in policy:
            checks.unsupported("certificate authentication", f"{pointer}/certificate")
            return
        found = checks.properties(policy, pointer, SCHEMES)
        if isinstance(policy, dict) and len(policy) == len(found):
            exactly_one(SCHEMES)(checks, policy, pointer)
        for scheme, content in found.items():
            at = f"{pointer}/{scheme}"
            if isinstance(content, dict) and "use" in content:
                self._secret(content, at)
            else:
                _POLICIES[scheme](checks, content, at)

    def _secret(self, content: dict[str, Json], pointer: str) -> None:
        checks = self.checks
        found = checks.properties(content, pointer, ("use",))
        name = checks.text(found["use"], f"{pointer}/use", "the name of a secret")
        self.used.add(("secrets", name))
        if name and name not in checks.secrets:
            checks.warn(
                f"The secret {name!r} is not among use.secrets, so calls will be forbidden", f"{pointer}/use"
            )

    def resolved(self, value: Json, pointer: str, sealed: set[str]) -> Json:
        """The policy to give to a worker, its secrets sealed; `value` is a policy, `{use: name}` or a name."""
        name = value.get("use") if isinstance(value, dict) and "use" in value else value
        if isinstance(value, dict) and "use" in value:
            self.checks.properties(value, pointer, ("use",))
            pointer = f"{pointer}/use"
        if not isinstance(name, dict):
            if not isinstance(name, str) or name not in self.reusable:
                wish = "the name of an authentication of use.authentications"
                known = self.reusable if isinstance(name, str) else ()
                self.checks.expected(wish, described(name), pointer, name=str(name), known=known)
                return {}
            self.used.add(("authentications", name))
            policy = self.reusable[name]
            with self.checks.silently():  # it is checked where it is written
                self.check(policy, pointer)
        else:
            policy = name
            self.check(policy, pointer)
        return self._sealed(policy, sealed)

    def _sealed(self, policy: Json, sealed: set[str]) -> Json:
        if not isinstance(policy, dict):
            return {}
        made: dict[str, Json] = {}
        for scheme, content in policy.items():
            if isinstance(content, dict) and isinstance(content.get("use"), str):
                made[scheme] = secret(content["use"], self.checks.secrets)
                sealed.add(made[scheme])
            else:
                made[scheme] = content
        return made
