"""Prometheus finds what docs/metrics.md promises, in every process of a running installation."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.installation import Installation, definition_of
from bench.load import Ends, Starter
from tests.integration.engines import wait_for

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with Installation() as found:
        found.publish(definition_of(2))
        starter, ends = Starter(found.kafka), Ends(found.kafka)
        starter.start("one", "bench/line@1.0.0", b"{}")
        starter.flush()
        ended: list[str] = []
        wait_for(lambda: ended.extend(name for name, _ in ends.poll(0.2)) or ended, what="the flow to end")
        ends.close()
        yield found


def scrape(port: int) -> dict[str, float]:
    """Sample name without labels -> sum of its values."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        found[family.name] = found.get(family.name, 0)
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.mark.parametrize(
    ("process", "room"),
    [("engine0", "engine"), ("projections", "projection"), ("worker0", "worker"), ("api", "api")],
)
def test_every_documented_metric_is_served(installation: Installation, process: str, room: str) -> None:
    documented = set(re.findall(rf"`(flowtrail_{room}_[a-z_]+)`", PAGE))
    assert len(documented) >= 5
    served = wait_for(lambda: scrape(installation.metrics[process]), what="/metrics")
    bare = {name.removesuffix("_total") for name in served}
    assert {name for name in documented if name.removesuffix("_total") not in bare} == set()


def test_the_figures_are_those_of_the_flow(installation: Installation) -> None:
    engine = scrape(installation.metrics["engine0"])
    assert engine["flowtrail_engine_events_total"] == 6
    assert engine["flowtrail_engine_tasks_total"] == 2
    assert engine["flowtrail_engine_commands_total"] == 3
    assert engine["flowtrail_engine_partitions"] == 8
    assert engine["flowtrail_engine_live_flows"] == 0
    assert engine["flowtrail_engine_remembered_flows"] == 1
    assert scrape(installation.metrics["worker0"])["flowtrail_worker_tasks_total"] == 2

    def folded() -> bool:
        return scrape(installation.metrics["projections"])["flowtrail_projection_events_total"] == 6

    wait_for(folded, what="the projector to fold six events")
