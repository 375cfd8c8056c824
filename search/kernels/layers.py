"""1-bit layers on native kernels, with backward, double backward and forward-mode rules.

A map that 1-bit layers read is a pair: ``planes``, its signs in int8, and a *proxy*, a float tensor of the same
shape without storage, which carries the graph. What a layer gives back for the proxy is the gradient in the signs;
:func:`signed` leads it through the estimator to the map, once for all layers that read it.

Where a derivative of the derivative is wanted, a layer's backward is that of its plain twin (:mod:`.plain`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from search.binary import binarise, estimate
from search.depthwise import depthwise_conv2d
from search.kernels import operators, plain
from search.kernels.norms import Norm
from search.kernels.operators import ESTIMATORS
from search.kernels.twice import Maybe, affine_gradients, gradients_again, pushed

Estimate = tuple[str, float]
"""A gradient estimator's name and the half width of its window; see :func:`search.binary.estimate`."""


def _proxy(x: Tensor, has_tangent: bool) -> Tensor:
    """Zeros of the shape of ``x``, all at one place; each at its own where a tangent will need the same layout."""
    if has_tangent:
        return torch.zeros(x.shape)
    return x.new_empty(0).set_(x.new_zeros(1).untyped_storage(), 0, x.shape, (0,) * x.dim())  # type: ignore[call-overload]


class _Signed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, estimate: Estimate, has_tangent: bool) -> tuple[Tensor, Tensor]:
        ctx.estimate = estimate
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        planes = operators.planes(x)
        ctx.mark_non_differentiable(planes)
        return _proxy(x, has_tangent), planes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return estimate(gradients[0], x, *ctx.estimate), None, None
        return _passed(gradients[0], x, ctx.estimate), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _passed(tangents[0], x, ctx.estimate), None


def _passed(gradient: Tensor, x: Tensor, how: Estimate) -> Tensor:
    return operators.estimate(gradient.contiguous(), x, ESTIMATORS[how[0]], how[1])


def has_tangent(x: Tensor) -> bool:
    """Whether ``x`` carries a tangent of forward mode."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def signed(x: Tensor, how: Estimate) -> tuple[Tensor, Tensor]:
    """The proxy and the planes of sign(x), x (N, C, H, W); the gradient passes by the estimator."""
    return _Signed.apply(x.contiguous(), how, has_tangent(x))


@dataclass(frozen=True)
class BlockPlan:
    """What a block needs beside tensors.

    Attributes:
        stride, dilation: Of the depthwise convolution, which keeps the size at stride 1.
        border: What it pads with: -1, 0 or 1.
        estimate: Of the sign between the convolutions.
        first, second: The norms.
    """

    stride: int
    dilation: int
    border: int
    estimate: Estimate
    first: Norm
    second: Norm

    @property
    def again(self) -> BlockPlan:
        """The same without updates of running statistics."""
        return replace(self, first=self.first.again, second=self.second.again)


class _Block(torch.autograd.Function):
    """sign - depthwise - norm - sign - pointwise - norm."""

    @staticmethod
    def forward(
        ctx: Any,
        proxy: Tensor,
        planes: Tensor,
        w1: Tensor,
        gamma1: Maybe,
        bias1: Maybe,
        w2: Tensor,
        gamma2: Maybe,
        bias2: Maybe,
        plan: BlockPlan,
    ) -> Tensor:
        inner, sums = operators.depthwise_sums(planes, w1, plan.stride, plan.dilation, plan.border)
        count = inner.numel() // inner.shape[1]
        taps = w1.shape[-1] ** 2
        first = operators.integer_norm(sums, count, w1, taps, *plan.first.arguments(gamma1, bias1))
        outer, sums = operators.pointwise_sums(inner, first, w2)
        largest = operators.LARGEST_BYTE + 1  # no sign follows: no thresholds
        second = operators.integer_norm(sums, count, w2, largest, *plan.second.arguments(gamma2, bias2))
        ctx.plan = plan
        ctx.set_materialize_grads(False)  # a tangent that is not there is None
        saved = (proxy, planes, w1, gamma1, bias1, w2, gamma2, bias2, inner, first, outer, second)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return operators.normalise(outer, second)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Maybe, ...]:
        plan: BlockPlan = ctx.plan
        saved = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *gradients_again(partial(plain_block, plan=plan.again), saved[:8], gradients[0]), None
        _, planes, w1, gamma1, _, w2, gamma2, _, inner, first, outer, second = saved
        g = gradients[0].contiguous()
        d2, affine2 = operators.norm_derivative(g, outer, second, plan.second.evaluate)
        kind, window = ESTIMATORS[plan.estimate[0]], plan.estimate[1]
        z, in_w2, sums = operators.pointwise_gradients(g, outer, d2, inner, first, kind, window, w2)
        d1, affine1 = operators.derivative_of_sums(first, sums, plan.first.evaluate)
        in_planes, in_w1 = operators.depthwise_gradients(
            z, inner, d1, planes, plan.border, w1, plan.stride, plan.dilation
        )
        return (
            in_planes,
            None,
            in_w1,
            *affine_gradients(affine1, gamma1),
            in_w2,
            *affine_gradients(affine2, gamma2),
            None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        plan: BlockPlan = ctx.plan
        saved = ctx.saved_tensors  # once: checkpointing refuses a second time
        if any(tangent is not None for tangent in tangents[2:]):
            return pushed(partial(plain_block, plan=plan.again), saved[:8], tangents[:8])
        _, _, w1, _, _, w2, _, _, inner, first, outer, second = saved
        t = operators.depthwise_floats(tangents[0].contiguous(), w1, plan.stride, plan.dilation)
        d1, _ = operators.norm_derivative(t, inner, first, plan.first.evaluate)
        kind, window = ESTIMATORS[plan.estimate[0]], plan.estimate[1]
        t = operators.pointwise_floats(t, inner, d1, first, kind, window, w2)
        d2, _ = operators.norm_derivative(t, outer, second, plan.second.evaluate)
        return operators.norm_apply(t, outer, d2)


def block(
    proxy: Tensor,
    planes: Tensor,
    w1: Tensor,
    gamma1: Maybe,
    bias1: Maybe,
    w2: Tensor,
    gamma2: Maybe,
    bias2: Maybe,
    plan: BlockPlan,
) -> Tensor:
    """The paper form's block: sign - depthwise k x k - norm - sign - pointwise - norm (fig. 4.8).

    Args:
        proxy, planes: Of the input (N, C, H, W), from :func:`signed`.
        w1: (C, 1, k, k), each channel's entries +-beta.
        w2: (C', C, 1, 1), each output's entries +-beta.
        gamma1, bias1, gamma2, bias2: Affine parts of the norms, or None.
        plan: The rest.

    Returns:
        (N, C', ceil(H / stride), ceil(W / stride)).
    """
    return _Block.apply(proxy, planes, w1.contiguous(), gamma1, bias1, w2.contiguous(), gamma2, bias2, plan)


def plain_block(
    proxy: Tensor,
    planes: Tensor,
    w1: Tensor,
    gamma1: Maybe,
    bias1: Maybe,
    w2: Tensor,
    gamma2: Maybe,
    bias2: Maybe,
    plan: BlockPlan,
) -> Tensor:
    """:func:`block` in plain PyTorch."""
    x = proxy + planes.to(w1.dtype)
    normed, plus = plain_depthwise(x, w1, gamma1, bias1, plan)
    name, window = plan.estimate
    signs = plain.with_value(binarise(normed, name, window=window), plus)  # type: ignore[arg-type]
    return plain_pointwise(signs, w2, gamma2, bias2, plan.second)


def plain_depthwise(
    x: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, plan: BlockPlan
) -> tuple[Tensor, Tensor]:
    """The depthwise half in plain PyTorch: the norm's value, and its exact sign without derivative.

    Args:
        x: +-1, with the graph of sign, (N, C, H, W).
        weight: +-beta.
        gamma, bias: The norm's affine part, or None.
        plan: The rest.
    """
    pad = plan.dilation * (weight.shape[-1] // 2)
    if plan.border != 0:
        x, pad = torch.nn.functional.pad(x, (pad,) * 4, value=float(plan.border)), 0
    sizes = ((plan.stride,) * 2, (pad,) * 2, (plan.dilation,) * 2)
    rounded = depthwise_conv2d(x, weight, *sizes)
    integers = depthwise_conv2d(x.detach(), plain.signs(weight), *sizes)
    return plain.integer_norm(rounded, integers, weight, gamma, bias, plan.first)


def plain_pointwise(x: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
    """The pointwise half in plain PyTorch: ``x`` +-1 with its graph."""
    rounded = torch.nn.functional.conv2d(x, weight)
    integers = torch.nn.functional.conv2d(x.detach(), plain.signs(weight))
    return plain.integer_norm(rounded, integers, weight, gamma, bias, norm)[0]


class _Project(torch.autograd.Function):
    """sign - pointwise - norm."""

    @staticmethod
    def forward(
        ctx: Any, proxy: Tensor, planes: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm
    ) -> Tensor:
        outer, sums = operators.pointwise_sums(planes, None, weight)
        count, largest = outer.numel() // outer.shape[1], operators.LARGEST_BYTE + 1
        record = operators.integer_norm(sums, count, weight, largest, *norm.arguments(gamma, bias))
        ctx.norm = norm
        ctx.set_materialize_grads(False)
        saved = (proxy, planes, weight, gamma, bias, outer, record)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return operators.normalise(outer, record)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Maybe, ...]:
        saved = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain_twin = partial(plain_project, norm=ctx.norm.again)
            return *gradients_again(plain_twin, saved[:5], gradients[0]), None
        _, planes, weight, gamma, _, outer, record = saved
        g = gradients[0].contiguous()
        derivative, affine = operators.norm_derivative(g, outer, record, ctx.norm.evaluate)
        in_planes, in_weight, _ = operators.pointwise_gradients(
            g, outer, derivative, planes, None, 0, 1.0, weight
        )
        return in_planes, None, in_weight, *affine_gradients(affine, gamma), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        saved = ctx.saved_tensors
        if any(tangent is not None for tangent in tangents[2:]):
            return pushed(partial(plain_project, norm=ctx.norm.again), saved[:5], tangents[:5])
        _, _, weight, _, _, outer, record = saved
        t = operators.pointwise_floats(tangents[0].contiguous(), None, None, None, 0, 1.0, weight)
        derivative, _ = operators.norm_derivative(t, outer, record, ctx.norm.evaluate)
        return operators.norm_apply(t, outer, derivative)


def project(proxy: Tensor, planes: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
    """sign - 1x1 convolution - norm: (N, C, H, W) as proxy and planes to (N, C', H, W)."""
    return _Project.apply(proxy, planes, weight.contiguous(), gamma, bias, norm)


def plain_project(
    proxy: Tensor, planes: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm
) -> Tensor:
    """:func:`project` in plain PyTorch."""
    return plain_pointwise(proxy + planes.to(weight.dtype), weight, gamma, bias, norm)


class _Reduce(torch.autograd.Function):
    """sign - two 1x1 stride-2 convolutions, the second on the map shifted by one pixel - norm."""

    @staticmethod
    def forward(
        ctx: Any, proxy: Tensor, planes: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm
    ) -> Tensor:
        half = len(weight) // 2
        parts = [operators.every_second(planes, offset) for offset in (0, 1)]
        weights = (weight[:half], weight[half:])
        pairs = [operators.pointwise_sums(x, None, w) for x, w in zip(parts, weights, strict=True)]
        outer, sums = (torch.cat([pair[k] for pair in pairs], dim=1 - k) for k in (0, 1))
        count, largest = outer.numel() // outer.shape[1], operators.LARGEST_BYTE + 1
        record = operators.integer_norm(sums, count, weight, largest, *norm.arguments(gamma, bias))
        ctx.norm = norm
        ctx.set_materialize_grads(False)
        saved = (proxy, planes, weight, gamma, bias, outer, record)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return operators.normalise(outer, record)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Maybe, ...]:
        saved = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain_twin = partial(plain_reduce, norm=ctx.norm.again)
            return *gradients_again(plain_twin, saved[:5], gradients[0]), None
        _, planes, weight, gamma, _, outer, record = saved
        g = gradients[0].contiguous()
        derivative, affine = operators.norm_derivative(g, outer, record, ctx.norm.evaluate)
        g = operators.norm_apply(g, outer, derivative)
        in_planes, in_weight = torch.zeros(planes.shape), []
        for offset, (part, w) in enumerate(zip(g.chunk(2, dim=1), weight.chunk(2), strict=True)):
            x = operators.every_second(planes, offset)
            found, of_weight, _ = operators.pointwise_gradients(
                part.contiguous(), None, None, x, None, 0, 1.0, w
            )
            target = in_planes[:, :, offset::2, offset::2]
            target.copy_(found[:, :, : target.shape[2], : target.shape[3]])
            in_weight.append(of_weight)
        return in_planes, None, torch.cat(in_weight), *affine_gradients(affine, gamma), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        saved = ctx.saved_tensors
        if any(tangent is not None for tangent in tangents[2:]):
            return pushed(partial(plain_reduce, norm=ctx.norm.again), saved[:5], tangents[:5])
        _, _, weight, _, _, outer, record = saved
        parts = [
            operators.pointwise_floats(
                every_second(tangents[0], offset, 0.0).contiguous(), None, None, None, 0, 1.0, w
            )
            for offset, w in enumerate(weight.chunk(2))
        ]
        t = torch.cat(parts, dim=1)
        derivative, _ = operators.norm_derivative(t, outer, record, ctx.norm.evaluate)
        return operators.norm_apply(t, outer, derivative)


def reduce(proxy: Tensor, planes: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
    """The factorised reduction: (N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2)).

    ``weight`` (C', C, 1, 1): the first half reads every second pixel from (0, 0) on, the other from (1, 1) on,
    where beyond the edge there is sign(0) = +1.
    """
    return _Reduce.apply(proxy, planes, weight.contiguous(), gamma, bias, norm)


def plain_reduce(
    proxy: Tensor, planes: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm
) -> Tensor:
    """:func:`reduce` in plain PyTorch."""
    return plain_reduced(proxy + planes.to(weight.dtype), weight, gamma, bias, norm)


def plain_reduced(x: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
    """The same from +-1 with its graph."""
    halves = [(every_second(x, offset, 1.0), w) for offset, w in enumerate(weight.chunk(2))]
    conv = torch.nn.functional.conv2d
    rounded = torch.cat([conv(part, w) for part, w in halves], dim=1)
    integers = torch.cat([conv(part.detach(), plain.signs(w)) for part, w in halves], dim=1)
    return plain.integer_norm(rounded, integers, weight, gamma, bias, norm)[0]


def every_second(x: Tensor, offset: int, beyond: float) -> Tensor:
    """Every second row and column from ``offset`` on, ``beyond`` past the edge."""
    height, width = x.shape[2:]
    part = x[:, :, offset::2, offset::2]
    missing = ((height + 1) // 2 - part.shape[2], (width + 1) // 2 - part.shape[3])
    if missing == (0, 0):
        return part
    return torch.nn.functional.pad(part, (0, missing[1], 0, missing[0]), value=beyond)
