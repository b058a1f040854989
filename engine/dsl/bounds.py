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
    """env halt halt_error input inputs now localtime strflocaltime strptime debug debug_empty stderr stderr_empty
    import include module modulemeta __loc__ input_filename input_line_number get_search_list repl""".split()
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
    """length utf8bytelength not keys keys_unsorted values nulls booleans numbers strings arrays objects iterables
    scalars type tostring tojson ascii_downcase ascii_upcase floor ceil round sqrt abs trim ltrim rtrim add sort unique
    min max reverse first last to_entries from_entries empty error null true false isboolean isnumber isstring isarray
    isobject any all has startswith endswith ltrimstr rtrimstr split join select and or if then elif else end as try
    catch""".split()
)
_PER_ITEM: Final = frozenset("map any all sort_by group_by min_by max_by unique_by".split())
_ESCAPING: Final = frozenset({"tostring", "tojson"})
_ESCAPE_FACTOR: Final = 6
_COST_MAX: Final = 256
_PROGRAM_MAX: Final = 1024
_TEXT_MAX_PER_ITEM: Final = 64


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
    if len(program) > _PROGRAM_MAX:
        return False
    try:
        reader = _Cost(tokens)
        return reader.group(None) <= _COST_MAX
    except _Unproven:
        return False


class _Unproven(Exception):
    pass


class _Cost:
    """Reads tokens by bracket groups; the cost of a group bounds how often its input is copied into its result."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.per_item = False

    def group(self, opened: str | None) -> int:
        """Up to the bracket that closes `opened`: the product of the stages' sums."""
        product, stage, array_start = 1, 0, self.position
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            self.position += 1
            if token.kind == "close":
                break
            if token.kind == "open":
                stage += self.bracket(token, opened, array_start)
            elif token.kind == "operator" and token.text in ("|", "|="):
                product, stage = product * max(1, stage), 0
            else:
                stage += self.leaf(token, opened)
            if product * max(1, stage) > _COST_MAX:
                raise _Unproven
        return product * max(1, stage)

    def leaf(self, token: Token, opened: str | None) -> int:
        match token.kind:
            case "operator":
                return self.operator(token.text, opened)
            case "name":
                return self.name(token.text)
            case "variable":
                if self.per_item:
                    raise _Unproven
                return 1
            case "string":
                if self.per_item and len(token.text) > _TEXT_MAX_PER_ITEM:
                    raise _Unproven
                return 1
            case "format":
                raise _Unproven
            case _:
                return 1

    def operator(self, text: str, opened: str | None) -> int:
        match text:
            case "." | "//" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "+" | "-" | "/" | "%" | ":" | "?":
                return 1
            case "=" | "+=" | "-=" | "//=" if not self.per_item:
                return 2
            case "," if opened in ("[", "{"):
                return 0
            case "*":
                return self.product()
            case _:
                raise _Unproven

    def product(self) -> int:
        """`*` repeats strings, unless one side is a number with a fraction, and then little if it is a small one."""
        for index, outer in ((self.position - 2, self.position - 3), (self.position, self.position + 1)):
            token = self.tokens[index] if 0 <= index < len(self.tokens) else None
            if token is None or token.kind != "number":
                continue
            around = self.tokens[outer] if 0 <= outer < len(self.tokens) else None
            if around is not None and around.kind == "operator" and around.text in ("*", "/", "%", "-", "?"):
                continue
            return int(token.text) if token.text.isdigit() and len(token.text) < 4 else self.fraction(token.text)
        raise _Unproven

    def fraction(self, text: str) -> int:
        if text.isdigit():
            raise _Unproven
        return 1

    def name(self, name: str) -> int:
        following = self.tokens[self.position] if self.position < len(self.tokens) else None
        called = following is not None and following.kind == "open" and following.text == "("
        if name in _PER_ITEM and called:
            return self.iterate(self.position + 1)
        if name not in _LINEAR:
            raise _Unproven
        if name == "as":
            self.binding()
        if name == "join":
            self.literal_argument()
        return _ESCAPE_FACTOR if name in _ESCAPING else 1

    def binding(self) -> None:
        """Only `… as $name |`, never a pattern."""
        pair = self.tokens[self.position : self.position + 2]
        if len(pair) < 2 or pair[0].kind != "variable" or pair[1].text != "|" or self.per_item:
            raise _Unproven

    def literal_argument(self) -> None:
        argument = self.tokens[self.position : self.position + 3]
        if [token.kind for token in argument] != ["open", "string", "close"]:
            raise _Unproven

    def iterate(self, body: int) -> int:
        """The group that starts at token `body` is evaluated once an item."""
        if self.per_item:
            raise _Unproven
        self.per_item = True
        self.position = body
        cost = self.group("(")
        self.per_item = False
        return cost + 1

    def bracket(self, token: Token, opened: str | None, group_start: int) -> int:
        before = self.tokens[self.position - 2] if self.position >= 2 else None
        if token.text == "[" and before is not None and _ends_a_term(before):
            return self.index(opened, group_start)
        if token.text == "\\(":
            return _ESCAPE_FACTOR * self.group("\\(")
        if token.text == "[" and (end := self.iterated_path()) is not None:
            return self.iterate(end)
        return 1 + self.group(token.text)

    def index(self, opened: str | None, group_start: int) -> int:
        """After a term: a literal key, index or slice, and nothing else."""
        inner: list[Token] = []
        while (token := self.tokens[self.position]).kind != "close":
            inner.append(token)
            self.position += 1
        self.position += 1
        if not inner or any(t.kind not in ("string", "number") and t.text not in (":", "-") for t in inner):
            raise _Unproven
        return 1

    def iterated_path(self) -> int | None:
        """For `[path[] …]`, with the opening bracket just read: the token after the `[]`."""
        at = self.position
        while at + 1 < len(self.tokens):
            token = self.tokens[at]
            if token.kind == "open" and token.text == "[" and self.tokens[at + 1].kind == "close":
                return at + 2
            if token.kind not in ("field", "variable") and token.text not in (".", "?"):
                return None
            at += 1
        return None


def _ends_a_term(token: Token) -> bool:
    return (
        token.kind in ("field", "variable", "string", "close", "number", "format")
        or (token.kind == "operator" and token.text in (".", "?"))
        or (token.kind in ("name", "key") and token.text not in _LINEAR.intersection({"and", "or", "then", "else"}))
    )
