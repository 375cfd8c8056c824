"""Layers of floats on native kernels: pools, batch norms, convolutions of a real-valued block; sums in a fixed order.

Each function takes contiguous float32 maps of the CPU. Where a derivative of the derivative is wanted, a layer's
backward is that of plain PyTorch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from search.depthwise import depthwise_conv2d
from search.kernels import operators
from search.kernels.norms import Norm
from search.kernels.plain import usual_norm
from search.kernels.twice import Maybe, affine_gradients, gradients_again, pushed


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
        record = operators.float_norm(x, *norm.arguments(gamma, bias))
        ctx.norm = norm
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, gamma, bias, record)
        ctx.save_for_forward(x, gamma, bias, record)
        return operators.normalise(x, record)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Maybe, ...]:
        x, gamma, bias, record = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(usual_norm, norm=ctx.norm.again)
            return *gradients_again(plain, (x, gamma, bias), gradients[0]), None
        g = gradients[0].contiguous()
        derivative, affine = operators.norm_derivative(g, x, record, ctx.norm.evaluate)
        return operators.norm_apply(g, x, derivative), *affine_gradients(affine, gamma), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, gamma, bias, record = ctx.saved_tensors
        if tangents[1] is not None or tangents[2] is not None:
            return pushed(partial(usual_norm, norm=ctx.norm.again), (x, gamma, bias), tangents[:3])
        t = tangents[0].contiguous()
        derivative, _ = operators.norm_derivative(t, x, record, ctx.norm.evaluate)
        return operators.norm_apply(t, x, derivative)


def batch_norm(x: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
    """Batch norm of (N, C, H, W); statistics from sums in float64."""
    return _Norm.apply(x.contiguous(), gamma, bias, norm)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, average: bool) -> Tensor:
        out, where = operators.pool(x, stride, average)
        ctx.stride, ctx.average, ctx.size = stride, average, x.shape[2:]
        # Its values are needed only for a second derivative, which a maximum passes like an average: linearly.
        ctx.save_for_backward(where)
        ctx.save_for_forward(where)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (where,) = ctx.saved_tensors
        return (
            _PoolGradient.apply(gradients[0].contiguous(), where, ctx.size, ctx.stride, ctx.average),
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (where,) = ctx.saved_tensors
        return _push_pool(tangents[0], where, ctx.stride, ctx.average)


class _PoolGradient(torch.autograd.Function):
    """The pool's backward pass, a linear map of the gradient, whose own derivative is the pool's tangent."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, where: Tensor, size: torch.Size, stride: int, average: bool) -> Tensor:
        ctx.stride, ctx.average = stride, average
        ctx.save_for_backward(where)
        return operators.pool_gradient(g, where, size[0], size[1], stride, average)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (where,) = ctx.saved_tensors
        return _push_pool(gradients[0], where, ctx.stride, ctx.average), None, None, None, None


def _push_pool(tangent: Tensor, where: Tensor, stride: int, average: bool) -> Tensor:
    t = tangent.contiguous()
    return operators.pool(t, stride, True)[0] if average else operators.pool_pick(t, where, stride)


def pool(x: Tensor, stride: int, average: bool) -> Tensor:
    """A 3x3 pool with padding 1 that does not count the padding; of equal maxima the first by rows."""
    return _Pool.apply(x.contiguous(), stride, average)


class _Project(torch.autograd.Function):
    """A 1x1 convolution and a batch norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
        inner = operators.pointwise_floats(x, None, None, None, 0, 1.0, weight)
        record = operators.float_norm(inner, *norm.arguments(gamma, bias))
        ctx.norm = norm
        ctx.set_materialize_grads(False)
        saved = (x, weight, gamma, bias, inner, record)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return operators.normalise(inner, record)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Maybe, ...]:
        saved = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(plain_project, norm=ctx.norm.again)
            return *gradients_again(plain, saved[:4], gradients[0]), None
        x, weight, gamma, _, inner, record = saved
        g = gradients[0].contiguous()
        derivative, affine = operators.norm_derivative(g, inner, record, ctx.norm.evaluate)
        in_x, in_weight, _ = operators.pointwise_gradients(g, inner, derivative, x, None, 0, 1.0, weight)
        return in_x, in_weight, *affine_gradients(affine, gamma), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        saved = ctx.saved_tensors
        if any(tangent is not None for tangent in tangents[1:]):
            plain = partial(plain_project, norm=ctx.norm.again)
            return pushed(plain, saved[:4], tangents[:4])
        _, weight, _, _, inner, record = saved
        t = operators.pointwise_floats(tangents[0].contiguous(), None, None, None, 0, 1.0, weight)
        derivative, _ = operators.norm_derivative(t, inner, record, ctx.norm.evaluate)
        return operators.norm_apply(t, inner, derivative)


def project(x: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
    """A 1x1 convolution, weight (C', C, 1, 1), and a batch norm."""
    return _Project.apply(x.contiguous(), weight.contiguous(), gamma, bias, norm)


def plain_project(x: Tensor, weight: Tensor, gamma: Maybe, bias: Maybe, norm: Norm) -> Tensor:
    """:func:`project` in plain PyTorch."""
    return usual_norm(F.conv2d(x, weight), gamma, bias, norm)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return operators.pointwise_floats(x, None, None, None, 0, 1.0, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Maybe, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            return tuple(gradients_again(F.conv2d, (x, weight), gradients[0]))
        g = gradients[0].contiguous()
        return operators.pointwise_gradients(g, None, None, x, None, 0, 1.0, weight)[:2]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, weight = ctx.saved_tensors
        pairs = ((tangents[0], weight), (x, tangents[1]))
        terms = [
            operators.pointwise_floats(a.contiguous(), None, None, None, 0, 1.0, b.contiguous())
            for a, b in pairs
            if a is not None and b is not None
        ]
        return sum(terms[1:], start=terms[0])


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution, weight (C', C, 1, 1)."""
    return _Pointwise.apply(x.contiguous(), weight.contiguous())


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.stride, ctx.dilation = stride, dilation
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return operators.depthwise_floats(x, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Maybe, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(plain_depthwise, stride=ctx.stride, dilation=ctx.dilation)
            return *gradients_again(plain, (x, weight), gradients[0]), None, None
        g = gradients[0].contiguous()
        found = operators.depthwise_gradients(g, None, None, x, 0, weight, ctx.stride, ctx.dilation)
        return *found, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, weight = ctx.saved_tensors
        pairs = ((tangents[0], weight), (x, tangents[1]))
        terms = [
            operators.depthwise_floats(a.contiguous(), b.contiguous(), ctx.stride, ctx.dilation)
            for a, b in pairs
            if a is not None and b is not None
        ]
        return sum(terms[1:], start=terms[0])


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """A depthwise convolution, weight (C, 1, k, k), padded by zeros to keep the size at stride 1."""
    return _Depthwise.apply(x.contiguous(), weight.contiguous(), stride, dilation)


def plain_depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """:func:`depthwise` in plain PyTorch."""
    pad = dilation * (weight.shape[-1] // 2)
    return depthwise_conv2d(x, weight, (stride,) * 2, (pad,) * 2, (dilation,) * 2)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, factor)
        ctx.save_for_forward(x, factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, factor = ctx.saved_tensors
        g = gradients[0]
        if torch.is_grad_enabled():
            return g * factor, (g * x).sum()
        return g * factor, operators.dot(g.contiguous(), x).to(x.dtype)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, factor = ctx.saved_tensors
        terms = [
            a * b for a, b in ((tangents[0], factor), (x, tangents[1])) if a is not None and b is not None
        ]
        return sum(terms[1:], start=terms[0])


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """``x * factor``, a scalar, whose gradient is a sum over the whole map."""
    return _Scaled.apply(x.contiguous(), factor)
