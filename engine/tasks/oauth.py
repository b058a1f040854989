"""Tokens from an OAuth 2 or OpenID Connect authority, kept until shortly before they expire.

The request is put together from the policy alone (`request_of`, pure but for the time in a signed assertion); the endpoint
is the policy's, or the one that the authority's discovery document names. A token without `expires_in` is not kept.
Invariant: tokens and client secrets are in no error and no log.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import jwt

from engine.tasks import problems
from engine.tasks.authentication import text
from engine.tasks.connections import exchange

WELL_KNOWN: Final = "/.well-known/openid-configuration"
TOKEN_ENDPOINT: Final = "/oauth2/token"  # noqa: S105 - a path
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM: Final = "application/x-www-form-urlencoded"
KEPT: Final = 256
DISCOVERED_S: Final = 600.0
_EARLY_S: Final = 30.0
_ASSERTION_S: Final = 120
_SCHEME: Final = "oauth2"
_CODES: Final = (
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "access_denied",
)

_tokens: Final[OrderedDict[str, tuple[str, str, float]]] = OrderedDict()
_endpoints: Final[OrderedDict[str, tuple[str, float]]] = OrderedDict()


async def token_of(policy: Mapping[str, Any], *, discover: bool) -> tuple[str, str]:
    """The token's type (Bearer) and the token. Raises TaskError."""
    key = hashlib.sha256(json.dumps([policy, discover], sort_keys=True, default=str).encode()).hexdigest()
    kept = _tokens.get(key)
    if kept is not None and time.monotonic() < kept[2]:
        _tokens.move_to_end(key)
        return kept[0], kept[1]
    endpoint = await _discovered(policy) if discover else endpoint_of(policy)
    headers, fields = request_of(policy, endpoint)
    content_type, content = _encoded(policy, fields)
    answer = await exchange(
        "POST",
        endpoint,
        headers={**headers, "content-type": content_type, "accept": "application/json"},
        content=content,
    )
    place = problems.place(endpoint)
    if 400 <= answer.status < 500:
        raise problems.authentication(
            f"Expected a token from {place} but the status is {answer.status}{_code(answer.content)}"
        )
    if answer.status != 200:
        raise problems.communication(
            f"Expected a token from {place} but the status is {answer.status}", answer.status
        )
    return _keep(key, _object(answer.content, place), policy, place)


def forget() -> None:
    """Drops every token and endpoint kept."""
    _tokens.clear()
    _endpoints.clear()


def endpoint_of(policy: Mapping[str, Any]) -> str:
    """The token endpoint: a path below the authority, or a URI of its own."""
    authority = text(policy, "authority", _SCHEME)
    named = policy.get("endpoints")
    path = named.get("token", TOKEN_ENDPOINT) if isinstance(named, dict) else TOKEN_ENDPOINT
    if not isinstance(path, str):
        raise problems.configuration("Expected text as endpoints.token of the oauth2 policy")
    return path if urlsplit(path).scheme else f"{authority.rstrip('/')}/{path.lstrip('/')}"


def request_of(policy: Mapping[str, Any], endpoint: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The headers and the fields of a token request. Raises TaskError (configuration)."""
    grant = text(policy, "grant", _SCHEME)
    fields: dict[str, Any] = {"grant_type": grant}
    match grant:
        case "client_credentials":
            pass
        case "password":
            fields |= {name: text(policy, name, _SCHEME) for name in ("username", "password")}
        case "refresh_token":
            fields["refresh_token"] = text(_part(policy, "subject"), "token", "oauth2.subject")
        case _ if grant == TOKEN_EXCHANGE:
            fields |= _exchanged(policy)
        case _:
            raise problems.configuration(
                f"Expected a grant that needs nobody at a browser but found {grant[:64]!r}"
            )
    if scopes := _texts(policy, "scopes"):
        fields["scope"] = " ".join(scopes)
    if audiences := _texts(policy, "audiences"):
        fields["audience"] = audiences if len(audiences) > 1 else audiences[0]
    headers = _identify(_part(policy, "client"), fields, endpoint)
    return headers, fields


def _exchanged(policy: Mapping[str, Any]) -> dict[str, str]:
    fields = {}
    for role in ("subject", "actor"):
        if role == "actor" and policy.get(role) is None:
            continue
        token = _part(policy, role)
        fields[f"{role}_token"] = text(token, "token", f"oauth2.{role}")
        fields[f"{role}_token_type"] = text(token, "type", f"oauth2.{role}")
    return fields


def _identify(client: Mapping[str, Any], fields: dict[str, Any], endpoint: str) -> dict[str, str]:
    """Adds to `fields` what tells the client, and gives the headers that do."""
    method = client.get("authentication", "client_secret_post" if client else "none")
    scheme = "oauth2.client"
    if method == "none":
        if client.get("id") is not None:
            fields["client_id"] = text(client, "id", scheme)
        return {}
    name = text(client, "id", scheme)
    match method:
        case "client_secret_basic":
            pair = f"{quote(name, safe='')}:{quote(text(client, 'secret', scheme), safe='')}"
            return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        case "client_secret_post":
            fields["client_id"] = name
            if client.get("secret") is not None:
                fields["client_secret"] = text(client, "secret", scheme)
        case "client_secret_jwt":
            fields |= _assertion(name, _signed(name, text(client, "secret", scheme), endpoint))
        case "private_key_jwt":
            fields |= _assertion(name, text(client, "assertion", scheme))
        case _:
            raise problems.configuration("Expected a known method as client.authentication of the policy")
    return {}


def _assertion(name: str, assertion: str) -> dict[str, str]:
    return {"client_id": name, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}


def _signed(name: str, secret: str, endpoint: str) -> str:
    now = int(time.time())
    claims = {
        "iss": name,
        "sub": name,
        "aud": endpoint,
        "jti": str(uuid.uuid4()),
        "iat": now,
        "exp": now + _ASSERTION_S,
    }
    # PyJWT warns about, or refuses, keys shorter than the digest; which secret a client has is the authority's choice
    return jwt.encode(claims, secret.encode().ljust(32, b"\0"), algorithm="HS256")


def _encoded(policy: Mapping[str, Any], fields: Mapping[str, Any]) -> tuple[str, bytes]:
    encoding = _part(policy, "request").get("encoding", FORM)
    if encoding == "application/json":
        return encoding, json.dumps(fields).encode()
    return FORM, urlencode(fields, doseq=True).encode()


async def _discovered(policy: Mapping[str, Any]) -> str:
    authority = text(policy, "authority", "oidc").rstrip("/")
    uri = authority if authority.endswith(WELL_KNOWN) else authority + WELL_KNOWN
    kept = _endpoints.get(uri)
    if kept is not None and time.monotonic() < kept[1]:
        return kept[0]
    answer = await exchange("GET", uri, headers={"accept": "application/json"})
    place = problems.place(uri)
    if answer.status != 200:
        raise problems.communication(
            f"Expected a discovery document at {place} but the status is {answer.status}", answer.status
        )
    endpoint = _object(answer.content, place).get("token_endpoint")
    if not isinstance(endpoint, str):
        raise problems.communication(
            f"Expected a token_endpoint in the document at {place} but there is none"
        )
    _endpoints[uri] = (endpoint, time.monotonic() + DISCOVERED_S)
    while len(_endpoints) > KEPT:
        _endpoints.popitem(last=False)
    return endpoint


def _keep(key: str, found: Mapping[str, Any], policy: Mapping[str, Any], place: str) -> tuple[str, str]:
    token, kind = found.get("access_token"), str(found.get("token_type") or "Bearer")
    if not isinstance(token, str) or not token:
        raise problems.communication(f"Expected an access_token from {place} but there is none")
    _check_issuer(token, _texts(policy, "issuers"), place)
    kind = "Bearer" if kind.lower() == "bearer" else kind
    lasts = found.get("expires_in")
    if isinstance(lasts, str) and lasts.isdecimal():
        lasts = int(lasts)
    if isinstance(lasts, int | float) and not isinstance(lasts, bool):
        early = min(_EARLY_S, lasts / 10)
        _tokens[key] = (kind, token, time.monotonic() + lasts - early)
        while len(_tokens) > KEPT:
            _tokens.popitem(last=False)
    return kind, token


def _check_issuer(token: str, issuers: list[str], place: str) -> None:
    if not issuers:
        return
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except jwt.PyJWTError:
        issuer = None
    if issuer not in issuers:
        raise problems.authentication(
            f"Expected a token from {place} of an issuer of the policy but it has another"
        )


def _object(content: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise problems.communication(f"Expected a JSON object from {place} but found something else")
    return found


def _code(content: bytes) -> str:
    """The error's code as RFC 6749 defines it: one of a few words, never a secret."""
    try:
        code = json.loads(content).get("error")
    except (ValueError, AttributeError):
        return ""
    return f" ({code})" if code in _CODES else ""


def _part(policy: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = policy.get(name)
    return value if isinstance(value, dict) else {}


def _texts(policy: Mapping[str, Any], name: str) -> list[str]:
    value = policy.get(name)
    return [str(item) for item in value] if isinstance(value, list) else []
