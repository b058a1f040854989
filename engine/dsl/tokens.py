"""The tokens of a jq program, and the limits on its form.

jaq's own parser says whether a program is right; this one only looks, so that names can be judged where they are
calls (`now`, but not `.now`, `{now: 1}`, "now" or a comment) and so that no program reaches jaq's recursive parser
deep enough to overflow the stack (measured: a thousand joined terms need more than one MiB of it). Where the two
could read a program differently, this one refuses it or takes a name for a call: never the other way round.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

PROGRAM_BYTES_MAX: Final = 16 * 1024
DEPTH_MAX: Final = 64
JOINTS_MAX: Final = 500
"""Operators and prefixes: each may cost jaq's parser and its evaluation one level of recursion."""

Kind = Literal["name", "key", "variable", "field", "string", "number", "format", "operator", "open", "close"]

_KEYWORDS: Final = frozenset(
    [
        "and",
        "or",
        "def",
        "if",
        "then",
        "elif",
        "else",
        "end",
        "as",
        "reduce",
        "foreach",
        "try",
        "catch",
        "label",
        "break",
        "import",
        "include",
        "module",
        "__loc__",
    ]
)
_PREFIXES: Final = frozenset({"def", "as", "try", "label", "reduce", "foreach", "and", "or", "if", "elif"})
_SCAN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<comment>\#[^\n]*)
    |(?P<variable>\$[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<format>@[A-Za-z_][A-Za-z0-9_]*)
    |(?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)
    |(?P<open>[(\[{])|(?P<close>[)\]}])
    |(?P<quote>")
    |(?P<operator>\?//=?|//=|\.\.|[-+*/%|=!<>]=|//|[-+*/%|=<>?,:;.])""",
    re.VERBOSE,
)
_TEXT: Final = re.compile(r'(?:[^"\\]|\\[^(])*')
_CLOSES: Final = {")": "(", "]": "[", "}": "{"}


class FormError(Exception):
    """A program that is not looked at any further; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class Token:
    """`text` of a string is what stands between its quotes, as written; `depth` counts the open brackets around."""

    kind: Kind
    text: str
    depth: int


def tokenize(program: str) -> list[Token]:
    """The tokens of `program`. An interpolation `\\( )` gives its parts between `open` and `close`. May raise FormError."""
    size = len(program.encode("utf-8", "replace"))
    if size > PROGRAM_BYTES_MAX:
        raise FormError(f"Expected an expression of at most {PROGRAM_BYTES_MAX} bytes but found {size}")
    tokens = _Lexer(program).run()
    joints = sum(
        t.text in _PREFIXES if t.kind == "name" else t.kind == "operator" and t.text not in ".:"
        for t in tokens
    )
    if joints > JOINTS_MAX:
        raise FormError(f"Expected an expression of at most {JOINTS_MAX} operators but found {joints}")
    return tokens


class _Lexer:
    def __init__(self, program: str) -> None:
        self.program = program
        self.position = 0
        self.tokens: list[Token] = []
        self.brackets: list[str] = []

    def run(self) -> list[Token]:
        while self.position < len(self.program):
            self.step()
        if self.brackets:
            raise FormError(f"Expected every bracket closed but {self.brackets[-1]!r} is not")
        return self.tokens

    def step(self) -> None:
        found = _SCAN.match(self.program, self.position)
        if found is None:
            raise FormError(f"Expected a jq expression but found {self.program[self.position]!r}")
        kind, text = found.lastgroup, found.group()
        self.position = found.end()
        match kind:
            case "space":
                pass
            case "comment":
                if text.rstrip("\r").endswith("\\"):
                    raise FormError("Expected a comment without a backslash at its end but found one")
            case "quote":
                self.string()
            case "open":
                self.open(text)
            case "close":
                self.close(text)
            case "name":
                self.add("key" if self.is_key(text) else "name", text)
            case _:
                self.add(kind, text)  # type: ignore[arg-type]

    def add(self, kind: Kind, text: str) -> None:
        self.tokens.append(Token(kind, text, len(self.brackets)))

    def open(self, bracket: str) -> None:
        if len(self.brackets) == DEPTH_MAX:
            raise FormError(f"Expected an expression of at most {DEPTH_MAX} levels but found more")
        self.add("open", bracket)
        self.brackets.append(bracket)

    def close(self, bracket: str) -> None:
        opened = self.brackets.pop() if self.brackets else None
        if opened == "\\(" and bracket == ")":
            self.add("close", bracket)
            self.string()
        elif opened == _CLOSES[bracket]:
            self.add("close", bracket)
        else:
            raise FormError(f"Expected brackets in pairs but found {bracket!r}")

    def string(self) -> None:
        """The text up to the closing quote, or up to the next interpolation."""
        found = _TEXT.match(self.program, self.position)
        assert found is not None
        self.add("string", found.group())
        self.position = found.end()
        rest = self.program[self.position : self.position + 2]
        if rest == "\\(":
            self.position += 2
            self.open("\\(")
        elif rest.startswith('"'):
            self.position += 1
        else:
            raise FormError("Expected every string closed but one is not")

    def is_key(self, name: str) -> bool:
        """Whether `name` is certainly the key of an object construction, such as `{name: 1}` or `{name}`."""
        if not self.brackets or self.brackets[-1] != "{":
            return False
        before = self.tokens[-1]
        if not (
            (before.text == "{" and before.kind == "open")
            or (before.text == "," and before.kind == "operator")
        ):
            return False
        following = self.program[self.position :].lstrip()[:1]
        if following == ":":
            return True
        return following in (",", "}") and not self.in_murky_object()

    def in_murky_object(self) -> bool:
        """In `{a: label $x | 1, now}` the comma belongs to the value: with a keyword in sight a name is a call."""
        depth = len(self.brackets)
        for token in reversed(self.tokens):
            if token.depth < depth:
                return False
            if token.depth == depth and token.kind == "name" and token.text in _KEYWORDS:
                return True
        return False
