"""The exact rule of the 1-bit layers in plain PyTorch: the kernels' twin, for any device, dtype and derivative.

The rule (the kernels compute the same values bit for bit):

- The sum I of +-1 products is an integer, and the layer's value c = beta I; beta is multiplied in after the sum.
- Batch statistics come from the integer sums of I and I^2, divided once, in float64.
- The norm's value is (I - mean) gain + bias in float32, mean and gain rounded from float64.
- The sign after a norm is +1 where I >= mean, compared as integers (count I >= sum of I), where the norm has no
  affine part; where (I - mean) gain + bias >= 0 in float64 where it has one; and where beta I >= running mean in
  float64 where a norm without affine part evaluates with running statistics.

Derivatives are those of the usual layers, taken at these values: each step computes the usual layer, whose graph
is kept, and puts the exact value in the place of the rounded one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from search.kernels.norms import Norm


class _Value(torch.autograd.Function):
    """``value`` forward, the derivative of ``graph`` backward and in forward mode."""

    @staticmethod
    def forward(ctx: Any, graph: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return tangents[0].view_as(tangents[0])


def with_value(graph: Tensor, value: Tensor) -> Tensor:
    """``value`` with the derivatives of ``graph``, which has its shape."""
    return _Value.apply(graph, value.to(graph.dtype))


def signs(weight: Tensor) -> Tensor:
    """The signs of weights +-beta, also where beta is 0 (then -0.0 counts as negative)."""
    return torch.copysign(torch.ones_like(weight), weight).detach()


@dataclass(frozen=True)
class Records:
    """Statistics of a norm over integers, each (1, C, 1, 1) in float64; see ``c/norms.h``."""

    mean: Tensor
    gain: Tensor
    bias: Tensor
    plus: Tensor
    """Whether each integer of the map gives +1 (a boolean map)."""


@torch.no_grad()
def integer_records(
    integers: Tensor, beta: Tensor, gamma: Tensor | None, bias: Tensor | None, norm: Norm
) -> Records:
    """Statistics and signs of the norm over beta I.

    Args:
        integers: I, exact in any floating type, (N, C, H, W).
        beta: Scales, (C,).
        gamma, bias: The affine part, or None.
        norm: Its running statistics are updated where it has some and does not evaluate.
    """
    wide, beta = integers.double(), beta.double()
    count = integers.numel() // integers.shape[1]
    total = wide.sum(dim=(0, 2, 3))  # integers below 2^53: exact in any order
    offset = torch.zeros_like(beta)
    if norm.evaluate:
        assert norm.mean is not None and norm.var is not None
        running, var = norm.mean.double(), norm.var.double()
        mean = torch.where(beta > 0, running / beta, 0.0)
        root = torch.sqrt(var + norm.eps)
        offset = torch.where(beta > 0, 0.0, -running / root)
    else:
        squares = wide.square().sum(dim=(0, 2, 3)).long()
        spread = (count * squares - total.long() ** 2).double() / (float(count) * float(count))
        mean, var = total / count, beta * beta * spread
        root = torch.sqrt(var + norm.eps)
        if norm.mean is not None and norm.var is not None:
            update(norm, beta * mean, var, count)
    scale = torch.ones_like(beta) if gamma is None else gamma.detach().double()
    gain = beta / root * scale
    shift = offset * scale + (0.0 if bias is None else bias.detach().double())
    mean, gain, shift = (value.view(1, -1, 1, 1) for value in (mean, gain, shift))
    if gamma is not None:
        plus = (wide - mean) * gain + shift >= 0
    elif norm.evaluate:
        plus = beta.view(1, -1, 1, 1) * wide >= running.view(1, -1, 1, 1)
    else:
        plus = (count * wide >= total.view(1, -1, 1, 1)) | (beta.view(1, -1, 1, 1) == 0)
    return Records(mean, gain, shift, plus)


def update(norm: Norm, mean: Tensor, var: Tensor, count: int) -> None:
    """Move the running statistics towards the batch's, in float64 and rounded once."""
    assert norm.mean is not None and norm.var is not None
    unbiased = var * (count / (count - 1))
    for running, new in ((norm.mean, mean), (norm.var, unbiased)):
        running.copy_((1 - norm.momentum) * running.double() + norm.momentum * new)


def integer_norm(
    rounded: Tensor,
    integers: Tensor,
    weight: Tensor,
    gamma: Tensor | None,
    bias: Tensor | None,
    norm: Norm,
) -> tuple[Tensor, Tensor]:
    """The norm over beta I with its derivatives, and the signs of its exact values, +-1 without derivative.

    Args:
        rounded: c = beta I as the library computes it, with its graph.
        integers: I.
        weight: +-beta, (C, ...).
        gamma, bias, norm: The norm.
    """
    beta = weight.detach().flatten(1)[:, 0].abs()
    records = integer_records(integers, beta, gamma, bias, norm)
    graph = usual_norm(rounded, gamma, bias, norm)
    low = (value.to(rounded.dtype) for value in (records.mean, records.gain, records.bias))
    mean, gain, shift = low
    value = (integers.to(rounded.dtype) - mean) * gain + shift
    return with_value(graph, value), torch.where(records.plus, 1.0, -1.0).to(rounded.dtype)


def usual_norm(x: Tensor, gamma: Tensor | None, bias: Tensor | None, norm: Norm) -> Tensor:
    """The library's batch norm, which updates nothing."""
    mean, var = (norm.mean, norm.var) if norm.evaluate else (None, None)
    return F.batch_norm(x, mean, var, gamma, bias, not norm.evaluate, 0.0, norm.eps)
