"""What stands between two convolutions, channel by channel: norms, shifts, PReLUs; and thresholds that replace them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from downstream.handmade import Shift
from search.errors import InputError

Floats = NDArray[np.float32]
CHUNK = 512
"""Sums whose norm is evaluated at a time."""


@dataclass(frozen=True)
class Step:
    """One function of a value and its channel.

    Attributes:
        kind: ``norm`` (batch norm with running statistics), ``bias`` (+ b) or ``slope`` (PReLU, ReLU with slope 0).
        tensors: Mean, variance, weight and bias of a norm; b; or the slopes. Each (C,).
        eps: Of a norm.
        affine_part: Whether the norm has weights of its own.
    """

    kind: str
    tensors: tuple[Tensor, ...]
    eps: float = 0.0
    affine_part: bool = True

    def part(self, start: int, stop: int) -> Step:
        """The step for channels from ``start`` to ``stop``."""
        return replace(self, tensors=tuple(tensor[start:stop] for tensor in self.tensors))

    def apply(self, x: Tensor) -> Tensor:
        """The value of the simulated network's own function at ``x``, (N, C)."""
        if self.kind == "norm":
            mean, variance, weight, bias = self.tensors
            return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.eps)
        if self.kind == "bias":
            return x + self.tensors[0]
        return F.prelu(x, self.tensors[0])

    def affine(self) -> dict[str, Floats]:
        """A norm as ``(x - centre) * scale + bias``, each rounded once from float64."""
        mean, scale, bias = self.over(torch.ones(len(self.tensors[0])))
        return {"centre": to_floats(mean), "scale": to_floats(scale), "bias": to_floats(bias)}

    def over_sums(self, beta: Floats) -> dict[str, Floats]:
        """The same for sums that are not scaled yet: the norm of ``beta * sum``."""
        mean, scale, bias = self.over(torch.from_numpy(beta))
        return {"centre": to_floats(mean), "scale": to_floats(scale), "bias": to_floats(bias)}

    def over(self, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centre, scale and bias over sums, float64: the rule of the training kernels (search.kernels.plain)."""
        mean, variance, weight, bias = (tensor.double() for tensor in self.tensors)
        beta, root = beta.double(), torch.sqrt(variance + self.eps)
        centre = torch.where(beta > 0, mean / beta, 0.0)
        offset = torch.where(beta > 0, 0.0, -mean / root)
        return centre, beta / root * weight, offset * weight + bias

    def positive(self, sums: Tensor, beta: Tensor) -> Tensor:
        """Where the norm of ``beta * sum`` is not negative, in float64; (N, C) from (N, 1)."""
        if not self.affine_part:
            return beta.double() * sums.double() >= self.tensors[0].double()
        centre, scale, bias = self.over(beta)
        return (sums.double() - centre) * scale + bias >= 0


def to_floats(x: Tensor) -> Floats:
    """A tensor as a float32 array of one dimension."""
    return np.ascontiguousarray(x.detach().cpu().float().reshape(-1).numpy())


def step_of(layer: nn.Module, name: str, channels: int) -> Step:
    """The step that a layer stands for.

    Raises:
        InputError: For a batch norm that uses the batch's own statistics: it is no function of one value.
    """
    if isinstance(layer, nn.BatchNorm2d):
        if layer.running_mean is None or layer.running_var is None:
            raise InputError(
                "batch norm without running statistics depends on the batch, so it cannot be packed",
                where=name,
            )
        ones, zeros = torch.ones(channels), torch.zeros(channels)
        weight = ones if layer.weight is None else layer.weight
        bias = zeros if layer.bias is None else layer.bias
        tensors = (layer.running_mean, layer.running_var, weight, bias)
        return Step("norm", tuple(t.detach().cpu().float() for t in tensors), layer.eps, layer.affine)
    if isinstance(layer, Shift):
        return Step("bias", (layer.bias.detach().cpu().reshape(-1),))
    if isinstance(layer, nn.PReLU):
        return Step("slope", (layer.weight.detach().cpu().expand(channels).contiguous(),))
    return Step("slope", (torch.zeros(channels),))


@dataclass(frozen=True)
class Thresholds:
    """A bit as a comparison: +1 where the sum is at least the threshold, after negating some filters.

    Attributes:
        values: (C,), int16; one above the largest sum where the bit is never +1.
        flipped: (C,), channels whose filters change sign, because their bit falls with the sum.
    """

    values: NDArray[np.int16]
    flipped: NDArray[np.bool_]


@torch.no_grad()
def find_thresholds(steps: Sequence[Step], beta: Tensor, largest: int, name: str) -> Thresholds | None:
    """Thresholds by evaluating ``steps`` at every possible sum; a norm alone in float64, as training does.

    Args:
        steps: What lies between the sum and the sign.
        beta: Scale of each channel's sum, (C,).
        largest: The sums lie between ``-largest`` and ``largest``.
        name: For messages.

    Returns:
        None where a channel's bit changes more than once, as after a PReLU with a negative slope.
    """
    if not all(torch.isfinite(tensor).all() for step in steps for tensor in step.tensors):
        raise InputError("has a norm that is not finite, so it cannot be packed", where=name)
    bits = []
    for start in range(-largest, largest + 1, CHUNK):
        sums = torch.arange(start, min(start + CHUNK, largest + 1), dtype=torch.float32)
        if len(steps) == 1 and steps[0].kind == "norm":
            bits.append(steps[0].positive(sums[:, None], beta))
            continue
        x = sums[:, None] * beta[None, :]
        for step in steps:
            x = step.apply(x)
        bits.append(x >= 0)
    positive = torch.cat(bits).numpy()
    changes = positive[1:] != positive[:-1]
    if (changes.sum(axis=0) > 1).any():
        return None
    flipped = positive[0] & ~positive[-1]
    first = np.where(positive.any(axis=0), positive.argmax(axis=0), len(positive)) - largest
    last = len(positive) - 1 - positive[::-1].argmax(axis=0) - largest
    return Thresholds(np.where(flipped, -last, first).astype(np.int16), flipped)
