"""The 1-bit simulation as such code is usually written: the baseline that ours is timed against."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.binary import QuantConv2d, Quantiser, Shared, SignActivation, SignWeight, value_of


class PlainSign(Quantiser):
    """sign with the Bi-Real gradient as a chain of elementwise operations and ``detach``."""

    precision = 1

    def forward(self, x: Tensor) -> Tensor:
        forward = torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))
        left = torch.where(x < -1, -torch.ones_like(x), torch.where(x < 0, x * x + 2 * x, 2 * x - x * x))
        smooth = torch.where(x < 1, left, torch.ones_like(x))
        return forward.detach() - smooth.detach() + smooth


class PlainWeight(Quantiser):
    """XNOR-Net weights by ``detach`` and ``clamp``."""

    precision = 1

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.abs().mean(dim=(1, 2, 3), keepdim=True).detach()
        hard = scale * torch.where(weight >= 0, torch.ones_like(weight), -torch.ones_like(weight))
        soft = torch.clamp(weight, -1.0, 1.0)
        return hard.detach() - soft.detach() + soft


def convolve(conv: QuantConv2d, input: Tensor | Shared) -> Tensor:
    """Every convolution quantises its own input, and takes the library's convolution as it comes."""
    x, weight = conv.input_quantiser(value_of(input)), conv.weight_quantiser(conv.weight)
    return F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)


def make_plain(network: nn.Module) -> nn.Module:
    """Replace all quantisers and convolutions of a network by the plain ones, and its memory format by NCHW."""
    for module in list(network.modules()):
        if isinstance(module, QuantConv2d):
            if isinstance(module.input_quantiser, SignActivation):
                module.input_quantiser = PlainSign()
            if isinstance(module.weight_quantiser, SignWeight):
                module.weight_quantiser = PlainWeight()
            module.forward = functools.partial(convolve, module)  # type: ignore[method-assign]
    return network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]
