"""One 1-bit convolution as a packed program, and the same convolution by oneDNN in float32 and int8."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from downstream.packed.engine import _Plan
from downstream.packed.layers import Operation, Window
from downstream.packed.native import library
from downstream.packed.program import COLUMNS, Program, _Assembler

REPEATS = 8
LIMIT_REPEATS = 50


@dataclass(frozen=True)
class Layer:
    """A convolution that keeps its channels and size.

    Attributes:
        channels, side: Of its map.
        kernel: k; its padding keeps the size.
        depthwise: Whether every channel has one filter.
        packed: Whether input and output are packed; else both are float maps, and sign and norm are included.
    """

    channels: int
    side: int
    kernel: int
    depthwise: bool = False
    packed: bool = True

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.side**2 * self.channels * self.kernel**2 * (1 if self.depthwise else self.channels)

    @property
    def name(self) -> str:
        """For the table."""
        kind = "depthwise" if self.depthwise else "dense"
        how = "packed" if self.packed else "float"
        return f"{kind} {self.kernel}x{self.kernel}, C = {self.channels}, {self.side} x {self.side}, {how} in and out"


def packed_call(layer: Layer) -> Callable[[], None]:
    """Runs the layer :data:`REPEATS` times."""
    generator = np.random.default_rng(0)
    channels, groups = layer.channels, layer.channels if layer.depthwise else 1
    image = Operation("input", "", [], channels)
    storage = "planes" if layer.depthwise else "words"
    padding = layer.kernel // 2
    sign = Operation("sign", "sign", [image], channels, storage=storage, border=padding)  # type: ignore[arg-type]
    shape = (channels, channels // groups, layer.kernel, layer.kernel)
    signs = np.where(generator.random(shape) < 0.5, -1, 1).astype(np.int8)
    conv = Operation(
        "depthwise" if layer.depthwise else "binary",
        "conv",
        [sign],
        channels,
        window=Window(layer.kernel, 1, padding, 1, groups),
        weights=signs,
    )
    last = conv
    if layer.packed:
        conv.storage, conv.threshold = "words", np.zeros(channels, np.int16)
        # an output must be a map: a 1x1 convolution that is not timed reads the bits
        last = Operation("binary", "read", [conv], 8, weights=np.ones((8, channels, 1, 1), np.int8))
    else:
        floats = np.ones(channels, np.float32)
        conv.beta, conv.arrays = floats, {"scale": floats, "bias": floats}
    operations = [image, sign, conv] + ([last] if layer.packed else [])
    made = _Assembler(operations, {"out": last})
    rows = np.array([[row[name] for name in COLUMNS] for row in made.rows], dtype=np.int32)
    values = np.array(made.values, dtype=np.int32)
    program = Program(rows, values, made.tensors, {"out": made.index[id(last)]}, made.layers)
    plan = _Plan(library(), program, (layer.side, layer.side), ("out",))
    timed = [1] if layer.packed else [0, 1]

    def call() -> None:
        for operation in timed:
            plan.repeat(operation, REPEATS)

    return call


def float_call(layer: Layer) -> Callable[[], None]:
    """The same by oneDNN in float32, :data:`REPEATS` times."""
    x, weight, padding, groups = _tensors(layer)

    def call() -> None:
        for _ in range(REPEATS):
            torch.nn.functional.conv2d(x, weight, None, 1, padding, 1, groups)

    return call


def byte_call(layer: Layer) -> Callable[[], None]:
    """The same by oneDNN in int8, :data:`REPEATS` times: input and output bytes."""
    torch.backends.quantized.engine = "onednn"
    x, weight, padding, groups = _tensors(layer)
    bytes_in = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8).contiguous(
        memory_format=torch.channels_last
    )
    weights = torch.quantize_per_tensor(weight, 0.05, 0, torch.qint8)
    prepared = torch.ops.quantized.conv2d_prepack(weights, None, [1, 1], [padding] * 2, [1, 1], groups)

    def call() -> None:
        for _ in range(REPEATS):
            torch.ops.quantized.conv2d(bytes_in, prepared, 1.0, 128)

    return call


def _tensors(layer: Layer) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    torch.manual_seed(0)
    groups = layer.channels if layer.depthwise else 1
    x = torch.randn(1, layer.channels, layer.side, layer.side)
    weight = torch.randn(layer.channels, layer.channels // groups, layer.kernel, layer.kernel)
    return x, weight, layer.kernel // 2, groups


def limit_call(terms: int = 64, pixels: int = 64) -> tuple[Callable[[], None], int]:
    """The popcount kernel alone, and the multiply-accumulates of a call."""
    source = np.zeros(terms * pixels + 64, np.uint64)
    offsets = np.arange(terms, dtype=np.int32) * pixels
    weights = np.zeros(8 * terms, np.uint64)
    counts = np.zeros(8 * (pixels + 8), np.uint16)
    function = library().count_block
    function.restype = None
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    function.argtypes = [pointer, pointer, integer, pointer, integer, pointer, integer]
    places = [array.ctypes.data for array in (source, offsets, weights, counts)]
    kept = (source, offsets, weights, counts)

    def call() -> None:
        for _ in range(LIMIT_REPEATS):
            function(places[0], places[1], terms, places[2], pixels, kept[3].ctypes.data, pixels + 8)

    return call, LIMIT_REPEATS * 8 * 64 * terms * pixels
