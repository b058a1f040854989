"""What one evaluation of an expression costs, by the way it takes: `python -m bench.expressions`. Prints one line each.

The value is an order with 50 lines, so that a way that converts its whole input shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from engine.dsl.cel import compile_cel
from engine.dsl.expressions import compile_expression
from engine.dsl.model import Expression, Json
from engine.tasks.sandbox import ProcessSandbox

SECONDS: Final = 0.2
ORDER: Final[Json] = {
    "amount": 1500,
    "customer": {"tier": "gold"},
    "lines": [{"item": f"item-{n}", "quantity": n, "price": 9.5, "notes": "as ordered"} for n in range(50)],
}
SMALL: Final[Json] = {"amount": 1500, "customer": {"tier": "gold"}}


@contextmanager
def ways() -> Iterator[dict[str, Expression]]:
    sandbox, available = ProcessSandbox(), frozenset({"context"})
    try:
        yield {
            "plain path": compile_expression(".customer.tier", available, sandbox),
            "plain comparison": compile_expression(".amount > 1000", available, sandbox),
            "jq in process": compile_expression(".amount + 1", available, sandbox),
            "jq in the sandbox": compile_expression("reduce .amount as $n (0; . + $n)", available, sandbox),
            "CEL in process": compile_cel("data.amount > 1000", available, sandbox),
            "CEL in the sandbox": compile_cel("[1].all(n, data.amount > n)", available, sandbox),
        }
    finally:
        sandbox.close()


def nanoseconds(expression: Expression, value: Json) -> float:
    """Of one evaluation: the fastest of five rounds."""
    evaluate, arguments = expression.evaluate, dict[str, Json](context={})
    evaluate(value, arguments)
    best = float("inf")
    for _ in range(5):
        count, began = 0, time.perf_counter()
        give_up = began + SECONDS / 5
        while (now := time.perf_counter()) < give_up:
            for _ in range(20):
                evaluate(value, arguments)
            count += 20
        best = min(best, (now - began) / count * 1e9)
    return best


def main() -> None:
    print(f"{'ns per evaluation':<22}{'small':>12}{'50 lines':>12}")
    with ways() as found:
        for name, expression in found.items():
            print(
                f"{name:<22}{nanoseconds(expression, SMALL):>12,.0f}{nanoseconds(expression, ORDER):>12,.0f}"
            )


if __name__ == "__main__":
    main()
