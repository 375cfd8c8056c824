"""How convolutions run: the one place that decides it, for every network of the suite.

PyTorch's CPU library has cases that are slow and one that is wrong. oneDNN 3.12's ``jit_1x1`` gradient in the weights
writes past its workspace where a 1x1 convolution has a stride and fewer input channels than a vector has numbers
(8 with AVX2; upstream says 16 with AVX-512) in channels_last: a crash, a hang or wrong gradients (uxlfoundation/oneDNN
issue 6035). A strided 1x1 convolution reads only every s-th pixel, so it is the dense one of those pixels; the dense
one has no such fault. Slow cases are :mod:`search.depthwise`'s.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from search.depthwise import depthwise_conv2d

Pair = tuple[int, int]


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """``F.conv2d`` on a route whose values and gradients are right on every CPU.

    Args:
        x: (N, C, H, W), in either memory layout.
        weight: (C', C / groups, k, k).
        bias: (C') or None.
        stride, padding, dilation, groups: As in ``F.conv2d``.
    """
    if bias is None and groups == x.shape[1] == len(weight):
        return depthwise_conv2d(x, weight, stride, padding, dilation)
    if x.device.type == "cpu" and max(stride) > 1 and tuple(weight.shape[2:]) == (1, 1):
        x, stride, padding = _read_pixels(x, stride, padding), (1, 1), (0, 0)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _read_pixels(x: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The pixels that a strided 1x1 convolution reads."""
    height, width = padding
    if height or width:
        x = F.pad(x, (width, width, height, height))
    return x[:, :, :: stride[0], :: stride[1]]


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` that runs by :func:`conv2d`; zero padding, given in numbers."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        where = (self.stride, self.padding, self.dilation)
        return conv2d(input, self.weight, self.bias, *where, self.groups)  # type: ignore[arg-type]
