"""Ports of the stack on the loopback interface: the defaults, free ones, and what to say of a taken one.

Free ports are drawn below the range from which the kernel takes source ports. Within it a client that
reconnects to a server that is down can be given that very port as its own, and the server never starts again.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import psutil

from stack.errors import Refused

HOST = "127.0.0.1"
FREE_FIRST, FREE_LAST = 20_000, 32_000


@dataclass(frozen=True)
class Ports:
    """0 for the Kafka controller means: any free one, for nobody else speaks to it."""

    kafka: int = 9092
    kafka_controller: int = 0
    postgres: int = 5433
    api: int = 8080
    metrics_engine: int = 9101
    metrics_projections: int = 9102
    metrics_executor: int = 9103

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def is_free(port: int) -> bool:
    """Whether a server that sets SO_REUSEADDR, as all of ours do, could listen there now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def free_port(avoid: frozenset[int] = frozenset()) -> int:
    """A free port outside `avoid`."""
    for port in random.sample(range(FREE_FIRST, FREE_LAST), 500):
        if port not in avoid and is_free(port):
            return port
    raise Refused(
        f"Expected a free port between {FREE_FIRST} and {FREE_LAST} on {HOST} but 500 tries found none"
    )


def choose(previous: Mapping[str, int]) -> Ports:
    """Free ports, the previous run's where they are still free, so that clients' addresses stay valid."""
    taken: set[int] = set()
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        port = previous.get(field.name, 0)
        if not port or port in taken or not is_free(port):
            port = free_port(frozenset(taken))
        taken.add(port)
        chosen[field.name] = port
    return Ports(**chosen)


def require_free(port: int, purpose: str) -> None:
    """Raises Refused naming who has it."""
    if not is_free(port):
        raise Refused(
            f"Expected port {port} to be free for {purpose} but it is in use by {holder(port)}; "
            "use --ports auto or stop that process"
        )


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and getattr(connection.laddr, "port", None) == port
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return "another process"
