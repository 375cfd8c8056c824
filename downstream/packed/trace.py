"""What a network computes, as a graph of layers, by running it once on tensors without data.

Any network is read that consists of the layers in :data:`LAYERS` and the functions in :data:`_FUNCTIONS`; a layer or
function beyond them is refused by name. Nothing is assumed about how blocks call their layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from downstream.handmade import Shift
from search.binary import QuantConv2d, Quantiser, Shared, value_of
from search.errors import InputError
from search.operations import Zero

LAYERS = (
    QuantConv2d,
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.PReLU,
    nn.ReLU,
    Shift,
    nn.MaxPool2d,
    nn.AvgPool2d,
    Zero,
)
"""Layers that become nodes."""
NOTHING = (nn.Identity, nn.Dropout)
"""Layers that pass their input on in evaluation."""
SHIFT = (slice(None), slice(None), slice(1, None), slice(1, None))


@dataclass(eq=False)
class Node:
    """One value and how it is made.

    Attributes:
        kind: ``input``, ``layer``, or the function: ``add``, ``cat``, ``max``, ``average``, ``mean``, ``relu``,
            ``shift``.
        name: Dotted name of the layer, or of the module that called the function.
        inputs: What it is made from.
        settings: Window, stride, padding and ceil mode of a pool.
        shape: Of its one image: (C, H, W), or (C,) after the global average.
    """

    kind: str
    name: str
    inputs: tuple[Node, ...]
    shape: tuple[int, ...]
    settings: tuple[Any, ...] = ()


@dataclass
class Graph:
    """A traced network.

    Attributes:
        nodes: In an order in which they can be computed; the first is the image.
        outputs: Named values, such as ``logits`` and ``stride8``.
        layers: The layers by dotted name.
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, Node] = field(default_factory=dict)
    layers: dict[str, nn.Module] = field(default_factory=dict)


class _Recorder(TorchFunctionMode):
    """Records the layers and functions that tensors pass through; equal ones on equal inputs are one node."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        node = Node("input", "", (), tuple(image.shape[1:]))
        self.nodes = [node]
        self.known: dict[tuple[Any, ...], Node] = {}
        self.kept: dict[int, tuple[Tensor, Node]] = {id(image): (image, node)}
        self.callers: list[str] = [""]
        self.inside = False

    def node(self, x: Tensor | Shared) -> Node:
        tensor = value_of(x)
        if id(tensor) not in self.kept:
            raise InputError("reads a tensor that is not computed from the image", where=self.callers[-1])
        return self.kept[id(tensor)][1]

    def record(
        self, kind: str, name: str, inputs: tuple[Node, ...], out: Tensor, settings: Any = ()
    ) -> Tensor:
        key = (kind, name if kind == "layer" else "", tuple(map(id, inputs)), settings)
        if key not in self.known:
            self.known[key] = Node(kind, name, inputs, tuple(out.shape[1:]), settings)
            self.nodes.append(self.known[key])
        self.kept[id(out)] = (out, self.known[key])
        return out

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.inside or not isinstance(out, Tensor):
            return out
        name = func.__name__
        if name not in _FUNCTIONS:
            raise InputError(f"calls the function {name}, which has no packed form", where=self.callers[-1])
        kind, inputs, settings = _FUNCTIONS[name](args, kwargs)
        nodes = tuple(self.node(x) for x in inputs)
        if kind == "same" or (kind == "pad" and _evens(nodes[0], settings)):
            self.kept[id(out)] = (out, nodes[0])
            return out
        if kind in ("pad", "slice", "resize"):
            raise InputError(f"calls {name}{settings}, which has no packed form", where=self.callers[-1])
        return self.record(kind, self.callers[-1], nodes, out, settings)


def _evens(node: Node, padding: tuple[Any, ...]) -> bool:
    """Whether ``padding`` only evens an odd size after a shift, which is how a shift is defined here."""
    height, width = node.inputs[0].shape[1:] if node.kind == "shift" else (0, 0)
    return node.kind == "shift" and padding == ((0, width % 2, 0, height % 2), "constant", 0.0)


Call = tuple[str, tuple[Any, ...], tuple[Any, ...]]


def _pair(value: Any) -> int:
    """A setting that must be the same for rows and columns; -1 where it is not."""
    if isinstance(value, int):
        return value
    numbers = set(value)
    return int(numbers.pop()) if len(numbers) == 1 else -1


def pool_settings(kernel: Any, stride: Any, padding: Any, ceil_mode: Any) -> tuple[int, int, int, int]:
    """Window, stride, padding, ceil mode of a square pool; -1 for what is not square."""
    return (
        _pair(kernel),
        _pair(kernel if stride in (None, ()) else stride),
        _pair(padding),
        int(bool(ceil_mode)),
    )


def _max(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, **more: Any
) -> Call:
    settings = pool_settings(kernel_size, stride, padding, more.get("ceil_mode", False))
    return ("max" if _pair(dilation) == 1 else "resize"), (x,), settings


def _average(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Call:
    settings = pool_settings(kernel_size, stride, padding, ceil_mode)
    plain = divisor_override is None and (settings[2] == 0 or not count_include_pad)
    return ("average" if plain else "resize"), (x,), settings


def _adaptive(x: Any, output_size: Any) -> Call:
    return (
        ("mean" if _pair(output_size) == 1 else "resize"),
        (x,),
        (() if _pair(output_size) == 1 else (output_size,)),
    )


def _mean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Call:
    """The global average; a packed network computes it in float64, whatever ``dtype`` says, and rounds once."""
    spatial = isinstance(dim, tuple | list) and sorted(dim) in ([2, 3], [-2, -1])
    return ("mean", (x,), ()) if spatial else ("resize", (x,), (str(dim),))


def _cast(x: Any, *how: Any, **more: Any) -> Call:
    """A change between float types: packed values are float32, and so is what leaves a global average."""
    floats = not more and how in ((torch.float32,), (torch.float64,))
    return ("same", (x,), ()) if floats else ("slice", (x,), (str(how),))


def _slice(x: Any, index: Any) -> Call:
    return ("shift", (x,), ()) if index == SHIFT else ("slice", (x,), (str(index),))


def _pad(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Call:
    return "pad", (x,), (tuple(pad), mode, float(value or 0.0))


def _cat(tensors: Any, dim: int = 0) -> Call:
    return ("cat" if dim == 1 else "slice"), tuple(tensors), (() if dim == 1 else (dim,))


def _add(a: Any, b: Any) -> Call:
    return "add", (a, b), ()


def _wrap(function: Callable[..., Call]) -> Callable[[Any, Any], Call]:
    return lambda args, kwargs: function(*args, **kwargs)


_FUNCTIONS: dict[str, Callable[[Any, Any], Call]] = {
    **{name: _wrap(_add) for name in ("add", "__add__", "__radd__")},
    **{name: _wrap(_max) for name in ("max_pool2d", "_max_pool2d")},
    **{name: _wrap(lambda x, *a, **k: ("same", (x,), ())) for name in ("flatten", "contiguous", "detach")},
    "avg_pool2d": _wrap(_average),
    "adaptive_avg_pool2d": _wrap(_adaptive),
    "mean": _wrap(_mean),
    "to": _wrap(_cast),
    "relu": _wrap(lambda x, inplace=False: ("relu", (x,), ())),
    "cat": _wrap(_cat),
    "pad": _wrap(_pad),
    "__getitem__": _wrap(_slice),
}


def trace(network: nn.Module, size: tuple[int, int]) -> Graph:
    """The graph of a network at an input size.

    Args:
        network: A network of :func:`downstream.models.build`; it is left as it is.
        size: Height and width of the image.

    Raises:
        InputError: If a layer or function has no packed form; the message names it.
    """
    twin = copy.deepcopy(network).to("meta").eval()
    channels = next((m.in_channels for m in twin.modules() if isinstance(m, nn.Conv2d)), 3)
    image = torch.empty(1, channels, *size, device="meta")
    recorder = _Recorder(image)
    graph = Graph(layers=dict(network.named_modules()))
    for name, module in twin.named_modules():
        _intercept(module, name, recorder)
    with torch.no_grad(), recorder:
        graph.outputs["logits"] = recorder.node(twin(image))
        graph.outputs["embedding"] = recorder.node(twin.embed(image))  # type: ignore[operator]
        for stride, value in sorted(twin.forward_features(image).items()):  # type: ignore[operator]
            graph.outputs[f"stride{stride}"] = recorder.node(value)
    graph.nodes = list(_reachable(recorder.nodes, graph.outputs))
    return graph


def _intercept(module: nn.Module, name: str, recorder: _Recorder) -> None:
    original = module.forward
    if isinstance(module, Quantiser):
        return

    def layer(x: Tensor | Shared) -> Tensor:
        node = recorder.node(x)
        recorder.inside = True
        try:
            out = original(x)
        finally:
            recorder.inside = False
        if isinstance(module, NOTHING):
            recorder.kept[id(out)] = (out, node)
            return out
        return recorder.record("layer", name, (node,), out)

    def block(*args: Any, **kwargs: Any) -> Any:
        recorder.callers.append(name)
        try:
            return original(*args, **kwargs)
        finally:
            recorder.callers.pop()

    module.forward = layer if isinstance(module, LAYERS + NOTHING) else block  # type: ignore[method-assign]


def _reachable(nodes: list[Node], outputs: dict[str, Node]) -> Iterator[Node]:
    needed = {id(node) for node in outputs.values()}
    for node in reversed(nodes):
        if id(node) in needed:
            needed.update(id(source) for source in node.inputs)
    return (node for node in nodes if id(node) in needed or node.kind == "input")
