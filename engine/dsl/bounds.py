"""Which jq programs may be published, and which of them may run inside the engine's own process.

jaq has no limits of its own (measured: `[range(1e9)]` aborts the process, endless recursion and `fromjson` or
`tonumber` of a deeply nested text overflow its stack, `now` and `env` make a replay differ). So: what reads the world
is refused; what is provably linear in its data runs in-process; everything else runs in the sandbox. The proof is
deliberately crude. A program is linear when it only uses the names below, gives one result without cartesian
products (no `,` outside brackets, iteration only as `[path[] | …]` or `map(…)`, not nested, over nothing but the
item), and when the leaves of its pipe stages, multiplied, stay small, for that is how often its input can be copied.
"""

from __future__ import annotations

from typing import Final

from engine.dsl.tokens import Token

REFUSED: Final = frozenset(
    [
        "env",
        "halt",
        "halt_error",
        "input",
        "inputs",
        "now",
        "localtime",
        "strflocaltime",
        "strptime",
        "debug",
        "debug_empty",
        "stderr",
        "stderr_empty",
        "import",
        "include",
        "module",
        "modulemeta",
        "__loc__",
        "input_filename",
        "input_line_number",
        "get_search_list",
        "repl",
    ]
)
"""They read the world, write to it, stop the process, or depend on the machine (`strptime` reads its time zones)."""

GUARD: Final = (
    "".join(
        f'def {name}: error("{name} is not available");'
        for name in sorted(REFUSED - {"import", "include", "module", "__loc__"})
    )
    + 'def halt($c): error("halt is not available");def debug($m): error("debug is not available");'
    + 'def halt_error($c): error("halt_error is not available");\n'
)
"""Put before every program: should a refused name ever get past the tokens, it fails instead of working."""

_LINEAR: Final = frozenset(
    [
        "length",
        "utf8bytelength",
        "not",
        "keys",
        "keys_unsorted",
        "values",
        "nulls",
        "booleans",
        "numbers",
        "strings",
        "arrays",
        "objects",
        "iterables",
        "scalars",
        "type",
        "tostring",
        "tojson",
        "ascii_downcase",
        "ascii_upcase",
        "floor",
        "ceil",
        "round",
        "sqrt",
        "abs",
        "trim",
        "ltrim",
        "rtrim",
        "add",
        "sort",
        "unique",
        "min",
        "max",
        "reverse",
        "first",
        "last",
        "to_entries",
        "from_entries",
        "empty",
        "error",
        "null",
        "true",
        "false",
        "isboolean",
        "isnumber",
        "isstring",
        "isarray",
        "isobject",
        "any",
        "all",
        "del",
        "has",
        "startswith",
        "endswith",
        "ltrimstr",
        "rtrimstr",
        "split",
        "join",
        "select",
        "and",
        "or",
        "if",
        "then",
        "elif",
        "else",
        "end",
        "as",
        "try",
        "catch",
    ]
)
_KEYWORDS: Final = frozenset(["and", "or", "if", "then", "elif", "else", "end", "as", "try", "catch"])
_PER_ITEM: Final = frozenset(
    [
        "map",
        "map_values",
        "with_entries",
        "any",
        "all",
        "sort_by",
        "group_by",
        "min_by",
        "max_by",
        "unique_by",
    ]
)
_ESCAPING: Final = frozenset({"tostring", "tojson"})
_ESCAPE_FACTOR: Final = 6
_COST_MAX: Final = 256
_CALLS_MAX: Final = 16
_PROGRAM_MAX: Final = 1024
_PROGRAM_MAX_PER_ITEM: Final = 256


def refused(tokens: list[Token]) -> str | None:
    """The first name in `tokens` that no definition may use."""
    for token in tokens:
        if token.kind == "name" and token.text in REFUSED:
            return token.text
        if token.kind == "variable" and token.text in ("$ENV", "$__loc__", "$__prog_args"):
            return token.text
    return None


def is_linear(program: str, tokens: list[Token]) -> bool:
    """Whether `program` provably needs time and memory linear in its data."""
    calls = sum(token.kind == "name" and token.text not in _KEYWORDS for token in tokens)
    if len(program) > _PROGRAM_MAX or calls > _CALLS_MAX:
        return False
    cost = _Cost(tokens)
    try:
        cost.group(None)
    except _Unproven:
        return False
    return not cost.iterates or len(program) <= _PROGRAM_MAX_PER_ITEM


class _Unproven(Exception):
    pass


class _Cost:
    """Reads tokens by bracket groups; the cost of a group bounds how often its input is copied into its result."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.per_item = False
        self.iterates = False

    def at(self, position: int) -> Token | None:
        return self.tokens[position] if 0 <= position < len(self.tokens) else None

    def group(self, opened: str | None) -> int:
        """Up to the bracket that closes `opened`: the product of the stages' sums."""
        product, stage, conditions = 1, 0, 0
        while (token := self.at(self.position)) is not None:
            self.position += 1
            if token.kind == "close":
                break
            if token.kind == "operator" and token.text in ("|", "|="):
                product, stage = product * max(1, stage), 0
            elif token.kind == "operator" and token.text == ",":
                if opened not in ("[", "{") or conditions:
                    raise _Unproven
            else:
                if token.kind == "name":
                    conditions += (token.text == "if") - (token.text == "end")
                    if token.text == "as" and opened == "{":
                        raise _Unproven
                stage += self.leaf(token)
            if product * max(1, stage) > _COST_MAX:
                raise _Unproven
        return product * max(1, stage)

    def leaf(self, token: Token) -> int:
        match token.kind:
            case "operator":
                return self.operator(token.text)
            case "name":
                return self.name(token.text)
            case "open":
                return self.bracket(token)
            case "field":
                return 0 if _ends_a_term(self.at(self.position - 2)) else 1
            case "format":
                raise _Unproven
            case "variable" if self.per_item:
                raise _Unproven
            case _:
                return 1

    def operator(self, text: str) -> int:
        match text:
            case "//" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "+" | "-" | "/" | "%" | ":" | "?":
                return 0
            case ".":
                return 1
            case "=" | "+=" | "-=" | "//=" if not self.per_item:
                return 2
            case "*":
                return self.product()
            case _:
                raise _Unproven

    def product(self) -> int:
        """`*` repeats strings: proven only beside a literal, a small one or one with a fraction (which repeats none)."""
        left, right = self.at(self.position - 2), self.at(self.position)
        if left is not None and left.kind == "number" and _stands_alone(self.at(self.position - 3)):
            return _repeats(left.text)
        if right is not None and right.kind == "number" and _stands_alone(self.at(self.position + 1)):
            return _repeats(right.text)
        raise _Unproven

    def name(self, name: str) -> int:
        following = self.at(self.position)
        called = following is not None and following.kind == "open" and following.text == "("
        if name in _PER_ITEM and called:
            return 1 + self.iterate(self.position + 1)
        if name not in _LINEAR:
            raise _Unproven
        if name == "as":
            self.binding()
        if name == "join":
            self.literal_argument()
        if name in _ESCAPING:
            return _ESCAPE_FACTOR
        return 0 if name in _KEYWORDS else 1

    def binding(self) -> None:
        """Only `… as $name |`, never a pattern."""
        variable, pipe = self.at(self.position), self.at(self.position + 1)
        if (
            self.per_item
            or variable is None
            or pipe is None
            or variable.kind != "variable"
            or pipe.text != "|"
        ):
            raise _Unproven

    def literal_argument(self) -> None:
        argument = self.tokens[self.position : self.position + 3]
        if [token.kind for token in argument] != ["open", "string", "close"]:
            raise _Unproven

    def iterate(self, body: int) -> int:
        """The group that starts at token `body` is evaluated once an item."""
        if self.per_item:
            raise _Unproven
        self.per_item = self.iterates = True
        self.position = body
        cost = self.group("(")
        self.per_item = False
        return cost

    def bracket(self, token: Token) -> int:
        if token.text == "\\(":
            return _ESCAPE_FACTOR * self.group("\\(")
        if token.text == "[" and _ends_a_term(self.at(self.position - 2)):
            return self.index()
        if token.text == "[" and (body := self.iterated_path()) is not None:
            return 1 + self.iterate(body)
        return 1 + self.group(token.text)

    def index(self) -> int:
        """After a term: a literal key, index or slice, and nothing else."""
        inner = []
        while (token := self.tokens[self.position]).kind != "close":
            inner.append(token)
            self.position += 1
        self.position += 1
        if not inner or any(t.kind not in ("string", "number") and t.text not in (":", "-") for t in inner):
            raise _Unproven
        return 0

    def iterated_path(self) -> int | None:
        """For `[path[]path]` or `[path[]path | …]`, its first bracket just read: where what is done an item begins."""
        at, iterated = self.position, False
        while (token := self.at(at)) is not None:
            following = self.at(at + 1)
            if token.text == "[" and following is not None and following.kind == "close" and not iterated:
                at, iterated = at + 2, True
                continue
            if iterated and (token.kind == "close" or token.text == "|"):
                return at
            if token.kind not in ("field", "variable") and not (
                token.kind == "operator" and token.text in ".?"
            ):
                return None
            at += 1
        return None


def _stands_alone(around: Token | None) -> bool:
    """Whether the token beside a number leaves the number an operand of its own of `*`."""
    if around is None or around.kind == "close":
        return True
    if around.kind == "operator":
        return around.text in (",", "|", "+", "==", "!=", "<", "<=", ">", ">=", "//", ":")
    return around.kind == "name" and around.text in ("then", "else", "elif", "end", "and", "or")


def _repeats(number: str) -> int:
    if not number.isdigit():
        return 1
    return int(number) if len(number) < 4 else _COST_MAX + 1


def _ends_a_term(token: Token | None) -> bool:
    if token is None or token.kind == "open":
        return False
    if token.kind == "operator":
        return token.text in (".", "?")
    return token.kind != "name" or token.text not in _KEYWORDS - {"end"}
