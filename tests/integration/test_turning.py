"""Rolling back, migrating and running again on the real stack: the engine's word, the read model, and the proof."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flowtrail import ApiError, Client

from api.tokens import TaskPlace, token_of
from tests.conftest import Servers
from tests.integration.api_process import Installed, installation, until

TRIP = """\
document: {{dsl: '1.0.0', namespace: trip, name: {name}, version: '{version}', metadata: {{queue: nobody}}}}
do:
  {before}
  - book: {{call: book, export: {{as: '${{ {{booked: .id}} }}'}}, metadata: {{compensate: {{do: [{{undo: {{call: cancel}}}}]}}}}}}
  - pay: {{call: pay}}
  - send: {{call: send}}
"""
NOTED = "- noted: {set: '${ . + {noted: true} }'}"


def trip(name: str, version: str = "1.0.0", before: str = "") -> str:
    return TRIP.format(name=name, version=version, before=before)


@pytest.fixture(scope="module")
def installed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installation(servers, tmp_path_factory.mktemp("turning")) as made:
        yield made


@pytest.fixture(scope="module")
def client(installed: Installed) -> Iterator[Client]:
    with Client(installed.url, installed.key) as made:
        for name in ("back", "on", "again", "many"):
            made.publish(trip(name))
        made.publish(trip("on", "1.1.0", NOTED))
        yield made


def active(client: Client, flow_id: str) -> list[tuple[str, int, int]]:
    tasks = client.tasks(flow_id)
    return [
        (t["task"], t["run"], t["attempt"]) for t in tasks if t["ended_at"] is None and t["kind"] == "call"
    ]


def answer(client: Client, flow_id: str, name: str, output: Any) -> None:
    """Completes the active task of that name, as its worker would."""

    def waits() -> Any:
        return next((found for found in active(client, flow_id) if found[0].endswith(f"/{name}")), None)

    place = until(waits, what=f"{name} of {flow_id}")
    client.complete(token_of(TaskPlace(flow_id, *place)), output)


def begun(client: Client, flow_id: str, name: str, upto: str = "pay") -> None:
    client.start(f"trip/{name}@1.0.0", {"n": 1}, id=flow_id).get()
    answer(client, flow_id, "book", {"id": "b1"})
    if upto == "send":
        answer(client, flow_id, "pay", {"paid": True})


def verified(installed: Installed, flow_id: str) -> None:
    done = installed.command("replay", "verify", flow_id, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_flow_is_rolled_back_and_goes_on(installed: Installed, client: Client) -> None:
    begun(client, "back-1", "back", upto="send")
    planned = client.roll_back("back-1", "book", dry_run=True)
    assert (planned["possible"], planned["compensations"]) == (True, ["/do/0/book"])
    told = client.roll_back("back-1", "book", reason="wrong hotel")
    assert told["decided"]
    assert told["moment"]["tasks"] == ["/do/0/book"]
    flow = client.get("back-1", min_position=told["position"])
    assert (flow["status"], flow["reason"]) == ("compensating", "wrong hotel")
    answer(client, "back-1", "undo", None)
    answer(client, "back-1", "book", {"id": "b2"})
    answer(client, "back-1", "pay", {})
    answer(client, "back-1", "send", {"sent": True})
    ended = client.wait("back-1", 30)
    assert (ended["status"], ended["context"]) == ("completed", {"booked": "b2"})
    assert [t["run"] for t in client.tasks("back-1") if t["name"] == "book"] == [1, 2]
    verified(installed, "back-1")
    with pytest.raises(ApiError, match="Expected a running flow"):
        client.roll_back("back-1", "book")


def test_a_flow_goes_on_under_another_version_and_comes_back(installed: Installed, client: Client) -> None:
    begun(client, "on-1", "on")
    assert client.migrate("on-1", "trip/on@1.1.0", dry_run=True)["past"]["kind"] == "same"
    told = client.migrate("on-1", "trip/on@1.1.0", reason="notes")
    flow = client.get("on-1", min_position=told["position"])
    assert (flow["definition"], flow["active"]) == ("trip/on@1.1.0", ["/do/2/pay"])
    rows = {t["task"]: t["status"] for t in client.tasks("on-1")}
    assert rows["/do/1/pay"] == "moved"
    assert rows["/do/2/pay"] == "scheduled"
    with pytest.raises(ApiError, match="Expected another definition"):
        client.migrate("on-1", "trip/on@1.1.0")
    back = client.migrate("on-1")
    assert client.get("on-1", min_position=back["position"])["definition"] == "trip/on@1.0.0"
    client.migrate("on-1", "trip/on@1.1.0")
    client.complete(
        token_of(TaskPlace("on-1", "/do/1/pay", 1, 1)), {"paid": 1}
    )  # by the place it was handed out at
    answer(client, "on-1", "send", {})
    assert client.wait("on-1", 30)["status"] == "completed"
    verified(installed, "on-1")


def test_a_flow_is_run_again_from_a_task(installed: Installed, client: Client) -> None:
    begun(client, "again-1", "again")
    client.fail(token_of(TaskPlace("again-1", "/do/1/pay", 1, 1)), "no money")
    answer(client, "again-1", "undo", None)
    assert client.wait("again-1", 30)["status"] == "faulted"
    told = client.rerun("again-1", "pay", data={"id": "b1", "card": 2}, new_id="again-2")
    assert (told["id"], told["origin"]) == ("again-2", "again-1")
    answer(client, "again-2", "pay", {})
    answer(client, "again-2", "send", {})
    flow = client.wait("again-2", 30)
    assert (flow["status"], flow["context"]) == ("completed", {"booked": "b1"})
    [pay] = [t for t in client.tasks("again-2") if t["name"] == "pay"]
    assert pay["input"] == {"id": "b1", "card": 2}
    verified(installed, "again-2")
    restored = [e for e in client.history("again-2") if e["kind"] == "FlowRestored"]
    assert restored[0]["body"]["restore"]["flow_id"] == "again-1"
    whole = client.rerun("again-1", input={"n": 5})
    assert client.state_at(whole["id"], 1)["input"] == {"n": 5}


def test_many_flows_are_turned_with_a_sample_first(installed: Installed, client: Client) -> None:
    for number in range(4):
        begun(client, f"many-{number}", "many")
    words = ("flows", "rollback", "--definition", "trip/many", "--to", "book")
    planned = installed.json(*words, "--dry-run")
    assert planned["counts"] == {"possible": 4}
    assert "FlowRestored" not in {e["kind"] for e in client.history("many-0")}
    stopped = installed.command(*words, "--sample", "1", "--timeout", "0.1", "--json", check=False)
    report = json.loads(stopped.stdout)
    assert (stopped.returncode, report["left"]) == (1, 3)
    assert [r["result"] for r in report["results"]] == ["undoing"]
    answer(client, "many-0", "undo", None)
    done = installed.command("flows", "rerun", "many-0", "many-1", "none", "--json", check=False)
    counts = json.loads(done.stdout)["counts"]
    assert (done.returncode, counts) == (1, {"done": 2, "refused": 1})
    told = installed.command("flows", "migrate", "--to", "trip/many@1.0.0", check=False)
    assert "0 flows: nothing to do" in told.stdout
    assert installed.command("flows", "rollback", "many-1", check=False).returncode == 2


def test_a_forged_moment_is_found(installed: Installed, client: Client) -> None:
    """Whoever may write commands could bring a state that never was: the log tells."""
    from engine.core.moments import moment
    from engine.runtime import kafka
    from replay.flow import read_flow
    from replay.turning import moment_of
    from schemas import messages as m
    from schemas.codec import encode_command, encode_snapshot

    begun(client, "back-2", "back")
    log = read_flow(installed.kafka, installed.prefix, "back-2")
    true = moment_of(log, "pay").restore()
    false = msgspec.structs.replace(moment(true), context=b'{"booked":"forged"}')
    forged = m.Restore("back-2", true.sequence, encode_snapshot(false))
    command = m.Command("forged", "back-2", 1, m.Actor("user", "mallory"), m.RollBackFlow(forged))
    producer = kafka.Producer({"bootstrap.servers": installed.kafka, "partitioner": "murmur2_random"})
    producer.produce(f"{installed.prefix}commands", encode_command(command), b"back-2")
    assert producer.flush(10) == 0
    until(lambda: "FlowRestored" in {e["kind"] for e in client.history("back-2")}, what="the forged rollback")
    done = installed.command("replay", "verify", "back-2", "--json", check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert [found["kind"] for found in report["different"]] == ["moment"]


PAGE = (Path(__file__).parents[2] / "docs/turning.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SHOP = """\
document: {{dsl: '1.0.0', namespace: shop, name: {name}, version: '{version}', metadata: {{queue: nobody}}}}
do:
  {before}
  - book: {{call: book}}
  - charge: {{call: charge, metadata: {{compensate: {{do: [{{undo: {{call: refund}}}}]}}}}}}
  - ship: {{call: ship}}
"""


def test_every_command_of_the_page_ends_as_it_says(installed: Installed, client: Client) -> None:
    for name, version, before in (("trip", "1.0.0", ""), ("trip", "1.1.0", NOTED), ("order", "1.1.0", NOTED)):
        client.publish(SHOP.format(name=name, version=version, before=before))
    client.publish(SHOP.format(name="order", version="1.0.1", before=""))
    for number in (1, 2):
        client.start("shop/trip@1.0.0", {}, id=f"trip-{number}").get()
    client.start("shop/order@1.0.1", {}, id="order-1").get()
    answer(client, "order-1", "book", {"id": "b1"})
    answer(client, "order-1", "charge", {})
    until(lambda: active(client, "order-1"), what="ship")
    assert len(LINES) == 9
    for line in LINES:
        command, _, said = line.partition("   # ")
        name, *words = shlex.split(command)
        assert name == "flowtrail"
        done = installed.command(*words, check=False)
        assert done.returncode == (int(said.split(":")[0]) if said else 0), line + done.stdout + done.stderr
    assert client.get("trip-2")["definition"] == "shop/trip@1.1.0"
    assert client.get("trip-1")["definition"] == "shop/trip@1.0.0"
