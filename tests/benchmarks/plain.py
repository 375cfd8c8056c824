"""The 1-bit simulation as such code is usually written: the baseline that ours is timed against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.binary import QuantConv2d, SignActivation, SignWeight


class PlainSign(nn.Module):
    """sign with the Bi-Real gradient as a chain of elementwise operations and ``detach``."""

    precision = 1

    def forward(self, x: Tensor) -> Tensor:
        forward = torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))
        left = torch.where(x < -1, -torch.ones_like(x), torch.where(x < 0, x * x + 2 * x, 2 * x - x * x))
        smooth = torch.where(x < 1, left, torch.ones_like(x))
        return forward.detach() - smooth.detach() + smooth


class PlainWeight(nn.Module):
    """XNOR-Net weights by ``detach`` and ``clamp``."""

    precision = 1

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.abs().mean(dim=(1, 2, 3), keepdim=True).detach()
        hard = scale * torch.where(weight >= 0, torch.ones_like(weight), -torch.ones_like(weight))
        soft = torch.clamp(weight, -1.0, 1.0)
        return hard.detach() - soft.detach() + soft


def make_plain(network: nn.Module) -> nn.Module:
    """Replace all quantisers of a network by the plain ones, and its memory format by NCHW."""
    for module in list(network.modules()):
        if isinstance(module, QuantConv2d):
            if isinstance(module.input_quantiser, SignActivation):
                module.input_quantiser = PlainSign()  # type: ignore[assignment]
            if isinstance(module.weight_quantiser, SignWeight):
                module.weight_quantiser = PlainWeight()  # type: ignore[assignment]
    return network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]
