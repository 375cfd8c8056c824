"""How long networks take: wall-clock time of repeated calls, as quartiles, measured in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MINIMUM_CALLS = 5


@dataclass(frozen=True)
class Timing:
    """Times of repeated calls in milliseconds.

    Attributes:
        median, lower, upper: Median and quartiles.
        calls: How many calls were timed.
    """

    median: float
    lower: float
    upper: float
    calls: int


def measure(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Timing]:
    """Time several calls in turn, so that a change of the machine's speed meets all of them.

    Args:
        calls: What is timed, by name; each runs once before, untimed.
        seconds: How long to go on; every call is timed at least :data:`MINIMUM_CALLS` times.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < MINIMUM_CALLS:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: _summary(values) for name, values in times.items()}


def _summary(values: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(median, lower, upper, len(values))
