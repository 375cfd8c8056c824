"""Depthwise convolutions whose gradients avoid the slow cases of the CPU's library (tests/benchmarks measures them).

oneDNN's gradient in the input falls back to a dense kernel, ten to a hundred times slower, where the kernel is
dilated. Two identities lead around it; both change results by rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """``F.conv2d`` without bias where every channel has one filter; the same value for any arguments.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, k, k).
        stride, padding, dilation: As in ``F.conv2d``, for height and width.
    """
    if max(dilation) == 1 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.conv2d(x, weight, None, stride, padding, dilation, len(weight))
    if stride == dilation and not any(p % s for p, s in zip(padding, stride, strict=True)):
        # Output i reads the inputs i s - p + j d = s (i - p / s + j): only every s-th, which lie side by side
        # once the others are left out.
        kept = x[:, :, :: stride[0], :: stride[1]]
        inside = (padding[0] // stride[0], padding[1] // stride[1])
        return F.conv2d(kept, weight, None, 1, inside, 1, len(weight))
    sizes = zip(padding, dilation, weight.shape[2:], strict=True)
    if stride == (1, 1) and all(2 * p == d * (k - 1) for p, d, k in sizes):
        return _Same.apply(x, weight, padding, dilation)
    return F.conv2d(x, weight, None, stride, padding, dilation, len(weight))


class _Same(torch.autograd.Function):
    """A dilated depthwise convolution that keeps the size.

    Its gradient in the input is the convolution of the output's gradient with the filters turned by 180
    degrees, which is computed as such: as a forward convolution, the kind that is fast.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> Tensor:
        ctx.padding, ctx.dilation = padding, dilation
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        in_x = in_weight = None
        if ctx.needs_input_grad[0]:
            in_x = _Same.apply(gradient, weight.flip(2, 3), ctx.padding, ctx.dilation)
        if ctx.needs_input_grad[1]:
            only_weight = [False, True, False]
            how = ([1, 1], ctx.padding, ctx.dilation, False, [0, 0], len(weight), only_weight)
            in_weight = torch.ops.aten.convolution_backward(gradient, x, weight, None, *how)[1]
        return in_x, in_weight, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        x, weight = ctx.saved_tensors
        pairs = [(tangents[0], weight), (x, tangents[1])]
        terms = [
            F.conv2d(a, b, None, 1, ctx.padding, ctx.dilation, len(weight))
            for a, b in pairs
            if a is not None and b is not None
        ]
        return sum(terms[1:], start=terms[0])
