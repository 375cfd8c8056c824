"""Fill README.md's generated blocks from results/ and from counting: no number in it is typed.

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
from pipelines.results.render import markdown_table
from search.errors import InputError
from search.files import read_csv, read_json, write_text

README = Path("README.md")
RESULTS = Path("results")
NOTES = Path(__file__).with_name("cost_notes.yaml")
PROFILE = "quick"
PHOTOGRAPHS = ("photos", "bccd", "trees")
SHOWN = (
    ("classification", "accuracy", "top-1 %"),
    ("detection", "voc_map50", "mAP@0.5 %"),
    ("reid", "map", "mAP %"),
)
"""Tables of the results block: file, metric, head."""


def results_block(results: Path) -> str:
    """All retrained, detection and re-ID results of the embedded profile in one table, mean and all runs."""
    return "\n\n".join([_table(results, (PROFILE,)), *_pixel_floor(results)])


def photographs_block(results: Path) -> str:
    """The same of the committed runs on real photographs."""
    return _table(results, PHOTOGRAPHS)


def _table(results: Path, profiles: tuple[str, ...]) -> str:
    rows = []
    for name, metric, head in SHOWN:
        for row in read_csv(results / f"{name}.csv"):
            if row["profile"] in profiles and row["level"].startswith("reproduced"):
                rows.append(_result(row, metric, head))
    heads = ("data", "network", "W/A", "metric", "value", "n", "OPs M (strict)", "Mbit", "untrained")
    return markdown_table(heads, rows, [False] * 4 + [True] * 5)


def _pixel_floor(results: Path) -> list[str]:
    """What raw pixels reach in re-identification without any network: the floor that a stand-in must be read with."""
    floors = {
        f"{read_json(path.with_name('run.json'))['dataset']['name']}: mAP {100 * metrics['pixels_map']:.1f} %"
        for path in sorted((results / "records" / PROFILE / "reid").glob("*/metrics.json"))
        if "pixels_map" in (metrics := read_json(path))
    }
    return [f"Raw pixels, compared without any network, reach on {floor}." for floor in sorted(floors)]


def _result(row: dict[str, str], metric: str, head: str) -> list[str]:
    stand_in = row["stand_in"] == "yes"
    prefix = "stand_in_" if stand_in else ""
    floors = [
        key for key in row if key.startswith(f"{prefix}untrained_") and row[key] and not key.endswith("_std")
    ]
    floor = next((row[key] for key in floors if "map" in key), "")
    return [
        row["dataset"] + (" (stand-in)" if stand_in else ""),
        row["name"] + (" (real-valued)" if row["precision"] == "real" else ""),
        row["wa"],
        head,
        _with_deviation(row, prefix + metric),
        row["n"],
        f"{float(row['ops_strict_M']):.3f}",
        f"{float(row['mbit']):.2f}",
        f"{float(floor):.1f}" if floor else "–",
    ]


def _with_deviation(row: dict[str, str], metric: str) -> str:
    """Mean, and the standard deviation where several seeds have one."""
    deviation = row.get(f"{metric}_std")
    return f"{float(row[metric]):.1f}" + (f" ± {float(deviation):.1f}" if deviation else "")


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


BLOCKS: dict[str, Callable[[Path], str]] = {
    "results": results_block,
    "photographs": photographs_block,
    "cost": cost_block,
}


def fill(text: str, results: Path = RESULTS) -> str:
    """The README with its blocks generated anew.

    Raises:
        InputError: If a block's marks are missing.
    """
    for name, make in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise InputError(f"the marks of the block {name!r} are missing", where=README)
        block = make(results)
        text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)  # type: ignore[misc]
    return text


def main() -> None:
    """Rewrite README.md where it changed."""
    argparse.ArgumentParser(prog="python -m pipelines.readme", description=__doc__).parse_args()
    old = README.read_text(encoding="utf-8")
    new = fill(old)
    if new != old:
        write_text(README, new)
        print(f"{README} brought up to date")


if __name__ == "__main__":
    stage.run(main)
