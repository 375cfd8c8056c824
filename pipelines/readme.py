"""Fill the generated blocks of README.md and docs/results.md from results/ and from counting: no number is typed.

``python -m pipelines.readme`` rewrites what stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipelines import stage
from pipelines.results.column import DASH, DATA_MARKS, own_column
from pipelines.results.columns import TABLES
from pipelines.results.metrics import Metric
from pipelines.results.render import markdown_table
from search.errors import InputError
from search.files import read_csv, write_text

README = Path("README.md")
RESULTS = Path("results")
FIGURE = "results/figures/benchmark.svg"
NOTES = Path(__file__).with_name("cost_notes.yaml")
CAMPAIGN = "quick"
PHOTOGRAPHS = ("photos", "bccd", "trees")
SHOWN = {
    "classification": "accuracy",
    "detection": "voc_map50",
    "reid": "map",
}
"""Tables of the results block, and the metric that each shows."""
COST_OF = {"detection": " of the detector"}
WIDTHS_OF = {"detection": " of the backbone"}
"""Whose operations, memory and W/A a table's are, where that is not the network alone."""


def results_block(results: Path) -> str:
    """All retrained, detection and re-ID results of the embedded profile: mean and all runs, a table a task."""
    return _block(results, (CAMPAIGN,))


def photographs_block(results: Path) -> str:
    """The same of the committed runs on real photographs."""
    return _block(results, PHOTOGRAPHS)


def _block(results: Path, campaigns: tuple[str, ...]) -> str:
    rows = {
        name: [
            row
            for row in read_csv(results / f"{name}.csv")
            if row["campaign"] in campaigns and row["level"].startswith("reproduced")
        ]
        for name in SHOWN
    }
    tables = [_table(name, found) for name, found in rows.items() if found]
    return "\n\n".join([*tables, *_pixel_floors(rows["reid"])])


def _table(name: str, rows: list[dict[str, str]]) -> str:
    spec = next(spec for spec in TABLES if spec.name == name)
    metric = next(metric for metric in spec.metrics if metric.key == SHOWN[name])
    heads = [spec.title.lower(), "network", f"W/A{WIDTHS_OF.get(name, '')}", metric.head, "runs", "searches"]
    heads += [f"OPs M (strict){COST_OF.get(name, '')}", f"Mbit{COST_OF.get(name, '')}"]
    heads += ["untrained"] if metric.floor else []
    return markdown_table(
        heads, [_result(row, metric) for row in rows], [False] * 3 + [True] * (len(heads) - 3)
    )


def _result(row: dict[str, str], metric: Metric) -> list[str]:
    cells = [
        row["dataset"] + DATA_MARKS[row["data_kind"]],
        row["name"] + (" (real-valued)" if row["precision"] == "real" else ""),
        row["wa"],
        _with_deviation(row, own_column(row, metric.key)),
        row["n"],
        row["searches"] or DASH,
        f"{float(row['ops_strict_M']):.3f}",
        f"{float(row['mbit']):.2f}",
    ]
    if metric.floor:
        floor = row[own_column(row, metric.floor)]
        cells.append(f"{float(floor):.1f}" if floor else DASH)
    return cells


def _with_deviation(row: dict[str, str], metric: str) -> str:
    """Mean, and the standard deviation where several seeds have one."""
    deviation = row.get(f"{metric}_std")
    return f"{float(row[metric]):.1f}" + (f" ± {float(deviation):.1f}" if deviation else "")


def _pixel_floors(rows: list[dict[str, str]]) -> list[str]:
    """What raw pixels reach in re-identification without any network: the floor that a stand-in must be read with."""
    floors = {
        f"{row['dataset']}: mAP {float(floor):.1f} %"
        for row in rows
        if (floor := row[own_column(row, "pixels_map")])
    }
    return [f"Raw pixels, compared without any network, reach on {floor}." for floor in sorted(floors)]


def cost_block(_results: Path) -> str:
    """Our count of published networks beside the published one, at 224 x 224 and 1000 classes."""
    from downstream.models import build
    from search.cost import count

    rows = []
    for note in yaml.safe_load(NOTES.read_text(encoding="utf-8")):
        size: dict[str, Any] = {}
        if note["network"] == "DDPNAS_MCN_2":
            size = {"form": "released", "channels": 108, "cells": 10}
        precision = "real" if note.get("real") else "1bit"
        model = build(note["network"], precision=precision, classes=1000, stem="imagenet", **size)  # type: ignore[arg-type]
        found = count(model, (3, 224, 224))
        numbers = (found.bops, found.w1a32_macs, found.flops, found.ops_strict, found.ops_generous)
        rows.append(
            [
                note["title"],
                *(f"{value / 1e6:.2f}" for value in numbers),
                f"{found.mbit:.2f}",
                f"{note['published']} ({note['source']})",
                note["why"],
            ]
        )
    heads = (
        "network",
        "BOPs M",
        "W1A32 M",
        "FLOPs M",
        "OPs M strict",
        "generous",
        "Mbit",
        "published",
        "difference",
    )
    return markdown_table(heads, rows, [False, *[True] * 6, False, False])


def finding_block(results: Path) -> str:
    """The benchmark's finding in one sentence, and its figure, as ``pipelines.benchmark report`` wrote them last."""
    page = results / "benchmark.md"
    if not page.exists():
        return "Its benchmark of 1,024 small architectures, each as Child and as Parent, is built but not run yet."
    finding = page.read_text(encoding="utf-8").splitlines()[2]
    return f"**{finding}** ([how it was found](results/benchmark.md))\n\n![Child against Parent]({FIGURE})"


PAGES: dict[Path, dict[str, Callable[[Path], str]]] = {
    README: {"finding": finding_block, "results": results_block},
    Path("docs/results.md"): {"photographs": photographs_block, "cost": cost_block},
}
"""The pages with generated blocks, from the root of the project."""


def fill(text: str, page: Path = README, results: Path = RESULTS) -> str:
    """A page with its blocks generated anew.

    Raises:
        InputError: If a block's marks are missing.
    """
    for name, make in PAGES[page].items():
        pattern = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise InputError(f"the marks of the block {name!r} are missing", where=page)
        block = make(results)
        text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)  # type: ignore[misc]
    return text


def main() -> None:
    """Rewrite the pages where they changed."""
    argparse.ArgumentParser(prog="python -m pipelines.readme", description=__doc__).parse_args()
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = fill(old, page)
        if new != old:
            write_text(page, new)
            print(f"{page} brought up to date")


if __name__ == "__main__":
    stage.run(main)
