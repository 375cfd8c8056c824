"""Depthwise convolutions by other routes: the library's value and derivatives, exactly the same function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn import functional as F

from search.depthwise import depthwise_conv2d

CASES = [
    (3, 1, 1, 1),
    (5, 2, 2, 1),
    (3, 1, 2, 2),
    (5, 1, 4, 2),
    (3, 2, 2, 2),
    (5, 2, 4, 2),
    (5, 2, 0, 2),
    (3, 2, 1, 2),
    (3, 1, 0, 2),
]
"""Kernel, stride, padding, dilation: each route, and cases that only look like one."""


def pair(kernel: int, size: tuple[int, int] = (9, 12), channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize("size", [(9, 12), (12, 9), (13, 13)])
def test_value_and_gradients_are_those_of_the_library(
    kernel: int, stride: int, padding: int, dilation: int, size: tuple[int, int]
) -> None:
    found = []
    for function in (depthwise_conv2d, lambda x, w, *how: F.conv2d(x, w, None, *how, 3)):
        x, weight = pair(kernel, size)
        y = function(x, weight, (stride,) * 2, (padding,) * 2, (dilation,) * 2)
        y.square().sum().backward()
        found.append((y.detach(), x.grad, weight.grad))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 1, 2, 2), (3, 2, 2, 2)])
def test_first_and_second_derivatives_are_those_of_finite_differences(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    x, weight = pair(kernel, (4, 3), channels=1)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv2d(x, weight, (stride,) * 2, (padding,) * 2, (dilation,) * 2)

    assert gradcheck(function, (x, weight), check_forward_ad=True)
    assert gradgradcheck(function, (x, weight))


def test_forward_mode_with_one_tangent() -> None:
    """A search differentiates in the input alone; the missing tangent counts as zero."""
    x, weight = pair(5)
    direction = torch.randn_like(x)
    with forward_ad.dual_level():
        y = depthwise_conv2d(
            forward_ad.make_dual(x.detach(), direction), weight.detach(), (1, 1), (4, 4), (2, 2)
        )
        tangent = forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(tangent, F.conv2d(direction, weight.detach(), None, 1, 4, 2, 3))


def test_a_frozen_side_gets_no_gradient() -> None:
    x, weight = pair(3)
    depthwise_conv2d(x, weight.detach(), (1, 1), (2, 2), (2, 2)).sum().backward()
    assert x.grad is not None and weight.grad is None


def test_autocast_decides_the_precision() -> None:
    x, weight = (value.detach().float().requires_grad_() for value in pair(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = depthwise_conv2d(x, weight, (1, 1), (2, 2), (2, 2))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32
