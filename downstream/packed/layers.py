"""Operations of a packed network: what a convolution becomes, and which layers have no packed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from downstream.packed.steps import Floats, Step, to_floats
from search.binary import QuantConv2d, Real, sign
from search.errors import InputError

Storage = Literal["map", "words", "planes"]
LARGEST_DEPTHWISE = 11
"""Depthwise sums are bytes: 11 x 11 taps give at most 121."""
LARGEST_SUM = 32766
"""Other 1-bit sums and their thresholds are 16 bits."""
EPILOGUE = ("scale", "addend", "before", "slope", "after")
"""What an operation does with each output, in this order: scale and bias, another map, a shift, a PReLU, a shift."""


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution or pool, the same for rows and columns."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    ceil: int = 0


@dataclass(eq=False)
class Operation:
    """One operation and the value that it makes.

    Attributes:
        kind: ``input``, ``sign``, ``shift``, ``binary``, ``depthwise``, ``real``, ``channel``, ``max``, ``average``,
            ``mean``, ``cat`` or ``zero``.
        name: Dotted name of the layer or of the module it comes from.
        inputs: What it reads.
        channels: Of its value.
        storage: ``map`` (float32), ``words`` (64 channels a word) or ``planes`` (bytes of +-1).
        parts: Groups of channels that begin a word of their own.
        border, fill: Width and value of what surrounds each plane of words or bytes.
        window: Geometry.
        weights: Signs (+-1, int8) or floats, (C', C / groups, k, k).
        beta: Scale of each sum, or None.
        arrays: The epilogue's arrays, (C',) each.
        addend: The map that the epilogue adds.
        steps: Of a ``channel`` operation, before they are folded.
        threshold: (C',) where the value is stored as words or planes.
    """

    kind: str
    name: str
    inputs: list[Operation]
    channels: int
    storage: Storage = "map"
    parts: int = 1
    border: int = 0
    fill: int = 0
    window: Window = Window()
    weights: NDArray[Any] | None = None
    beta: Floats | None = None
    arrays: dict[str, Floats] = field(default_factory=dict)
    addend: Operation | None = None
    steps: list[Step] = field(default_factory=list)
    threshold: NDArray[np.int16] | None = None

    @property
    def sources(self) -> list[Operation]:
        """Everything it reads."""
        return self.inputs + ([] if self.addend is None else [self.addend])

    @property
    def largest(self) -> int:
        """The largest sum of a 1-bit convolution."""
        assert self.weights is not None
        return int(np.prod(self.weights.shape[1:]))


def convolution(layer: nn.Conv2d, name: str, source: Operation) -> Operation:
    """The operation of a convolution, 1-bit where weights and input are; its input is not quantised yet.

    Raises:
        InputError: Where it has no packed form.
    """
    window = _window(layer, name)
    make = Operation("real", name, [source], layer.out_channels, window=window)
    weight_bits = layer.weight_quantiser.precision if isinstance(layer, QuantConv2d) else 32
    input_bits = layer.input_quantiser.precision if isinstance(layer, QuantConv2d) else 32
    if input_bits == 1 and weight_bits != 1:
        raise InputError(
            "has 1-bit inputs and real weights, so it cannot be packed",
            where=name,
            mend="give a network whose recipe has ended with 1-bit weights",
        )
    if isinstance(layer, QuantConv2d) and weight_bits == 1:
        weight = layer.weight.detach().cpu()
        make.weights = sign(weight).to(torch.int8).numpy()
        beta = layer.weight_quantiser.beta(weight)  # type: ignore[operator]
        make.beta = to_floats(beta.expand(layer.out_channels, 1, 1, 1))
    else:
        make.weights = layer.weight.detach().cpu().float().numpy()
    if input_bits == 1:
        depthwise = layer.groups == layer.in_channels == layer.out_channels
        make.kind = "depthwise" if depthwise else "binary"
        _check_sums(make)
    if layer.bias is not None:
        make.arrays["before"] = to_floats(layer.bias)
    return make


def _window(layer: nn.Conv2d, name: str) -> Window:
    pairs = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    if any(isinstance(pair, str) or len(set(pair)) > 1 for pair in pairs) or layer.padding_mode != "zeros":
        raise InputError("only square convolutions with constant padding can be packed", where=name)
    kernel, stride, padding, dilation = (int(pair[0]) for pair in pairs)
    return Window(kernel, stride, padding, dilation, layer.groups)


def _check_sums(made: Operation) -> None:
    if made.kind == "depthwise" and made.window.kernel > LARGEST_DEPTHWISE:
        raise InputError(
            f"is a depthwise 1-bit convolution of {made.window.kernel} x {made.window.kernel}",
            where=made.name,
            allowed=f"up to {LARGEST_DEPTHWISE} x {LARGEST_DEPTHWISE}",
        )
    if made.largest > LARGEST_SUM or made.window.kernel > 31:
        raise InputError(
            f"sums {made.largest} products of 1 bit", where=made.name, allowed=f"up to {LARGEST_SUM}"
        )


def fill_of(layer: QuantConv2d) -> int:
    """What surrounds the quantised input."""
    return int(layer.pad_value)


def relu_of(layer: nn.Conv2d) -> bool:
    """Whether a real-valued convolution's input passes a ReLU first."""
    quantiser = layer.input_quantiser if isinstance(layer, QuantConv2d) else None
    return isinstance(quantiser, Real) and quantiser.relu
