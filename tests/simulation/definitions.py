"""Random definitions: nested composites over calls, waits and data, every name once, every expression total."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]

_NAMES = iter(range(10**9))


def _named(task: Document) -> Document:
    return {f"t{next(_NAMES)}": task}


def _leaves(children: bool) -> st.SearchStrategy[Document]:
    kinds: list[st.SearchStrategy[Document]] = [
        st.just({"set": {"n": "${ ((.n? // 0) | tonumber? // 0) + 1 }"}}),
        st.just({"call": "work", "with": {"seen": "${ . }"}}),
        st.just({"call": "work", "metadata": {"compensate": {"call": "undo"}}}),
        st.just({"call": "work", "timeout": {"after": "PT3S"}}),
        st.integers(0, 5).map(lambda seconds: {"wait": {"seconds": seconds}}),
        st.just({"emit": {"event": {"with": {"source": "https://x.test", "type": "made", "id": "e"}}}}),
        st.just({"raise": {"error": {"type": "https://x.test/raised", "status": 400}}}),
        st.just({"if": "(.n? // 0) == 1", "call": "work"}),
        st.just({"listen": {"to": {"any": [{"with": {"type": "made"}}, {"with": {"type": "other"}}]}}}),
    ]
    if children:
        run = {"workflow": {"namespace": "test", "name": "child", "version": "1.0.0"}}
        kinds += [st.just({"run": run}), st.just({"run": run | {"await": False}})]
    return st.one_of(kinds)


def _switch(names: list[str]) -> st.SearchStrategy[Document]:
    targets = (
        st.sampled_from([*names, "continue", "exit", "end"])
        if names
        else st.sampled_from(["continue", "exit"])
    )
    return st.tuples(targets, targets).map(
        lambda pair: {
            "switch": [{"odd": {"when": "(.n? // 0) % 2 == 1", "then": pair[0]}}, {"else": {"then": pair[1]}}]
        }
    )


def _scope(tasks: st.SearchStrategy[Document]) -> st.SearchStrategy[list[Document]]:
    """A list of tasks; sometimes with a switch that jumps forwards, so that no loop is endless."""

    def complete(drawn: tuple[list[Document], bool]) -> st.SearchStrategy[list[Document]]:
        found, jumps = drawn
        listed = [_named(task) for task in found]
        if not jumps or len(listed) < 2:
            return st.just(listed)
        ahead = [next(iter(entry)) for entry in listed[1:]]
        return _switch(ahead).map(lambda switch: [listed[0], _named(switch), *listed[1:]])

    return st.tuples(st.lists(tasks, min_size=1, max_size=3), st.booleans()).flatmap(complete)


def _composites(tasks: st.SearchStrategy[Document]) -> st.SearchStrategy[Document]:
    scope = _scope(tasks)
    retry = st.sampled_from(
        [
            {},
            {"retry": {"limit": {"attempt": {"count": 2}}}},
            {"retry": {"delay": "PT2S", "backoff": {"linear": {}}, "limit": {"attempt": {"count": 2}}}},
            {"retry": {"delay": "PT1S", "limit": {"attempt": {"count": 1, "duration": "PT4S"}}}},
            {"errors": {"with": {"status": 500}}},
        ]
    )
    branches = st.lists(tasks, min_size=1, max_size=3).map(lambda found: [_named(task) for task in found])
    return st.one_of(
        scope.map(lambda do: {"do": do}),
        st.tuples(st.integers(0, 3), scope).map(
            lambda drawn: {"for": {"in": f"[range({drawn[0]})]"}, "do": drawn[1]}
        ),
        st.tuples(branches, st.booleans()).map(
            lambda drawn: {"fork": {"branches": drawn[0], "compete": drawn[1]}}
        ),
        st.tuples(scope, retry, st.one_of(st.none(), scope)).map(
            lambda drawn: {
                "try": drawn[0],
                "catch": drawn[1] | ({} if drawn[2] is None else {"do": drawn[2]}),
            }
        ),
        st.tuples(scope, st.integers(1, 6)).map(
            lambda drawn: {"do": drawn[0], "timeout": {"after": {"seconds": drawn[1]}}}
        ),
    )


def documents(name: str, *, children: bool) -> st.SearchStrategy[Document]:
    """Whole documents `test/NAME@1.0.0`; with `children` their tasks may run `test/child@1.0.0`."""
    tasks = st.recursive(_leaves(children), _composites, max_leaves=8)
    head = {"dsl": "1.0.3", "namespace": "test", "name": name, "version": "1.0.0"}
    return st.tuples(_scope(tasks), st.sampled_from([None, 8])).map(
        lambda drawn: (
            {"document": head, "do": drawn[0]}
            | ({} if drawn[1] is None else {"timeout": {"after": {"seconds": drawn[1]}}})
        )
    )
