"""Ports: the defaults, free ones, and the message about a taken one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from stack.errors import Refused
from stack.ports import FREE_FIRST, FREE_LAST, Ports, choose, free_port, is_free, require_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_refused_with_its_holder_and_the_way_out(taken: int) -> None:
    with pytest.raises(Refused) as refused:
        require_free(taken, "Kafka")
    text = str(refused.value)
    assert text.startswith(f"Expected port {taken} to be free for Kafka but it is in use by ")
    assert f"(pid {os.getpid()})" in text
    assert "--ports auto" in text
    assert refused.value.exit_code == 2


def test_a_free_port_is_free_and_below_the_kernels_own() -> None:
    port = free_port()
    assert FREE_FIRST <= port < FREE_LAST
    assert is_free(port)
    require_free(port, "Kafka")


def test_chosen_ports_differ_and_stay_what_they_were() -> None:
    first = choose({})
    values = list(first.as_dict().values())
    assert len(set(values)) == len(values)
    assert choose(first.as_dict()) == first


def test_a_previous_port_that_is_taken_now_is_replaced(taken: int) -> None:
    chosen = choose({"kafka": taken})
    assert chosen.kafka != taken


def test_the_defaults_are_the_documented_ones() -> None:
    assert Ports() == Ports(
        kafka=9092,
        postgres=5433,
        api=8080,
        metrics_engine=9101,
        metrics_projections=9102,
        metrics_executor=9103,
    )
