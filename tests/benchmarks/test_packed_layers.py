"""Packed 1-bit convolutions against oneDNN's float32 and int8 at the shapes of the networks, and whole networks.

Each layer runs several times a round (see :mod:`tests.benchmarks.packed_layers`), the same number for all engines.
The limit is the popcount kernel alone on data in the first cache: what the instruction set gives, without moving maps.
"""

from __future__ import annotations

import pytest
import torch

from downstream.models import build
from downstream.packed import pack
from tests.benchmarks.packed_layers import REPEATS, Layer, byte_call, float_call, limit_call, packed_call

LAYERS = (
    *(Layer(64 * 2**i, 56 // 2**i, 3) for i in range(4)),
    *(Layer(64 * 2**i, 56 // 2**i, 1) for i in range(3)),
    *(Layer(channels, side, 1, packed=False) for channels, side in ((36, 32), (72, 16), (108, 28), (144, 8))),
    *(Layer(36, 32, kernel, depthwise=True) for kernel in (3, 5)),
    Layer(108, 28, 3, depthwise=True),
)
ENGINES = {"packed": packed_call, "float32": float_call, "int8": byte_call}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_layer(benchmark, layer: Layer, engine: str) -> None:
    benchmark.group = f"packed layer: {layer.name}"
    benchmark.extra_info["flop"] = 2 * layer.macs * REPEATS
    if engine != "float32":
        benchmark.extra_info["baseline"] = f"test_layer[{layer.name}-float32]"
    with torch.inference_mode():
        benchmark.pedantic(ENGINES[engine](layer), rounds=30, warmup_rounds=3)


@pytest.mark.benchmark(group="limits of the machine")
def test_popcount(benchmark) -> None:
    """XOR and popcount of eight filters over a row that the first cache holds."""
    call, macs = limit_call()
    benchmark.extra_info["flop"] = 2 * macs
    benchmark.pedantic(call, rounds=30, warmup_rounds=3)


NETWORKS = {
    "Bi-Real-18, 224 x 224": ({"network": "bi-real-18", "stem": "imagenet", "classes": 1000}, 224),
    "DARTS_V2, form paper, C = 36, 20 cells, 32 x 32": (
        {"network": "DARTS_V2", "channels": 36, "cells": 20},
        32,
    ),
}


@pytest.mark.parametrize("engine", ["packed", "simulated", "twin"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(benchmark, name: str, engine: str) -> None:
    """One image; the twin is the real-valued network in float32."""
    settings, side = NETWORKS[name]
    benchmark.group = f"packed network: {name}"
    if engine != "twin":
        benchmark.extra_info["baseline"] = f"test_network[{name}-twin]"
    network = build(**settings, precision="real" if engine == "twin" else "1bit").eval()
    run = pack(network) if engine == "packed" else network
    x = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        benchmark.pedantic(run, (x,), rounds=10, warmup_rounds=1)
