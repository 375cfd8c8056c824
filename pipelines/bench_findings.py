"""What the benchmarks say, in sentences made from their numbers: the share of each limit that is reached.

Every sentence names its aim where the project has one, whether it is met or not. A sentence whose benchmarks
were not run is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]
"""Rows of :func:`pipelines.bench.rows_of` by the benchmark's name."""

CHILD_TO_PARENT, PLAIN_TO_CHILD, MEMORY_TO_PLAIN = 1.15, 3.0, 2.5
"""Aims: a Child's step at most so many Parent's, plain code at least so many Child's, and a curvature's memory at
most so many plain steps'."""
PAPER_COST = (27.9, 2.9)
"""DCP-NAS, Table 4.3: search cost with the exact Hessian and with the Gauss-Newton approximation; no unit is given."""


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentences, one a subject."""
    by_name = {row["benchmark"]: row for row in rows}
    makers = (_step, _parts, _limits, _curvature, _folder, _memory)
    return [sentence for make in makers if (sentence := _if_run(make, by_name))]


def _if_run(make: Callable[[Rows], str], rows: Rows) -> str:
    try:
        return make(rows)
    except KeyError:
        return ""


def _ratio(rows: Rows, first: str, second: str, column: str = "median_s") -> float:
    return rows[first][column] / rows[second][column]


def _verdict(met: bool) -> str:
    return "met" if met else "not met"


def _step(rows: Rows) -> str:
    child, parent, plain = (f"test_training_step[{kind}]" for kind in ("child", "parent", "plain"))
    dear, gain = _ratio(rows, child, parent), _ratio(rows, plain, child)
    return (
        f"A training step of the Child takes {dear:.2f} times that of the Parent, its real-valued twin (aim: at "
        f"most {CHILD_TO_PARENT:g}, {_verdict(dear <= CHILD_TO_PARENT)}); the same Child in plain PyTorch takes "
        f"{gain:.1f} times as long (aim: at least {PLAIN_TO_CHILD:g}, {_verdict(gain >= PLAIN_TO_CHILD)})."
    )


def _parts(rows: Rows) -> str:
    def listed(kind: str) -> str:
        shares = rows[f"test_training_step[{kind}]"]["shares"]
        ordered = sorted(shares.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{name} {share:.0%}" for name, share in ordered)

    return (
        f"The time of the Child's step by torch's profiler: {listed('child')}. Of the Parent's, whose quantiser "
        f"is a ReLU: {listed('parent')}."
    )


def _limits(rows: Rows) -> str:
    child, copy, product = (
        rows[name] for name in ("test_training_step[child]", "test_copy[256]", "test_matrix_product")
    )
    arithmetic, traffic = child["gflop"] / product["gflop_per_s"], child["gb"] / copy["gb_per_s"]
    return (
        f"The Child's step needs {child['gflop']:.1f} GFLOP in its convolutions, "
        f"{child['gflop_per_s'] / product['gflop_per_s']:.0%} of the {product['gflop_per_s']:.0f} GFLOP/s of a "
        f"large matrix product, and moves at least {child['gb']:.1f} GB (every operation reads its arguments and "
        f"writes its results once), {child['gb_per_s'] / copy['gb_per_s']:.0%} of the "
        f"{copy['gb_per_s']:.1f} GB/s of a 256 MiB copy. At these limits the arithmetic alone would take "
        f"{arithmetic:.2f} s and the traffic alone {traffic:.2f} s of its {child['median_s']:.2f} s; the rest is "
        f"what kernels take beyond one pass over their data."
    )


def _curvature(rows: Rows) -> str:
    exact, ggn, plain = (f"test_alpha_step[{kind}]" for kind in ("exact", "ggn", "plain"))
    most = max(_ratio(rows, name, plain, "peak_mib") for name in (exact, ggn))
    before, after = PAPER_COST
    return (
        f"A step in alpha takes {rows[exact]['median_s']:.2f} s with the exact Hessian product and "
        f"{rows[ggn]['median_s']:.2f} s with the Gauss-Newton product, {_ratio(rows, exact, ggn):.1f} times less "
        f"(the paper's search cost, no unit given: {before:g} to {after:g}, {before / after:.1f} times). Peak memory "
        f"is {_ratio(rows, exact, plain, 'peak_mib'):.2f} and {_ratio(rows, ggn, plain, 'peak_mib'):.2f} times that "
        f"of a plain step (aim: at most {MEMORY_TO_PLAIN:g}, {_verdict(most <= MEMORY_TO_PLAIN)})."
    )


def _folder(rows: Rows) -> str:
    usual = "test_image_folder[usual]"

    def of(decoder: str) -> str:
        ours, alone = f"test_image_folder[ours-{decoder}]", f"test_image_folder[decode-{decoder}]"
        return (
            f"{rows[ours]['images_per_s']:.0f} with decoder {decoder} ({_ratio(rows, usual, ours):.2f} times the "
            f"usual chain; {_ratio(rows, alone, ours):.0%} of the time is the decoding of whole pictures)"
        )

    return (
        f"One core loads, of synthetic JPEG files, {rows[usual]['images_per_s']:.0f} images a second by "
        f"torchvision's usual chain, {of('pil')}, and {of('torchvision')}."
    )


def _memory(rows: Rows) -> str:
    ours, usual = "test_images_in_memory[ours]", "test_images_in_memory[usual]"
    return (
        f"Of images in memory one core makes {rows[ours]['images_per_s']:,.0f} a second in augmented batches, "
        f"{_ratio(rows, usual, ours):.1f} times those of torchvision's chain, image by image."
    )
