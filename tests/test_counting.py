"""The counters that tests and benchmarks rely on."""

from __future__ import annotations

import torch

from tests.counting import PeakBytes, Traffic


def test_traffic_is_arguments_and_results_once_an_operation() -> None:
    x, y = torch.ones(100), torch.ones(100)
    with Traffic() as traffic:
        z = x + y
    assert traffic.bytes == 3 * 400
    with Traffic() as traffic:
        z.add_(x)
        x * x
        x.view(10, 10).t()
        torch.ones(1).expand(100)
    # In place: two read, one written. A square reads one. Views move nothing; ones writes 4 bytes.
    assert traffic.bytes == 3 * 400 + 2 * 400 + 4


def test_traffic_sees_the_backward_pass() -> None:
    x = torch.ones(100, requires_grad=True)
    with Traffic() as forward:
        y = x.exp()
    with Traffic() as backward:
        y.backward(torch.ones(100))
    assert forward.bytes == 2 * 400
    assert backward.bytes >= 3 * 400


def test_peak_is_what_lived_at_once() -> None:
    with PeakBytes() as memory:
        for _ in range(3):
            kept = torch.ones(1000) + 1
    assert 2 * 4000 <= memory.peak <= 3 * 4000 and len(kept) == 1000
