"""Reading the text of a definition: what is JSON comes out with its places, everything else is refused with one."""

from __future__ import annotations

import time
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dsl.errors import DefinitionError
from engine.dsl.source import BYTES_MAX, parse

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def refusal(text: str | bytes) -> str:
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].line is not None
    return str(caught.value)


@given(JSON)
@settings(max_examples=60, deadline=None)
def test_any_json_document_is_read_as_json_reads_it(value: object) -> None:
    given = {"value": value}
    assert parse(orjson.dumps(given)).value == given
    assert parse(orjson.dumps(given, option=orjson.OPT_INDENT_2)).value == given


def test_yaml_1_2_keeps_what_yaml_1_1_would_turn_into_something_else() -> None:
    text = "on: {yes: no, off: y}\ndate: 2024-01-01\ntime: 12:30:45\noctal: 010\nhex: 0x10\nversion: '1.0'\nnone: ~"
    assert parse(text).value == {
        "on": {"yes": "no", "off": "y"},
        "date": "2024-01-01",
        "time": "12:30:45",
        "octal": 10,
        "hex": 16,
        "version": "1.0",
        "none": None,
    }


def test_a_part_is_placed_where_its_key_stands() -> None:
    source = parse("a: 1\nb:\n  - x\n  - c/d:\n      ~e: 5\n")
    assert source.place("/a") == (1, 1)
    assert source.place("/b/1") == (4, 5)
    assert source.place("/b/1/c~1d/~0e") == (5, 7)


def test_a_part_behind_an_alias_is_placed_at_its_alias() -> None:
    source = parse("a: &x {b: 1}\nc: *x\n")
    assert source.value == {"a": {"b": 1}, "c": {"b": 1}}
    assert source.place("/c/b") == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "Expected each key once but 'a' is also in line 1 at line 3, column 1"),
        ('{"a": 1, "a": 2}', "Expected each key once but 'a'"),
        ("a: .nan", "found the number .nan at /a (line 1, column 4)"),
        ("a: -.inf", "found the number -.inf"),
        ("a: 1e999", "found the number 1e999"),
        ("a: 99999999999999999999", "Expected a number of at most 64 bits"),
        ("a: !!binary aGk=", "tagged tag:yaml.org,2002:binary at /a"),
        ("a: !!timestamp 2024-01-01", "tagged tag:yaml.org,2002:timestamp"),
        ("a: !!set {b}", "tagged tag:yaml.org,2002:set"),
        ("a: !python/object:os.system x", "tagged !python"),
        (
            "a:\n  1: x",
            "Expected a key that is a string but found 1 (put it in quotes) at /a (line 2, column 3)",
        ),
        ("true: x", "Expected a key that is a string but found true"),
        ("? [1]\n: 2", "found a collection"),
        ("a: &x {b: 1}\nc: {<<: *x}", "found a merge (<<)"),
        ("a: *x", "Expected an anchor before its alias but *x has none"),
        ("a: &x [*x]", "*x has none at /a/0"),
        ("a: 1\n---\nb: 2", "Expected one document but found another at line 2"),
        ("", "found nothing"),
        ("# nothing\n", "found nothing"),
        ("do: [", "Expected YAML or JSON but"),
        ("a: 'x", "unexpected end of stream at line 1"),
        ("a:\n\t- b", "cannot start any token at line 2"),
        ("a: \x01", "Expected readable text"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        (b"a: \xff", "Expected UTF-8 but byte 3 is 0xff"),
        ("a: !" + "x" * 2000, "Expected a tag of at most 1024 characters"),
        ("[" * 100 + "]" * 100, "Expected at most 64 levels"),
        (
            "a: &a [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n" + "b: " + "[" * 50 + "*a" + "]" * 50,
            "aliases expanded",
        ),
        ("a" * (BYTES_MAX + 1), f"Expected at most {BYTES_MAX} bytes"),
        ("- a\n" * 60_000, "Expected at most 50000 values"),
    ],
)
def test_what_is_no_json_or_too_much_is_refused_with_its_place(text: str | bytes, message: str) -> None:
    assert message in refusal(text)


def test_an_alias_bomb_is_refused_at_once_and_in_little_memory() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 40)
    )
    tracemalloc.start()
    began = time.monotonic()
    assert "aliases expanded" in refusal(bomb)
    assert time.monotonic() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_message_never_repeats_a_long_text() -> None:
    assert len(refusal(f"a: !!int {'x' * 100_000}")) < 400


def test_a_long_text_repeated_by_aliases_is_refused_before_it_grows() -> None:
    text = "a: &a " + "x" * 200_000 + "\nb: [" + ", ".join(["*a"] * 50) + "]\n"
    with pytest.raises(DefinitionError, match="aliases expanded"):
        parse(text)
