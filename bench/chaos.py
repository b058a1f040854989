"""Two engines, a worker, the projections; random processes are killed with -9 while flows run, once the broker too.

Afterwards the log must hold every flow exactly once, without a gap and with an unbroken chain, `replay verify --all`
must pass (which compares the read model too), and nothing may be left over.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

from bench.installation import Installation, definition_of
from bench.load import Ends, Starter, all_events
from engine.core.evolve import digest


def run(
    seconds: float = 60,
    flows: int = 3000,
    seed: int = 1,
    every_s: tuple[float, float] = (2.0, 4.0),
    kill_broker: bool = True,
    settle_s: float = 120,
) -> dict[str, Any]:
    """Spreads `flows` over `seconds`; kills something every `every_s` seconds, seeded."""
    rng = random.Random(seed)
    with Installation(engines=2) as installation:
        installation.publish(definition_of(3))
        starter, ends = Starter(installation.kafka), Ends(installation.kafka)
        done, kills = _disturb(installation, starter, ends, rng, seconds, flows, every_s, kill_broker)
        settled = _settle(ends, done, flows, settle_s)
        ends.close()
        report = _check(installation.kafka, flows)
        verify = installation.run("replay", "verify", "--all", "--json")
        if verify.returncode:
            print(verify.stdout[-3000:], verify.stderr[-3000:], file=sys.stderr)
        details = json.loads(verify.stdout.strip().splitlines()[-1]) if verify.stdout.strip() else {}
        return {
            "flows": flows,
            "seed": seed,
            "kills": dict(kills),
            "exits": dict(installation.processes.exits),
            "settled_seconds": round(settled, 1),
            **report,
            "verified": details.get("verified", 0),
            "verify_exit_code": verify.returncode,
            "events": details.get("events"),
        }


def _disturb(
    installation: Installation,
    starter: Starter,
    ends: Ends,
    rng: random.Random,
    seconds: float,
    flows: int,
    every_s: tuple[float, float],
    kill_broker: bool,
) -> tuple[set[str], Counter[str]]:
    done: set[str] = set()
    kills: Counter[str] = Counter()
    victims = [name for name in installation.processes.names() if not name.startswith("api")]
    began = time.monotonic()
    sent, next_kill = 0, began + rng.uniform(*every_s)
    broker_at = began + seconds / 2 if kill_broker else float("inf")
    while (elapsed := time.monotonic() - began) < seconds or sent < flows:
        while sent < flows and sent < elapsed * flows / seconds:
            starter.start(f"chaos-{sent}", "bench/line@1.0.0", b'{"order":%d}' % sent)
            sent += 1
        done.update(flow_id for flow_id, _ in ends.poll(0.02))
        now = time.monotonic()
        if now >= broker_at:
            broker_at = float("inf")
            kills["broker"] += 1
            os.kill(installation.stack.kafka_pid, signal.SIGKILL)
            installation.stack.restart_kafka()
        elif now >= next_kill:
            victim = rng.choice(victims)
            kills[victim] += 1
            installation.processes.kill(victim)
            next_kill = now + rng.uniform(*every_s)
    starter.flush()
    return done, kills


def _settle(ends: Ends, done: set[str], flows: int, settle_s: float) -> float:
    began = time.monotonic()
    while len(done) < flows and time.monotonic() - began < settle_s:
        done.update(flow_id for flow_id, _ in ends.poll(0.1))
    return time.monotonic() - began


def _check(servers: str, flows: int) -> dict[str, Any]:
    """Reads the whole log and counts what is lost, double, or out of order; independent of the engine's own checks."""
    sequences: dict[str, list[int]] = {}
    heads: dict[str, bytes] = {}
    partitions: dict[str, set[int]] = {}
    ended: Counter[str] = Counter()
    broken_chain = 0
    for event, value, partition in all_events(servers):
        sequences.setdefault(event.flow_id, []).append(event.sequence)
        partitions.setdefault(event.flow_id, set()).add(partition)
        broken_chain += event.previous_hash != heads.get(event.flow_id, b"")
        heads[event.flow_id] = digest(value)
        ended[event.flow_id] += event.kind == "FlowCompleted"
    wanted = {f"chaos-{i}" for i in range(flows)}
    return {
        "lost": sum(ended[flow_id] == 0 for flow_id in wanted),
        "duplicated": sum(count > 1 for count in ended.values())
        + sum(len(found) != len(set(found)) for found in sequences.values()),
        "gaps": sum(sorted(set(found)) != list(range(1, 9)) for found in sequences.values()),
        "broken_chains": broken_chain,
        "astray": sum(len(found) > 1 for found in partitions.values()) + len(set(sequences) - wanted),
    }
