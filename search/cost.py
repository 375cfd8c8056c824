"""Cost of a network: BOPs, W1A32 MACs, FLOPs, OPs, parameters and Mbit, per layer and in total.

Conventions:

* A MAC of a convolution or linear layer whose weight and input are both 1 bit is a **BOP**; with 1-bit
  weights and a wider input it is a **W1A32 MAC**; every other one is a **FLOP**, also where only the input is
  1 bit (stage 1 of two-stage training), because its sums have real terms.
* **OPs strict** = BOPs / 64 + W1A32 MACs + FLOPs; **OPs generous** = (BOPs + W1A32 MACs) / 64 + FLOPs.
* **Mbit** = (binary weights + 32 x every other parameter) / 10^6; a weight is binary if its quantiser says
  1 bit.
* Batch norm, activations, pooling, additions and scales are not counted; padding is counted like data.

Widths are read from ``.input_quantiser.precision`` and ``.weight_quantiser.precision`` of a layer, 32 where
it has none; no class is asked for. Nothing is computed: the network is copied to meta tensors and run there
in evaluation mode, so that a counted network stays as it is, on whatever device and in whatever mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch._dynamo  # loaded by torch at the first meta operation (2 s): here, so that counting is quick
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from search.errors import InputError

WORD = 64
"""1-bit MACs that one real MAC is worth (Bi-Real Net and everyone after it)."""
REAL_BITS = 32
Forward = Callable[[nn.Module, Tensor], Any]


class _Sums:
    """What follows from the counts; mixed into a layer's and a network's cost."""

    bops: int
    w1a32_macs: int
    flops: int
    parameters: int
    binary_weights: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates of convolutions and linear layers, whatever their width."""
        return self.bops + self.w1a32_macs + self.flops

    @property
    def ops_strict(self) -> int | float:
        """BOPs / 64 + W1A32 MACs + FLOPs; an integer where it is one."""
        return _exact(self.bops) + self.w1a32_macs + self.flops

    @property
    def ops_generous(self) -> int | float:
        """(BOPs + W1A32 MACs) / 64 + FLOPs; an integer where it is one."""
        return _exact(self.bops + self.w1a32_macs) + self.flops

    @property
    def mbit(self) -> float:
        """Memory of all parameters in 10^6 bits: 1 a binary weight, 32 every other parameter."""
        return (self.binary_weights + REAL_BITS * (self.parameters - self.binary_weights)) / 1e6


def _exact(bops: int) -> int | float:
    whole, rest = divmod(bops, WORD)
    return whole if rest == 0 else bops / WORD


@dataclass(frozen=True)
class LayerCost(_Sums):
    """Cost of one convolution or linear layer, all its calls together.

    Attributes:
        name: Dotted name in the network.
        kind: Class name.
        weight_bits, input_bits: Widths at the time of counting.
        output: Shape of the output of the first call, with the batch; empty if the layer did not run.
        calls: How often it ran; 0 for an auxiliary head.
        bops, w1a32_macs, flops: Multiply-accumulates by width.
        parameters: Its own parameters, scales and bias included, less those shared with an earlier layer.
        binary_weights: Weights of it that are stored in one bit.
    """

    name: str
    kind: str
    weight_bits: int
    input_bits: int
    output: tuple[int, ...]
    calls: int
    bops: int
    w1a32_macs: int
    flops: int
    parameters: int
    binary_weights: int


@dataclass(frozen=True)
class CostReport(_Sums):
    """Cost of a network at one input size.

    Attributes:
        input_shape: What was counted, (N, C, H, W); the MACs are those of the whole batch.
        layers: Every convolution and linear layer in registration order, those that did not run too.
        bops, w1a32_macs, flops, parameters, binary_weights: Totals; the parameters include the layers that
            are not listed (batch norm, PReLU, shifts).
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerCost, ...]
    bops: int
    w1a32_macs: int
    flops: int
    parameters: int
    binary_weights: int

    def to_dict(self) -> dict[str, int | float]:
        """The totals as ``python -m pipelines.cost --json`` names them; integers where they are exact."""
        return {
            "params": self.parameters,
            "binary_weights": self.binary_weights,
            "bops": self.bops,
            "w1a32_macs": self.w1a32_macs,
            "flops": self.flops,
            "macs": self.macs,
            "ops_strict": self.ops_strict,
            "ops_generous": self.ops_generous,
            "mbit": self.mbit,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One mapping a layer, for a table or a CSV file; the output's shape as text."""
        return [
            {**asdict(layer), "output": "x".join(map(str, layer.output)), "macs": layer.macs}
            for layer in self.layers
        ]

    def to_text(self, per_layer: bool = True) -> str:
        """The cost as a table for people: millions of MACs, three decimals."""
        table = _layer_table(self) + [""] if per_layer else []
        return "\n".join(table + _totals_table(self))


def _millions(value: float) -> str:
    return f"{value / 1e6:,.3f}"


def _layer_table(report: CostReport) -> list[str]:
    lines: list[tuple[str, ...]] = [
        ("layer", "W/A", "output", "calls", "params", "BOPs M", "W1A32 M", "FLOPs M")
    ]
    for layer in report.layers:
        widths = f"{layer.weight_bits}/{layer.input_bits}"
        shape = "x".join(map(str, layer.output[1:])) or "not run"
        macs = (_millions(value) for value in (layer.bops, layer.w1a32_macs, layer.flops))
        lines.append((layer.name, widths, shape, str(layer.calls), f"{layer.parameters:,}", *macs))
    rest = report.parameters - sum(layer.parameters for layer in report.layers)
    lines.append(("(norms, activations, shifts)", "", "", "", f"{rest:,}", "", "", ""))
    totals = (_millions(value) for value in (report.bops, report.w1a32_macs, report.flops))
    lines.append(("total", "", "", "", f"{report.parameters:,}", *totals))
    return _aligned(lines, left=1)


def _totals_table(report: CostReport) -> list[str]:
    lines = [
        ("parameters", f"{report.parameters:,}", "all, in numbers"),
        ("binary weights", f"{report.binary_weights:,}", "of these, stored in 1 bit"),
        ("memory", f"{report.mbit:,.3f}", "Mbit: 1 bit a binary weight, 32 every other parameter"),
        ("BOPs", _millions(report.bops), "M multiply-accumulates, 1-bit weights and inputs"),
        ("W1A32 MACs", _millions(report.w1a32_macs), "M, 1-bit weights and real inputs"),
        ("FLOPs", _millions(report.flops), "M, all other multiply-accumulates"),
        ("MACs", _millions(report.macs), "M in all"),
        ("OPs strict", _millions(report.ops_strict), "M = BOPs/64 + W1A32 MACs + FLOPs"),
        ("OPs generous", _millions(report.ops_generous), "M = (BOPs + W1A32 MACs)/64 + FLOPs"),
    ]
    width = max(len(value) for _, value, _ in lines)
    return [f"{name:<15}{value:>{width}}  {unit}" for name, value, unit in lines]


def _aligned(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns padded to their widest cell; the first ``left`` of them to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def count(module: nn.Module, input_shape: Sequence[int], forward: Forward | None = None) -> CostReport:
    """Count a network, of this suite or any other library.

    Args:
        module: The network; every ``nn.Conv*d``, transposed convolution and ``nn.Linear`` below it is counted
            each time it is called. Convolutions that a module computes without such a child are not seen.
        input_shape: (C, H, W) for one image, or (N, C, H, W) for a batch.
        forward: What to run, ``forward(network, images)``; by default ``network(images)``. For detectors and
            other modules whose ``forward`` wants more than images.

    Returns:
        Costs in exact integers. ``module`` is not changed.

    Raises:
        InputError: If the shape is none, or the network cannot take it.

    Examples:
        >>> count(nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 32, 32)).flops
        221184
    """
    shape = tuple(int(size) for size in input_shape)
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(f"input shape {shape}", allowed="(C, H, W) or (N, C, H, W), all positive")
    shape = shape if len(shape) == 4 else (1, *shape)
    network = _meta_copy(module).eval()
    layers = [item for item in network.named_modules() if isinstance(item[1], _COUNTED)]
    counters = [_Counter(name, layer) for name, layer in layers]
    with torch.no_grad():
        images = torch.empty(shape, dtype=_dtype(network), device="meta")
        if forward is None:
            network(images)
        else:
            forward(network, images)
    return _report(network, counters, shape)


_COUNTED = (_ConvNd, nn.Linear)
_SHAPE_KEEPING = {
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.PReLU,
    nn.ReLU,
    nn.Dropout,
}
"""Modules that cost nothing here and return their input's shape: skipped, which saves a third of the time."""


def _dtype(module: nn.Module) -> torch.dtype:
    kinds = [parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()]
    return kinds[0] if kinds else torch.get_default_dtype()


def _meta_copy(module: nn.Module) -> nn.Module:
    """A deep copy whose tensors are on the meta device; no weight is copied."""
    memo: dict[int, Any] = {}
    for child in module.modules():
        for parameter in child.parameters(recurse=False):
            memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for tensor in (*child.buffers(recurse=False), *vars(child).values()):
            if isinstance(tensor, Tensor):
                memo.setdefault(id(tensor), tensor.detach().to("meta"))
    copied = copy.deepcopy(module, memo)
    for child in copied.modules():
        if type(child) in _SHAPE_KEEPING:
            child.forward = _same  # type: ignore[method-assign]
    return copied


def _same(x: Tensor) -> Tensor:
    return x


class _Counter:
    """A forward hook on one layer that adds up its multiply-accumulates."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        self.name = name
        self.layer = layer
        self.calls = 0
        self.macs = 0
        self.output: tuple[int, ...] = ()
        layer.register_forward_hook(self._called)

    def _called(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        if isinstance(layer, _ConvTransposeNd):
            (x,) = inputs[:1]
            self.macs += x.numel() * (weight.numel() // layer.in_channels)
        else:
            self.macs += output.numel() * math.prod(weight.shape[1:])
        self.calls += 1
        self.output = self.output or tuple(output.shape)

    def cost(self, seen: set[int]) -> LayerCost:
        weight_bits, input_bits = _bits(self.layer, "weight_quantiser"), _bits(self.layer, "input_quantiser")
        new = [parameter for parameter in self.layer.parameters() if id(parameter) not in seen]
        seen.update(map(id, new))
        kind = "flops" if weight_bits != 1 else "bops" if input_bits == 1 else "w1a32_macs"
        macs = {name: self.macs if name == kind else 0 for name in ("bops", "w1a32_macs", "flops")}
        binary = weight_bits == 1 and any(parameter is self.layer.weight for parameter in new)
        return LayerCost(
            name=self.name,
            kind=type(self.layer).__name__,
            weight_bits=weight_bits,
            input_bits=input_bits,
            output=self.output,
            calls=self.calls,
            parameters=sum(parameter.numel() for parameter in new),
            binary_weights=self.layer.weight.numel() if binary else 0,  # type: ignore[operator, union-attr]
            **macs,
        )


def _bits(layer: nn.Module, quantiser: str) -> int:
    return int(getattr(getattr(layer, quantiser, None), "precision", REAL_BITS))


def _report(network: nn.Module, counters: Sequence[_Counter], shape: tuple[int, ...]) -> CostReport:
    seen: set[int] = set()
    layers = tuple(counter.cost(seen) for counter in counters)
    summed = ("bops", "w1a32_macs", "flops", "binary_weights")
    totals = {name: sum(getattr(layer, name) for layer in layers) for name in summed}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return CostReport(input_shape=shape, layers=layers, parameters=parameters, **totals)
