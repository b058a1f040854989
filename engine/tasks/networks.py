"""Where calls may go: the operator's rewrite rules, and whether private networks may be reached.

A rewrite rule replaces the beginning of a URI (scheme, host and port, maybe a path) by another one just before the
connection is made; what a flow sees is the URI it called. With private networks denied, the address a name stands for is
checked and that very address is connected to, so that no second answer of a name server can lead elsewhere. Where rules
lead is the operator's own choice, and allowed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpcore2

from engine.errors import InputError

PORTS: Final = {"http": 80, "https": 443}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """The operator does not let calls go to that address."""


def origin(uri: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ValueError for a port that is no number."""
    scheme = uri.scheme.lower()
    return scheme, (uri.hostname or "").lower(), uri.port or PORTS.get(scheme, 0)


@lru_cache(maxsize=8)
def rules(text: str) -> tuple[tuple[str, str], ...]:
    """The rewrite rules of FLOWTRAIL_HTTP_REWRITE, the longest beginning first. Raises InputError."""
    found = []
    for rule in filter(None, map(str.strip, text.split(","))):
        source, mark, target = rule.partition("=")
        for part in (source, target):
            try:
                scheme, host, _port = origin(urlsplit(part))
            except ValueError:
                scheme = host = ""
            if not mark or scheme not in PORTS or not host or "?" in part:
                raise InputError(
                    f"Expected FLOWTRAIL_HTTP_REWRITE to be https://host=http://host:port,... but found {rule!r}"
                )
        found.append((source.rstrip("/"), target.rstrip("/")))
    return tuple(sorted(found, key=lambda pair: -len(pair[0])))


def rewritten(uri: str, text: str) -> str:
    """`uri` as the rules in `text` have it."""
    for source, target in rules(text):
        begin, asked = urlsplit(source), urlsplit(uri)
        if origin(begin) != origin(asked):
            continue
        rest = asked.path[len(begin.path) :] if asked.path.startswith(begin.path) else None
        if rest is None or (rest and not rest.startswith("/")):
            continue
        query = f"?{asked.query}" if asked.query else ""
        return f"{target}{rest}{query}"
    return uri


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses and to where rewrite rules lead, and to nothing else."""

    def __init__(self, rewrite: str) -> None:
        self._inner = httpcore2.AnyIOBackend()
        self._allowed = {origin(urlsplit(target))[1:] for _, target in rules(rewrite)}

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        if (host.lower(), port) not in self._allowed:
            host = await public_address(host, port)
        return await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise Refused("Expected a network address but found a socket in the file system")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def public_address(host: str, port: int) -> str:
    """The first address of `host`. Raises Refused unless every address of it is public."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as problem:
        raise httpcore2.ConnectError(str(problem)) from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise Refused(f"Expected a public address but {host} stands for a private one")
    return addresses[0]


def is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast
