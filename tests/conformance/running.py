"""What a conformance scenario does and sees: one definition, one flow, through the public API alone.

`Scenario` holds what its steps gathered. A scenario's document is published as it is written; only when another scenario
has taken its version is it published under one of its own. Invariant: an assertion that fails says what was found.
"""

from __future__ import annotations

import io
import re
import uuid
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from flowtrail import ApiError, Client, Flow
from flowtrail.client import ENDED
from ruamel.yaml import YAML

TIMEOUT_S: Final = 60.0
BEGINNINGS: Final = ("TaskStarted", "TaskScheduled", "SubflowStarted", "ListenStarted")
ENDINGS: Final = {"TaskCompleted": "complete", "TaskFaulted": "fault", "TaskCancelled": "cancel"}


def value_of(text: str) -> Any:
    """YAML or JSON as JSON values; times stay text."""
    return _plain(YAML(typ="safe", pure=True).load(io.StringIO(text)))


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(part) for key, part in value.items()}
        case list():
            return [_plain(part) for part in value]
        case date():
            return value.isoformat()
        case _:
            return value


def keys_of(path: str) -> list[str | int]:
    """`a.b[0]."c.d"` as keys and indexes; a leading `.` or `$.` is allowed."""
    found: list[str | int] = []
    for name, quoted, index in re.findall(
        r"([^.\[\]\"']+)|[\"'](.*?)[\"']|\[(\d+)\]", path.removeprefix("$")
    ):
        found.append(int(index) if index else quoted or name)
    return found


def property_of(value: Any, path: str) -> Any:
    """Raises AssertionError where there is none."""
    at = value
    for key in keys_of(path):
        if isinstance(at, list) and isinstance(key, str) and key.isdigit():
            key = int(key)
        there = isinstance(at, list) and isinstance(key, int) and key < len(at)
        assert there or (isinstance(at, dict) and key in at), f"expected {path!r} in {value!r}"
        at = at[key]
    return at


@dataclass
class Scenario:
    """`definition` is text; `input` None: none was given."""

    client: Client
    definition: str = ""
    input: Any = None
    flow: Flow | None = None
    ended: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> Flow:
        published = self._publish()
        self.flow = self.client.start(published["definition"], self.input)
        return self.flow

    def finish(self) -> None:
        assert self.flow is not None
        self.ended = self.flow.wait(TIMEOUT_S)
        self.history = list(self.flow.history())

    def _publish(self) -> dict[str, Any]:
        try:
            return self.client.publish(self.definition + "\n")
        except ApiError as refusal:
            if refusal.status != 409:
                raise
        document = value_of(self.definition)
        document["document"]["version"] += f"-{uuid.uuid4().hex[:10]}"
        return self.client.publish(document)

    # -- the flow -----------------------------------------------------------------------------------------------

    def assert_status(self, status: str) -> None:
        found = self.ended.get("status")
        assert found in ENDED, f"expected the flow to have ended but it is {found}"
        assert found == status, (
            f"expected the flow {status} but it {found}: {self.ended.get('error') or self.ended.get('output')}"
        )

    @property
    def output(self) -> Any:
        self.assert_status("completed")
        return self.ended["output"]

    # -- tasks --------------------------------------------------------------------------------------------------

    def _name(self, event: dict[str, Any]) -> str:
        return str(event["task"]).rsplit("/", 1)[1].replace("~1", "/").replace("~0", "~")

    @property
    def begun(self) -> list[str]:
        """Pointers of the task runs in the order they began, each run once; tasks passed over are left out."""
        found = []
        seen = set()
        for event in self.history:
            if event["kind"] in (*BEGINNINGS, *ENDINGS) and event["task"] is not None:
                run = (event["task"], event["run"])
                if run not in seen:
                    seen.add(run)
                    found.append(event["task"])
        return found

    def places(self, name: str) -> list[int]:
        """Where runs of the task `name` (or a pointer) stand in `begun`. Raises AssertionError when it never ran."""
        begun = self.begun
        last = f"/{name.replace('~', '~0').replace('/', '~1')}"
        found = [i for i, task in enumerate(begun) if task == name or task.endswith(last)]
        assert found, f"expected {name} to run but these did: {begun}"
        return found

    def assert_first(self, name: str) -> None:
        """No task began before it but those it is part of."""
        place = self.places(name)[0]
        before = [t for t in self.begun[:place] if not self.begun[place].startswith(t + "/")]
        assert before == [], f"expected {name} to run first but before it ran {before}"

    def assert_last(self, name: str) -> None:
        """No task began after it but its own parts."""
        place = self.places(name)[-1]
        after = [t for t in self.begun[place + 1 :] if not t.startswith(self.begun[place] + "/")]
        assert after == [], f"expected {name} to run last but after it ran {after}"

    def assert_before(self, first: str, second: str) -> None:
        assert self.places(first)[0] < self.places(second)[0], (
            f"expected {first} before {second} in {self.begun}"
        )

    def task_end(self, name: str, ending: str) -> dict[str, Any]:
        """The last event by which a run of the task ended so. Raises AssertionError when none did."""
        ends = [
            event
            for event in self.history
            if event["task"] is not None and event["kind"] in ENDINGS and self._name(event) == name
        ]
        found = [event for event in ends if ENDINGS[event["kind"]] == ending]
        assert found, f"expected {name} to {ending} but {[e['kind'] for e in ends] or self.begun}"
        return found[-1]

    def task_view(self, name: str, ending: str) -> dict[str, Any]:
        """The attempt that ended so, as the tasks' read model has it."""
        assert self.flow is not None
        event = self.task_end(name, ending)
        views = self.client.tasks(self.flow.id)
        return next(v for v in views if v["ended_sequence"] == event["sequence"])


def assert_error(found: Any, expected: dict[str, Any]) -> None:
    """Every property that is expected; an error may have more."""
    assert isinstance(found, dict), f"expected an error but found {found!r}"
    different = {name: found.get(name) for name, value in expected.items() if found.get(name) != value}
    assert different == {}, f"expected {expected} but found {found}"
