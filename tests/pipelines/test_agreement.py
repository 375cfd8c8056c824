"""What is read off a benchmark's table: numbers that can be worked out by hand, and pages that repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import agreement
from pipelines.agreement import findings, headline, write_report
from search.benchmark import Benchmark, Entry, Results, Run
from search.benchmark.names import describe
from search.space import SMALL

RECIPE = {"size": 16, "train_images": 100, "epochs": 2, "channels": 2, "cells": 3, "style": {"form": "paper"}}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "RESAMPLES", 40)


def table(count: int = 40, agree: bool = True, seeds: int = 2) -> Benchmark:
    """Children that get better with every separable convolution; Parents likewise, or the other way round."""
    entries = {}
    for place, choices in enumerate(list(SMALL.choices())[:count]):
        text = describe(choices, SMALL)
        child = 0.3 + 0.02 * choices.count(2) + 0.0001 * place
        parent = child + 0.1 if agree else 0.9 - child
        results = [
            Results(tuple(Run(seed, value, value, 1.0, 1.0) for seed in range(seeds)))
            for value in (child, parent)
        ]
        cost = {"child_parameters": 100.0 + choices.count(2), "child_ops_strict": 1.0 + place}
        entries[text] = Entry(text, choices, SMALL, results[0], results[1], cost)
    return Benchmark(entries, {"space": SMALL.to_dict(), "recipe": RECIPE})


def test_equal_orders_have_tau_one_and_opposite_ones_minus_one() -> None:
    for agree, expected in ((True, 1.0), (False, -1.0)):
        found = {item.key: item for item in findings(table(agree=agree))}
        tau = found["tau_child_parent"]
        assert (tau.value, tau.low, tau.high) == pytest.approx((expected,) * 3)
        assert found["tau_z_0"].value == pytest.approx(1.0)
        assert found["tau_z_1"].value == pytest.approx(expected)


def test_an_indicator_is_compared_with_other_seeds_alone() -> None:
    found = {item.key: item for item in findings(table(seeds=1))}
    assert found["tau_z_0.5"].n == 0
    assert found["tau_z_0.5"].value is None
    assert "beta_P" not in headline(table(seeds=1), findings(table(seeds=1)))


def test_seeds_that_agree_are_all_signal() -> None:
    found = {item.key: item for item in findings(table())}
    assert found["signal_child"].value == pytest.approx(1.0)
    assert found["child_sep_conv_3x3"].value is not None
    assert found["child_sep_conv_3x3"].value > 0.9


def test_the_page_says_how_much_it_rests_on_and_repeats(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_report(table(), folder)
    for name in ("benchmark.md", "benchmark.csv", "figures/benchmark.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    page = (tmp_path / "a/benchmark.md").read_text()
    assert "Over 40 drawn of 1,024 architectures" in page
    assert (
        "tau between the real-valued Parent's and the 1-bit Child's test accuracy is 1.00 [1.00, 1.00]"
        in page
    )
