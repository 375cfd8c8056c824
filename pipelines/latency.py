"""``python -m pipelines.latency FILE|NETWORK``: measured milliseconds of a packed network beside PyTorch's.

FILE is a packed network or a weight file of this suite; NETWORK a genotype file, or a published or hand-made network's
name: then weights are drawn, which changes no time. Timed in turn on this CPU: the packed network, the simulated 1-bit
network (float tensors of +-1) and its real-valued twin, both by PyTorch with oneDNN in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from downstream import handmade
from downstream.models import build, load_network, rebuild
from downstream.packed import Packed, load, pack, save
from downstream.packed.file import is_packed
from downstream.packed.timing import Timing, measure
from pipelines.cost import RELEASED, RELEASED_SIZE, SIZES
from pipelines.networks import resolve
from pipelines.provenance import cpu_name
from pipelines.stage import run
from search.backbone import BackboneModule
from search.errors import InputError
from search.network import Stem
from search.style import Form

Size = tuple[int, int]
LARGEST = 4096


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = argparse.ArgumentParser(prog="python -m pipelines.latency", description=__doc__)
    add = program.add_argument
    add(
        "network",
        metavar="FILE|NETWORK",
        help="a packed network, a weight file, a genotype file or a network's name",
    )
    add("--batch", type=_number, default=1, help="images a call (default: %(default)s)")
    add("--threads", type=_number, default=1, help="threads of both engines (default: %(default)s)")
    add("--input", type=_size, metavar="S|HxW", help="input size, such as 224 or 256x128")
    add("--seconds", type=float, default=5.0, help="how long to measure (default: %(default)s)")
    add("--form", choices=get_args(Form), help="form of a genotype's operations")
    add("--stem", choices=get_args(Stem), help="first layers of a network that is given by name")
    add("--channels", type=_number, help="C of a network that is given by name")
    add("--cells", type=_number, help="cells of a genotype")
    add(
        "--per-layer",
        action="store_true",
        help="list the packed network's operations with their processor time",
    )
    add("--json", action="store_true", help="print one JSON object")
    return program


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {LARGEST}")
    return int(text)


def _size(text: str) -> Size:
    height, _, width = text.partition("x")
    return _number(height), _number(width or height)


def main(arguments: list[str] | None = None) -> None:
    """Measure one network and print the times."""
    options = parser().parse_args(arguments)
    network, packed, size = _networks(options)
    torch.set_num_threads(options.threads)
    packed.threads = options.threads
    result = latency(network, packed, size, options.batch, options.seconds)
    if options.per_layer:
        result["layers"] = per_layer(packed, size)
    print(json.dumps(result, indent=2) if options.json else text(result))


def _networks(options: argparse.Namespace) -> tuple[nn.Module, Packed, Size]:
    """The simulated network, the packed one and the input size."""
    if options.network.endswith(".safetensors"):
        given = [name for name in ("form", "stem", "channels", "cells") if getattr(options, name) is not None]
        if given:
            raise InputError("the file says what it holds", where=f"--{given[0]}", mend="leave it out")
        if is_packed(options.network):
            packed = load(options.network)
            network = rebuild(packed.architecture)
        else:
            network, _ = load_network(options.network)
            packed = pack(network, options.input)
        side = 32 if _stem(packed.architecture) == "cifar" else 224
        return network.eval(), packed, options.input or (side, side)
    network, size = _named(options)
    return network, pack(network, size), size


def _stem(architecture: dict[str, Any]) -> str:
    return str(architecture.get("stem") or architecture["config"]["stem"])


def _named(options: argparse.Namespace) -> tuple[BackboneModule, Size]:
    made = options.network in handmade.NAMES
    released = options.network.lower() == RELEASED.lower()
    stem: Stem = options.stem or ("imagenet" if made or released else "cifar")
    sizes = RELEASED_SIZE if released and stem == "imagenet" else SIZES[stem]
    network = build(
        resolve(options.network),
        form=options.form or ("released" if released else "paper"),
        channels=options.channels or (None if made else sizes.channels),
        cells=options.cells or sizes.cells,
        classes=sizes.classes,
        stem=stem,
    )
    return network.eval(), options.input or (sizes.input, sizes.input)


def latency(network: nn.Module, packed: Packed, size: Size, batch: int, seconds: float) -> dict[str, Any]:
    """Times, memory and file size of a packed network, beside the simulated network and its real-valued twin.

    Args:
        network: The simulated 1-bit network, in evaluation mode.
        packed: The same network packed.
        size: Height and width of the images.
        batch: Images a call.
        seconds: How long to measure.
    """
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    twin = real_twin(network)
    with torch.inference_mode():
        times = measure(
            {
                "packed": lambda: packed(images),
                "simulated": lambda: network(images),
                "real_twin": lambda: twin(images),
            },
            seconds,
        )
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "packed.safetensors", packed)
        file_bytes = os.path.getsize(Path(folder) / "packed.safetensors")
    return {
        "cpu": cpu_name(),
        "instructions": packed.variant,
        "threads": packed.threads,
        "batch": batch,
        "input": list(size),
        "milliseconds": {name: asdict(timing) for name, timing in times.items()},
        "plan_bytes": packed.plan(size, ["logits"]).bytes * packed.threads,
        "file_bytes": file_bytes,
    }


def real_twin(network: nn.Module) -> nn.Module:
    """The real-valued network of the same architecture, with drawn weights."""
    architecture = json.loads(json.dumps(network.architecture))
    if architecture["kind"] == "handmade":
        architecture["precision"] = "real"
    else:
        architecture["config"]["style"]["binary"] = False
    return rebuild(architecture).eval()


def per_layer(packed: Packed, size: Size, repeats: int = 10) -> list[dict[str, Any]]:
    """Processor time of every operation on one image, the least of ``repeats`` runs, in milliseconds."""
    image = np.zeros((int(packed.program.values[0, 1]), *size), dtype=np.float32)
    plan = packed.plan(size, ["logits"])
    seconds = np.min([plan.profile(image) for _ in range(repeats)], axis=0)
    return [
        {**layer, "milliseconds": 1e3 * float(time)}
        for layer, time in zip(packed.program.layers, seconds, strict=True)
    ]


def text(result: dict[str, Any]) -> str:
    """The result for a reader."""
    height, width = result["input"]
    lines = [
        f"{result['cpu']}, {result['instructions']}, {result['threads']} thread(s), batch {result['batch']},"
        f" {height} x {width}"
    ]
    timings = {name: Timing(**value) for name, value in result["milliseconds"].items()}
    for name, timing in timings.items():
        ratio = timing.median / timings["packed"].median
        quartiles = f"({timing.lower:.2f} to {timing.upper:.2f})"
        lines.append(f"{name:<10} {timing.median:9.2f} ms {quartiles:<22} {ratio:6.2f} x packed")
    lines.append(
        f"buffers and prepared weights {result['plan_bytes']} bytes, file {result['file_bytes']} bytes"
    )
    for layer in result.get("layers", []):
        lines.append(f"{layer['milliseconds']:9.4f} ms  {layer['kind']:<10} {layer['name']}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
