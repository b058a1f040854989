"""Every example of the specification that is in the shared folder, run to the end its text describes.

Read in place, never copied. Services are played by their results; what the flow asked of them is checked. Examples that
run programs run them for real in tests/integration. Skipped only where the folder is away.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.source import parse
from schemas import messages as m
from tests.flows import Run

FOLDER = Path(os.environ.get("FLOWTRAIL_SPEC", Path(__file__).parents[3] / "shared" / "spec")) / "examples"
DOWN = m.Error("https://serverlessworkflow.io/spec/1.0.0/errors/communication", 503, "Down")
NOT_FOUND = m.Error(DOWN.type, 404, "Not found")

Play = Callable[[Run], None]


def loaded(name: str) -> Run:
    path = FOLDER / f"{name}.yaml"
    if not FOLDER.is_dir():
        pytest.skip(f"the specification's examples are not at {FOLDER}")
    return Run(compile_definition(parse(path.read_text())))


def first_argument(run: Run) -> Any:
    return run.dispatched()[0][2]


# -- one call of a service ----------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "authentication-bearer-uri-format": ("http", {"petId": 1, "token": "t"}, {"method": "get"}),
    "authentication-oauth2": ("http", {"petId": 1}, {"method": "get"}),
    "authentication-oauth2-secret": ("http", {"petId": 1}, {"method": "get"}),
    "authentication-oidc": ("http", {"petId": 1}, {"method": "get"}),
    "authentication-reusable": ("http", {"petId": 1}, {"method": "get"}),
    "call-asyncapi-subscribe-consume-amount": ("asyncapi", {}, {"operation": "getNotifications"}),
    "call-asyncapi-subscribe-consume-while": ("asyncapi", {}, {"operation": "getNotifications"}),
    "call-grpc": ("grpc", {"user": {"preferredDisplayName": "Ada"}}, {"method": "SayHello"}),
    "call-http-endpoint-interpolation-shorthand": ("http", {"petId": 1}, {"method": "get"}),
    "call-http-query-headers-expressions": (
        "http",
        {"searchQuery": "luke"},
        {"query": {"search": "luke"}, "headers": {"Accept": "application/json"}},
    ),
    "call-http-query-parameters": ("http", {"searchQuery": "luke"}, {"query": {"search": "luke"}}),
    "call-mcp": ("mcp", {}, {"method": "tools/call"}),
    "call-openapi-redirect": ("openapi", {}, {"redirect": True}),
    "conditional-task": ("http", {"customer": {"age": 20}, "bet": {}}, {"method": "post"}),
    "run-container": ("run.container", {}, {"image": "hello-world"}),
    "run-container-cleanup-eventually": ("run.container", {}, {}),
    "run-container-stdin-and-arguments": ("run.container", {}, {"stdin": "Hello World"}),
    "run-container-with-pull-policy": ("run.container", {}, {"pullPolicy": "always"}),
    "run-return-code": ("run.container", {}, {"return": "code"}),
    "run-return-none": ("run.container", {}, {"return": "none"}),
    "run-script-with-stdin-and-arguments": ("run.script", {}, {"stdin": "Hello Workflow"}),
    "run-shell-stdin-and-arguments": ("run.shell", {}, {"stdin": "Hello World"}),
    "schedule-cron": ("http", None, {"method": "post"}),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_example_that_calls_one_service(name: str) -> None:
    function, data, asked = CALLS[name]
    run = loaded(name)
    run.start(data)
    [(queue, called, arguments)] = run.dispatched()
    assert (queue, called) == ("process" if function.startswith("run.") else "builtin", function)
    assert {key: arguments.get(key) for key in asked} == asked
    run.complete(run.waiting[0], {"answer": 42})
    assert run.output == {"answer": 42}
    run.verify()


def test_a_secret_of_an_example_reaches_no_event() -> None:
    run = loaded("authentication-oauth2-secret")
    run.start({"petId": 1})
    assert "mySecret" in str(first_argument(run))


# -- the others ---------------------------------------------------------------------------------------------------------

HOT = {"type": "com.fake-hospital.vitals.measurements.temperature", "data": {"temperature": 39}}
SLOW = {"type": "com.fake-hospital.vitals.measurements.bpm", "data": {"bpm": 50}}


def accumulate(run: Run) -> None:
    kind = "my.home.sensors."
    source = "https://my.home.com/sensor"
    run.start({})
    listen = "/do/0/consumeReading"
    run.deliver(listen, {"type": kind + "temperature", "source": source, "roomid": 1, "data": {}})
    run.deliver(listen, {"type": kind + "humidity", "source": source, "roomid": 2, "data": {}}, number=1)
    assert run.waiting == [listen]
    run.deliver(listen, {"type": kind + "humidity", "source": source, "roomid": 1, "data": {}}, number=1)
    # `.data.reading` of a list has no value in jq: the text's own output fails, by the specification's rules
    assert run.error.type.endswith("/expression")


def forever(run: Run) -> None:
    run.start({})
    run.complete(run.waiting[0], [{"payload": 1}, {"payload": 2}])
    assert len(run.emitted()) == 2
    assert run.kinds[-1] == "FlowCompleted"


def cataloged(run: Run) -> None:
    run.start({})
    assert run.kinds[-1] == "FlowFaulted"


def bought(run: Run) -> None:
    run.start({"petId": 1})
    run.complete("/do/0/getPet", {"id": 1, "name": "milou"})
    assert run.dispatched()[1][2]["body"] == {"id": 1, "name": "milou", "status": "sold"}
    run.complete("/do/1/buyPet", {"ok": True})
    assert run.output == {"ok": True}


def emitted(run: Run) -> None:
    run.start({"kept": 1})
    assert [event.type for event in run.emitted()] == ["com.petstore.order.placed.v1"]
    assert run.output["type"] == "com.petstore.order.placed.v1"


def pets(run: Run) -> None:
    run.start({"pets": [{"id": 1}], "vet": None})
    assert run.output == {"pets": [{"id": 1}], "vet": None}


def both_events(run: Run) -> None:
    run.start({})
    run.deliver("/do/0/callDoctor", HOT | {"data": {"temperature": 37}})
    run.deliver("/do/0/callDoctor", SLOW, number=1)
    run.deliver("/do/0/callDoctor", HOT)
    assert len(run.output) == 2


def any_event(run: Run) -> None:
    run.start({})
    run.deliver("/do/0/callDoctor", {"type": "whatever", "data": 1})
    assert run.output == [1]


def gossips(run: Run) -> None:
    run.start({"roomId": 5})
    for number in range(3):
        run.deliver("/do/0/listenToGossips", {"type": "gossip", "data": number})
    post = "/do/0/listenToGossips/foreach/do/0/postToChatApi"
    for number in range(3):
        run.complete(post, None, run=number + 1)
    assert [arguments["body"] for _, _, arguments in run.dispatched()] == [{"event": n} for n in range(3)]
    assert run.waiting == ["/do/0/listenToGossips"]


def until_condition(run: Run) -> None:
    run.start({})
    for number in range(4):
        run.deliver("/do/0/callDoctor", {"type": "t", "data": number})
    assert run.output == [0, 1, 2, 3]


def race(run: Run) -> None:
    run.start({"carId": 3})
    run.deliver("/do/0/waitForStartup", {"type": "com.virtual-wf-powered-race.events.race.started.v1"})
    run.complete("/do/1/startup", "started")
    assert run.output == "started"


def not_implemented(run: Run) -> None:
    run.start({})
    assert (run.error.status, run.error.title) == (500, "Not Implemented")
    assert "work in progress" in (run.error.detail or "")


def heartbeat(run: Run) -> None:
    data = {"patient": {"id": 1, "name": "n", "room": {"number": 2}, "vitals": {"bpm": 30}}, "timestamp": 4}
    run.start([{"type": "com.example.hospital.events.patients.heartbeat.low", "data": data}])
    assert first_argument(run)["body"]["roomNumber"] == 2
    run.complete("/do/0/callNurse", None)
    assert run.kinds[-1] == "FlowCompleted"


def triggered(run: Run) -> None:
    run.start([{"type": "io.serverlessworkflow.samples.events.trigger.v1"}])
    assert run.output == {"startEvent": {"type": "io.serverlessworkflow.samples.events.trigger.v1"}}


def homeworld(run: Run) -> None:
    run.start({"id": 1})
    run.complete("/do/0/getStarWarsCharacter", {"content": {"homeworld": "https://swapi.dev/api/planets/1/"}})
    assert run.dispatched()[1][2]["endpoint"] == "https://swapi.dev/api/planets/1/"
    run.complete("/do/1/getStarWarsHomeworld", {"name": "Tatooine"})
    assert run.output == {"name": "Tatooine"}


def retried(run: Run) -> None:
    task = "/do/0/tryGetPet/try/0/getPet"
    run.start({"petId": 1})
    for attempt in range(1, 6):
        run.fail(task, DOWN, run=attempt)
        assert run.advance(3 * 2 ** (attempt - 1)) == ["retry"]
    run.complete(task, "found", run=6)
    assert run.output == "found"


def caught(run: Run) -> None:
    run.start({"petId": 1})
    run.fail("/do/0/tryGetPet/try/0/getPet", NOT_FOUND)
    assert run.kinds[-1] == "FlowCompleted"


def waited(run: Run) -> None:
    run.start({"n": 1})
    assert run.advance(29.9) == []
    assert run.advance(0.1) == ["wait"]
    assert run.output == {"n": 1}


PLAYS: dict[str, Play] = {
    "accumulate-room-readings": accumulate,
    "call-asyncapi-subscribe-consume-forever-foreach": forever,
    "call-custom-function-cataloged": cataloged,
    "do-multiple": bought,
    "emit": emitted,
    "for": pets,
    "listen-to-all": both_events,
    "listen-to-all read-envelope": both_events,
    "listen-to-any": any_event,
    "listen-to-any-forever-foreach": gossips,
    "listen-to-any-until-condition": until_condition,
    "listen-to-one": race,
    "raise-inline": not_implemented,
    "raise-reusable": not_implemented,
    "schedule-event-driven": heartbeat,
    "set": triggered,
    "star-wars-homeworld": homeworld,
    "try-catch": caught,
    "try-catch-retry-inline": retried,
    "try-catch-retry-reusable": retried,
    "wait-duration-inline": waited,
}


@pytest.mark.parametrize("name", sorted(PLAYS))
def test_an_example_ends_as_its_text_says(name: str) -> None:
    run = loaded(name)
    PLAYS[name](run)
    run.verify()


def test_every_example_has_its_test() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"the specification's examples are not at {FOLDER}")
    assert {path.stem for path in FOLDER.glob("*.yaml")} == CALLS.keys() | PLAYS.keys()
