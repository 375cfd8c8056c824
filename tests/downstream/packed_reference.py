"""What packed networks are compared with: the simulated network with its sums in the order of the kernels."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from downstream.handmade import Shift
from downstream.packed.steps import step_of, to_floats
from search import exact
from search.binary import QuantConv2d, Shared, sign, value_of


def _terms(columns: Tensor, weight: Tensor) -> Tensor:
    """Sums of products, one term after the other: (N, T, L) and (C', T) give (N, C', L)."""
    total = torch.zeros(len(columns), len(weight), columns.shape[2])
    for term in range(weight.shape[1]):
        total = total + columns[:, term, None] * weight[None, :, term, None]
    return total


def _convolve(conv: nn.Conv2d, x: Tensor | Shared) -> Tensor:
    """Signs are summed exactly in any order; real terms in the order of channel, row, column; then the scale."""
    x, weight, scale, padding = value_of(x), conv.weight, None, conv.padding
    binary_input = False
    if isinstance(conv, QuantConv2d):
        x = conv.input_quantiser(x)
        binary_input = conv.input_quantiser.precision == 1
        if conv.weight_quantiser.precision == 1:
            weight, scale = sign(weight), conv.weight_quantiser.beta(weight).view(1, -1, 1, 1)
        if conv.pad_value:
            x = F.pad(x, 2 * (padding[1],) + 2 * (padding[0],), value=conv.pad_value)
            padding = (0, 0)
    how = (conv.stride, padding, conv.dilation)
    size = F.conv2d(x[:1], weight, None, *how, conv.groups).shape[2:]
    if binary_input:
        y = F.conv2d(x, weight, None, *how, conv.groups)
    else:
        parts = zip(x.chunk(conv.groups, 1), weight.chunk(conv.groups), strict=True)
        unfold = {"stride": conv.stride, "padding": padding, "dilation": conv.dilation}
        sums = [_terms(F.unfold(part, w.shape[2:], **unfold), w.flatten(1)) for part, w in parts]
        y = torch.cat(sums, 1).unflatten(2, size)
    if scale is None:
        return y
    scaled = y * scale
    if binary_input:
        scaled.sums_and_beta = (y, scale.flatten())
    return scaled


def _normalise(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """(x - centre) scale + bias, rounded after each operation; of a 1-bit convolution on its sums."""
    step = step_of(norm, "norm", norm.num_features)
    sums, beta = getattr(x, "sums_and_beta", (x, None))
    arrays = step.affine() if beta is None else step.over_sums(to_floats(beta))
    centre, scale, bias = (torch.from_numpy(arrays[k]).view(1, -1, 1, 1) for k in ("centre", "scale", "bias"))
    return (sums - centre) * scale + bias


def _classify(linear: nn.Linear, x: Tensor) -> Tensor:
    return _terms(x[:, :, None], linear.weight)[:, :, 0] + linear.bias


class _InOrder(TorchFunctionMode):
    """The global average in float64, rounded once; a concatenation keeps the sums of what it joins."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ == "adaptive_avg_pool2d":
            return exact.spatial_mean(args[0])[:, :, None, None]
        out = func(*args, **(kwargs or {}))
        if func.__name__ == "cat" and all(hasattr(part, "sums_and_beta") for part in args[0]):
            sums, betas = zip(*(part.sums_and_beta for part in args[0]), strict=True)
            out.sums_and_beta = (torch.cat(sums, 1), torch.cat(betas))
        return out


def in_order(network: nn.Module, kernels: bool) -> nn.Module:
    """A copy of the simulated network whose sums are in the order of the packed kernels, by PyTorch's functions.

    With ``kernels`` the cells of a found network are left as they are: the training kernels compute them.
    """
    network = copy.deepcopy(network)
    rules = ((nn.Conv2d, _convolve), (nn.BatchNorm2d, _normalise), (nn.Linear, _classify))
    for name, module in network.named_modules():
        if kernels and name.startswith("cells."):
            continue
        for kind, forward in rules:
            if isinstance(module, kind):
                module.forward = types.MethodType(forward, module)
                module.register_forward_hook(
                    lambda *_: None
                )  # no kernel computes a layer that is listened to

    def within(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        def ordered(x: Tensor) -> Any:
            with _InOrder():
                return function(x)

        return ordered

    network.forward_features = within(network.forward_features)
    network.embed = within(network.embed)
    network.forward = lambda x: network.classifier(network.embed(x))
    return network


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Give norms, shifts and PReLUs drawn values, as after training; scales of both signs. Returns the network."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            draw(module.running_mean, -0.5, 0.5)
            draw(module.running_var, 0.5, 2.0)
            if module.weight is not None:
                draw(module.weight, -1.5, 1.5)
                draw(module.bias, -0.5, 0.5)
        elif isinstance(module, Shift):
            draw(module.bias, -0.5, 0.5)
        elif isinstance(module, nn.PReLU):
            draw(module.weight, 0.0, 0.5)
    return network.eval()


class Pair(nn.Module):
    """Two 1-bit convolutions with norms, for tests of the kernels: the first one's outputs stay packed."""

    def __init__(self, first: QuantConv2d, second: QuantConv2d, norm: bool = True) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.first_norm = nn.BatchNorm2d(first.out_channels)
        self.second_norm = nn.BatchNorm2d(second.out_channels) if norm else nn.Identity()
        self.classifier = nn.Linear(second.out_channels, 3)
        self.architecture = {"stem": "cifar"}
        self.architecture_hash = "test"

    def forward_features(self, x: Tensor) -> dict[int, Tensor]:
        return {1: self.second_norm(self.second(self.first_norm(self.first(x))))}

    def embed(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.forward_features(x)[1], 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))
