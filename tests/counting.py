"""Metrics that remember."""

from __future__ import annotations

from collections import Counter


class Counting:
    """Takes what is counted, for tests to look at."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}

    def incr(self, name: str, count: int = 1, tags: object = None) -> None:
        self.counts[name] += count

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value

    def timing(self, name: str, seconds: float, tags: object = None) -> None:
        self.counts[name] += 1
