"""Does a server serve? Asked in its own protocol over a socket, with no client library.

An open port is not an answer: Kafka listens before its broker is unfenced, Postgres while it still recovers.
"""

from __future__ import annotations

import http.client
import socket
import struct
from urllib.parse import urlsplit

METADATA_KEY, METADATA_VERSION = 3, 1
POSTGRES_PROTOCOL = 196_608
STARTING_UP = b"57P03"


def kafka_answers(server: str, timeout_s: float = 2.0) -> bool:
    """Whether a metadata request names at least one broker: only an unfenced broker is in the answer."""
    client = b"flowtrail-probe"
    # header v1: key, version, correlation id, client id; body: no topics
    request = struct.pack(">hhih", METADATA_KEY, METADATA_VERSION, 1, len(client)) + client
    request += struct.pack(">i", 0)
    try:
        host, port = host_and_port(server.split(",")[0], 9092)
        with socket.create_connection((host, port), timeout_s) as link:
            link.settimeout(timeout_s)
            link.sendall(struct.pack(">i", len(request)) + request)
            size = struct.unpack(">i", _read(link, 4))[0]
            answer = _read(link, min(size, 65_536))
    except (OSError, EOFError, ValueError):
        return False
    return len(answer) >= 8 and int(struct.unpack(">ii", answer[:8])[1]) > 0


def postgres_answers(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a start-up message is met by anything but "starting up": asking for a password is an answer."""
    parts = urlsplit(url)
    fields = (b"user", (parts.username or "flowtrail").encode(), b"database", parts.path.lstrip("/").encode())
    body = struct.pack(">i", POSTGRES_PROTOCOL) + b"\0".join(fields) + b"\0\0"
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5432), timeout_s) as link:
            link.settimeout(timeout_s)
            link.sendall(struct.pack(">i", len(body) + 4) + body)
            kind = _read(link, 1)
            size = struct.unpack(">i", _read(link, 4))[0]
            # read to its end: closing on unread bytes is a reset, which the server logs
            answer = _read(link, min(size - 4, 65_536))
    except (OSError, EOFError, ValueError, struct.error):
        return False
    return kind == b"R" or (kind == b"E" and STARTING_UP not in answer)


def http_answers(url: str, timeout_s: float = 2.0) -> bool:
    """Whether GET gives 200."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout_s)
    try:
        link.request("GET", parts.path or "/")
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


def host_and_port(server: str, otherwise: int) -> tuple[str, int]:
    """`host:port`, `[v6]:port` or `host`."""
    parts = urlsplit(f"//{server.strip()}")
    return parts.hostname or "127.0.0.1", parts.port or otherwise


def _read(link: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        chunk = link.recv(size - len(found))
        if not chunk:
            raise EOFError
        found += chunk
    return found
