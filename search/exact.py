"""Small layers that are computed in float64 and rounded once, so that a machine's vector width leaves no trace.

A float32 sum depends on its order, and a float32 exponential on the library's vector code; both differ between
instruction sets in the last bits, and a search repeats those in all that follows. In float64 they differ by 1e-16
relative, which the rounding to float32 removes but for about one value in 10^8. They read small maps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(x)``; under autocast the layer itself, in the precision that autocast chooses."""
    if x.device.type == "meta" or torch.is_autocast_enabled(x.device.type) or layer._forward_hooks:
        return layer(x)
    bias = None if layer.bias is None else layer.bias.double()
    return F.linear(x.double(), layer.weight.double(), bias).to(x.dtype)


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over height and width: (N, C, H, W) to (N, C)."""
    return x.mean(dim=(2, 3), dtype=torch.float64).to(x.dtype)


def cross_entropy(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """``F.cross_entropy``, options as there."""
    return F.cross_entropy(logits.double(), labels, **options).to(logits.dtype)


def softmax(x: Tensor, dim: int) -> Tensor:
    """``torch.softmax``."""
    return torch.softmax(x.double(), dim).to(x.dtype)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """``torch.log_softmax``."""
    return torch.log_softmax(x.double(), dim).to(x.dtype)


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    """``torch.randn``."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(torch.get_default_dtype())


def drawn_in_float64(init: Callable[..., None]) -> Callable[..., None]:
    """For a module's ``__init__``: draw the initial weights in float64, then round them to the usual type."""

    @wraps(init)
    def wrapped(self: nn.Module, *arguments: Any, **named: Any) -> None:
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            init(self, *arguments, **named)
        finally:
            torch.set_default_dtype(usual)
        self.to(usual)

    return wrapped
