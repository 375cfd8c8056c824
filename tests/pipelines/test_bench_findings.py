from __future__ import annotations

from typing import Any

import pytest

from pipelines.bench import COLUMNS, markdown, rows_of
from pipelines.bench_findings import findings


def entry(name: str, seconds: float, **extra: Any) -> dict[str, Any]:
    """A benchmark as pytest-benchmark reports it, as far as it is read."""
    stats = {"median": seconds, "min": seconds, "iqr": 0.0, "rounds": 1}
    return {"group": "g", "name": name, "extra_info": extra, "stats": stats}


def rows(*benchmarks: dict[str, Any]) -> list[dict[str, Any]]:
    machine = {"machine_info": {"cpu": {}}, "commit_info": {}, "datetime": "2026-01-02T03:04:05"}
    return rows_of({"benchmarks": list(benchmarks), **machine})


def steps(child: float, plain: float) -> list[dict[str, Any]]:
    shares = {"convolutions": 0.25, "batch norms": 0.75}
    more = {"images": 64, "flop": 30e9, "bytes": 8e9, "shares": shares}
    return [
        entry("test_training_step[parent]", 1.0, shares={"convolutions": 1.0}),
        entry("test_training_step[child]", child, **more),
        entry("test_training_step[plain]", plain),
        entry("test_copy[256]", 0.1, bytes=1e9),
        entry("test_matrix_product", 0.1, flop=10e9),
    ]


def test_rates_are_of_the_median() -> None:
    (row,) = rows(entry("a", 2.0, images=64, flop=4e9, bytes=1e9, peak_bytes=2**21))
    assert (row["images_per_s"], row["gflop_per_s"], row["gb_per_s"], row["peak_mib"]) == (32, 2, 0.5, 2)
    (bare,) = rows(entry("a", 2.0))
    assert bare["images_per_s"] is bare["gflop_per_s"] is bare["peak_mib"] is None
    assert set(COLUMNS) <= set(bare)


@pytest.mark.parametrize(
    ("child", "plain", "expected"),
    [
        (1.15, 3.45, ("1.15 times", "at most 1.15, met", "3.0 times", "at least 3, met")),
        (1.25, 2.5, ("1.25 times", "at most 1.15, not met", "2.0 times", "at least 3, not met")),
    ],
)
def test_a_step_is_held_against_its_aims(child: float, plain: float, expected: tuple[str, ...]) -> None:
    step = findings(rows(*steps(child, plain)))[0]
    assert all(part in step for part in expected), step


def test_parts_are_ordered_and_limits_computed() -> None:
    _, parts, limits = findings(rows(*steps(2.0, 9.0)))
    assert "profiler: batch norms 75%, convolutions 25%. Of the Parent's" in parts
    # 30 GFLOP in 2 s of 100 GFLOP/s; 8 GB in 2 s of 10 GB/s.
    for part in (
        "30.0 GFLOP",
        "15% of the 100 GFLOP/s",
        "8.0 GB",
        "40% of the 10.0 GB/s",
        "0.30 s",
        "0.80 s",
    ):
        assert part in limits


def test_curvatures_are_compared_with_the_paper_and_the_plain_step() -> None:
    measured = [
        entry("test_alpha_step[plain]", 1.0, peak_bytes=100 * 2**20),
        entry("test_alpha_step[exact]", 6.0, peak_bytes=260 * 2**20),
        entry("test_alpha_step[ggn]", 2.0, peak_bytes=110 * 2**20),
    ]
    (sentence,) = findings(rows(*measured))
    for part in ("3.0 times less", "9.6 times", "2.60 and 1.10 times", "at most 2.5, not met"):
        assert part in sentence


def test_loaders_are_compared_with_the_usual_chains() -> None:
    measured = [
        entry("test_image_folder[usual]", 4.0, images=64),
        *(entry(f"test_image_folder[ours-{name}]", 2.0, images=64) for name in ("pil", "torchvision")),
        *(entry(f"test_image_folder[decode-{name}]", 1.0, images=64) for name in ("pil", "torchvision")),
        entry("test_images_in_memory[usual]", 10.0, images=4096),
        entry("test_images_in_memory[ours]", 1.0, images=4096),
    ]
    folder, memory = findings(rows(*measured))
    assert "synthetic JPEG" in folder and "16 images a second" in folder
    assert "32 with decoder pil (2.00 times the usual chain; 50% of the time" in folder
    assert "4,096 a second" in memory and "10.0 times" in memory


def test_what_was_not_measured_is_not_said() -> None:
    text = markdown(rows(entry("test_sleep", 1.0)))
    assert "What they say" not in text
    assert "| test_sleep |  |  | 1.0 | 1.0 | 1 |" in text
