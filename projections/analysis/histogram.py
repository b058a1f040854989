"""Histograms of times that can be added up: logarithmic buckets, so a percentile is right to one per cent. Pure.

The buckets are those of DDSketch (Masson, Rim, Lee, VLDB 2019): bucket i holds (g^(i), g^(i+1)] microseconds with
g = (1 + a) / (1 - a), and its middle is at most a = 1 % away from anything in it. Two histograms added are the histogram of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

ACCURACY: Final = 0.01
_GROWTH: Final = (1 + ACCURACY) / (1 - ACCURACY)
LOG_BASE: Final = math.log(_GROWTH)


class Histogram(msgspec.Struct):
    """`buckets`: number -> how many; `zeros`: those below a microsecond. Sums and extremes are in seconds, and exact."""

    buckets: dict[int, int] = {}
    zeros: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = 0.0

    @property
    def count(self) -> int:
        return self.zeros + sum(self.buckets.values())

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def add(self, bucket: int | None, count: int, total: float, least: float, most: float) -> None:
        if bucket is None:
            self.zeros += count
        else:
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.total += total
        self.least, self.most = min(self.least, least), max(self.most, most)

    def merged(self, other: Histogram) -> Histogram:
        buckets = dict(self.buckets)
        for bucket, count in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        return Histogram(
            buckets,
            self.zeros + other.zeros,
            self.total + other.total,
            min(self.least, other.least),
            max(self.most, other.most),
        )

    def percentile(self, share: float) -> float:
        """Seconds; 0 for an empty histogram. `share` is from 0 to 1."""
        if not self.count:
            return 0.0
        rank = share * (self.count - 1)
        passed = self.zeros
        if rank < passed:
            return 0.0
        for bucket in sorted(self.buckets):
            passed += self.buckets[bucket]
            if rank < passed:
                middle = _GROWTH**bucket * 2 * _GROWTH / (1 + _GROWTH) / 1_000_000
                return min(max(middle, self.least), self.most)
        return self.most


def of(seconds: float) -> int | None:
    """The bucket of a time."""
    return None if seconds < 1e-6 else math.floor(math.log(seconds * 1_000_000) / LOG_BASE)


def shown(histogram: Histogram) -> Mapping[str, float]:
    """Seconds, rounded to the microsecond."""
    values = {
        "total": histogram.total,
        "mean": histogram.mean,
        "p50": histogram.percentile(0.5),
        "p95": histogram.percentile(0.95),
        "p99": histogram.percentile(0.99),
        "max": histogram.most,
    }
    return {name: round(value, 6) for name, value in values.items()}
