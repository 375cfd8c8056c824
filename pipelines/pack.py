"""``python -m pipelines.pack WEIGHTS --out FILE``: a trained 1-bit network as packed words and integer thresholds.

WEIGHTS is a weight file of this suite (``runs/retrain/.../model.safetensors``). FILE runs without the suite's networks:
``downstream.packed.load`` or the runner in C (docs/packed.md).
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from downstream.models import load_network
from downstream.packed import pack, save
from downstream.packed.export import export_onnx
from pipelines.stage import run


def main(arguments: list[str] | None = None) -> None:
    """Pack one file and print what became of its layers."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.pack", description=__doc__)
    parser.add_argument("weights", help="a weight file of this suite")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the packed network to write")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="also write the simulated network as ONNX")
    parser.add_argument("--input", type=int, default=None, metavar="S", help="side of the ONNX file's images")
    options = parser.parse_args(arguments)
    if (options.onnx is None) != (options.input is None):
        parser.error("--onnx and --input belong together")
    network, header = load_network(options.weights)
    packed = pack(network)
    kept = ("task", "crop", "commit", "classes")
    packed.program.metadata |= {key: str(header[key]) for key in kept if key in header}
    save(options.out, packed)
    if options.onnx is not None:
        export_onnx(network, options.onnx, (options.input, options.input))
    computed = Counter(layer["arithmetic"] for layer in packed.program.layers if layer["kind"] in _PRODUCTS)
    for arithmetic, count in computed.most_common():
        print(f"{count} convolutions as {arithmetic}")
    print(
        f"{options.out}: {os.path.getsize(options.out)} bytes, the weights {os.path.getsize(options.weights)}"
    )


_PRODUCTS = ("binary", "depthwise", "real")

if __name__ == "__main__":
    run(main)
