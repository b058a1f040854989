"""The probes against servers that answer as Kafka and Postgres do while they start, or that are something else."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from stack.probes import host_and_port, http_answers, kafka_answers, postgres_answers


@contextmanager
def answering(reply: Callable[[bytes], bytes]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(reply(link.recv(4096)))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def kafka_metadata(brokers: int) -> Callable[[bytes], bytes]:
    def reply(request: bytes) -> bytes:
        assert struct.unpack(">ihh", request[:8]) == (len(request) - 4, 3, 1)
        body = struct.pack(">ii", 1, brokers)
        return struct.pack(">i", len(body)) + body

    return reply


def postgres_error(code: bytes) -> Callable[[bytes], bytes]:
    fields = b"SFATAL\0C" + code + b"\0Mno\0\0"
    return lambda _: b"E" + struct.pack(">i", len(fields) + 4) + fields


@pytest.mark.parametrize(("brokers", "ready"), [(0, False), (1, True)])
def test_kafka_serves_once_a_broker_is_in_its_metadata(brokers: int, ready: bool) -> None:
    with answering(kafka_metadata(brokers)) as port:
        assert kafka_answers(f"127.0.0.1:{port}") is ready


@pytest.mark.parametrize(
    ("reply", "ready"),
    [
        (postgres_error(b"57P03"), False),
        (postgres_error(b"28P01"), True),
        (lambda _: b"R" + struct.pack(">ii", 8, 10), True),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (lambda _: b"", False),
        (lambda _: b"E\0", False),
    ],
)
def test_postgres_serves_once_it_no_longer_starts_up(reply: Callable[[bytes], bytes], ready: bool) -> None:
    with answering(reply) as port:
        assert postgres_answers(f"postgresql://flowtrail@127.0.0.1:{port}/flowtrail") is ready


@pytest.mark.parametrize("reply", [b"", b"\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\4\0\0\0\1"])
def test_what_is_not_kafka_does_not_answer_as_kafka(reply: bytes) -> None:
    with answering(lambda _: reply) as port:
        assert not kafka_answers(f"127.0.0.1:{port}", 1.0)


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not kafka_answers(f"127.0.0.1:{port}")
    assert not kafka_answers("127.0.0.1:port")
    assert not postgres_answers(f"postgresql://127.0.0.1:{port}/x")
    assert not http_answers(f"http://127.0.0.1:{port}/readyz")


@pytest.mark.parametrize(
    ("line", "ready"),
    [(b"HTTP/1.1 200 OK", True), (b"HTTP/1.1 503 Service Unavailable", False), (b"what?", False)],
)
def test_http_answers_with_200_only(line: bytes, ready: bool) -> None:
    with answering(lambda _: line + b"\r\nContent-Length: 0\r\n\r\n") as port:
        assert http_answers(f"http://127.0.0.1:{port}/readyz") is ready


@pytest.mark.parametrize(
    ("server", "expected"),
    [("kafka:1", ("kafka", 1)), ("kafka", ("kafka", 9)), ("[::1]:2", ("::1", 2)), (" a:3 ", ("a", 3))],
)
def test_an_address_is_split(server: str, expected: tuple[str, int]) -> None:
    assert host_and_port(server, 9) == expected
