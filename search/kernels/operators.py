"""Operators of ``torch.library`` over the native kernels, on contiguous float32 tensors of the CPU.

They have no autograd of their own: :mod:`search.kernels.layers` gives forward, backward and forward-mode rules to
whole layers. Kinds of maps are ``float32``, ``int8`` and ``int16``; a record (C, 10) in float64 describes a
channel's batch norm as ``c/norms.h`` says.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.kernels.native import address, library

NAMESPACE = "cp_nas_kernels"
RECORD = 10
KINDS = {torch.float32: 0, torch.int8: 1, torch.int16: 2}
ESTIMATORS = {"identity": 0, "ste": 1, "bireal": 2}
LARGEST_BYTE = 127

_library = torch.library.Library(NAMESPACE, "DEF")


def _operator(schema: str) -> Any:
    """Register a function as the operator ``schema`` describes, for the CPU."""

    def register(function: Any) -> Any:
        _library.define(schema)
        _library.impl(schema.partition("(")[0], function, "CPU")
        return getattr(getattr(torch.ops, NAMESPACE), schema.partition("(")[0]).default

    return register


def _new_sums(channels: int) -> Tensor:
    return torch.zeros(channels, 2, dtype=torch.int64)


def _new_record(channels: int) -> Tensor:
    return torch.empty(channels, RECORD, dtype=torch.float64)


NORM = (
    "Tensor? gamma, Tensor? bias, Tensor(a!)? mean, Tensor(b!)? var, float eps, float momentum, bool evaluate"
)
"""Arguments of a batch norm: affine part, running statistics, and whether the latter replace the batch's."""


@_operator("planes(Tensor x) -> Tensor")
def planes(x: Tensor) -> Tensor:
    """+1 where ``x >= 0``, else -1, in int8."""
    out = torch.empty(x.shape, dtype=torch.int8)
    library().make_planes(address(x), x.numel(), address(out))
    return out


@_operator("estimate(Tensor gradient, Tensor x, int estimator, float window) -> Tensor")
def estimate(gradient: Tensor, x: Tensor, estimator: int, window: float) -> Tensor:
    """The gradient through sign at ``x``, as :func:`search.binary.estimate` defines it."""
    out = torch.empty(x.shape)
    library().estimate_gradient(address(gradient), address(x), x.numel(), estimator, window, address(out))
    return out


@_operator("every_second(Tensor planes, int offset) -> Tensor")
def every_second(planes: Tensor, offset: int) -> Tensor:
    """Every second row and column from ``offset`` on, +1 beyond the edge: (N, C, ceil(H / 2), ceil(W / 2))."""
    images, channels, height, width = planes.shape
    out = torch.empty(images, channels, (height + 1) // 2, (width + 1) // 2, dtype=torch.int8)
    library().every_second(address(planes), images * channels, height, width, offset, address(out))
    return out


@_operator(
    "depthwise_sums(Tensor planes, Tensor weight, int stride, int dilation, int border) -> (Tensor, Tensor)"
)
def depthwise_sums(
    planes: Tensor, weight: Tensor, stride: int, dilation: int, border: int
) -> tuple[Tensor, Tensor]:
    """Sums of +-1 products in int8, (N, C, H', W'), and their moments (C, 2)."""
    images, channels, height, width = planes.shape
    shape = (images, channels, -(-height // stride), -(-width // stride))
    out, sums = torch.empty(shape, dtype=torch.int8), _new_sums(channels)
    sizes = (images, channels, height, width, weight.shape[-1], stride, dilation, border)
    threads = torch.get_num_threads()
    library().depthwise_sums(address(planes), address(weight), *sizes, address(out), address(sums), threads)
    return out, sums


@_operator("pointwise_sums(Tensor x, Tensor? record, Tensor weight) -> (Tensor, Tensor)")
def pointwise_sums(x: Tensor, record: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a 1x1 convolution of planes, or of sign(norm(x)); int16 from 128 channels on."""
    outputs, inputs = weight.shape[:2]
    wide = inputs > LARGEST_BYTE
    shape = (x.shape[0], outputs, *x.shape[2:])
    out, sums = torch.empty(shape, dtype=torch.int16 if wide else torch.int8), _new_sums(outputs)
    pixels = x.shape[2] * x.shape[3]
    library().pointwise_sums(
        address(x),
        address(record),
        address(weight),
        x.shape[0],
        inputs,
        pixels,
        outputs,
        wide,
        outputs * pixels,
        address(out),
        address(sums),
        torch.get_num_threads(),
    )
    return out, sums


@_operator(f"integer_norm(Tensor sums, int count, Tensor weight, int largest, {NORM}) -> Tensor")
def integer_norm(
    sums: Tensor,
    count: int,
    weight: Tensor,
    largest: int,
    gamma: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    momentum: float,
    evaluate: bool,
) -> Tensor:
    """Records of the batch norm over beta I, from the moments of I and the weights +-beta."""
    channels = len(weight)
    record = _new_record(channels)
    library().integer_norm(
        address(sums),
        float(count),
        address(weight),
        weight[0].numel(),
        channels,
        largest,
        eps,
        address(gamma),
        address(bias),
        address(mean),
        address(var),
        momentum,
        evaluate,
        address(record),
    )
    return record


@_operator(f"float_norm(Tensor x, {NORM}) -> Tensor")
def float_norm(
    x: Tensor,
    gamma: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    momentum: float,
    evaluate: bool,
) -> Tensor:
    """Records of the batch norm over a float map (N, C, H, W); sums in float64."""
    images, channels, height, width = x.shape
    record, moments = _new_record(channels), torch.empty(channels, 2, dtype=torch.float64)
    if not evaluate:
        threads = torch.get_num_threads()
        library().float_moments(address(x), images, channels, height * width, address(moments), threads)
    library().float_norm(
        address(moments),
        float(images * height * width),
        channels,
        eps,
        address(gamma),
        address(bias),
        address(mean),
        address(var),
        momentum,
        evaluate,
        address(record),
    )
    return record


_NORMALISE = {
    torch.float32: "normalise_floats",
    torch.int8: "normalise_bytes",
    torch.int16: "normalise_shorts",
}


@_operator("normalise(Tensor x, Tensor record) -> Tensor")
def normalise(x: Tensor, record: Tensor) -> Tensor:
    """The normalised map in float32."""
    out = torch.empty(x.shape)
    images, channels, height, width = x.shape
    function = getattr(library(), _NORMALISE[x.dtype])
    function(address(x), address(record), images * channels, channels, height * width, address(out))
    return out


@_operator("norm_derivative(Tensor g, Tensor x, Tensor record, bool evaluate) -> (Tensor, Tensor)")
def norm_derivative(g: Tensor, x: Tensor, record: Tensor, evaluate: bool) -> tuple[Tensor, Tensor]:
    """The derivative (C, 4) of a norm over ``x`` for what comes in, and (2, C) gradients of gamma and bias."""
    images, channels, height, width = x.shape
    sums = torch.empty(channels, 2, dtype=torch.float64)
    pixels, threads = height * width, torch.get_num_threads()
    library().norm_sums(
        address(g),
        address(x),
        KINDS[x.dtype],
        images,
        channels,
        pixels,
        address(record),
        address(sums),
        threads,
    )
    return derivative_of_sums(record, sums, evaluate)


def derivative_of_sums(record: Tensor, sums: Tensor, evaluate: bool) -> tuple[Tensor, Tensor]:
    """:func:`norm_derivative` where the sums of g and of g (v - mean) are known."""
    out, affine = torch.empty(len(sums), 4), torch.empty(2, len(sums))
    library().norm_derivative(
        address(record), address(sums), len(sums), evaluate, address(out), address(affine)
    )
    return out, affine


@_operator("norm_apply(Tensor g, Tensor x, Tensor derivative) -> Tensor")
def norm_apply(g: Tensor, x: Tensor, derivative: Tensor) -> Tensor:
    """A norm's derivative applied to ``g``, (N, C, H, W)."""
    out = torch.empty(x.shape)
    images, channels, height, width = x.shape
    library().norm_apply(
        address(g),
        address(x),
        KINDS[x.dtype],
        address(derivative),
        images * channels,
        channels,
        height * width,
        address(out),
    )
    return out


def middle(record: Tensor) -> Tensor:
    """What a sign between two convolutions needs of its norm, (C, 5)."""
    out = torch.empty(len(record), 5)
    library().norm_middle(address(record), len(record), address(out))
    return out


@_operator(
    "pointwise_gradients(Tensor g, Tensor? v, Tensor? derivative, Tensor x, Tensor? record, int estimator, "
    "float window, Tensor weight) -> (Tensor, Tensor, Tensor)"
)
def pointwise_gradients(
    g: Tensor,
    v: Tensor | None,
    derivative: Tensor | None,
    x: Tensor,
    record: Tensor | None,
    estimator: int,
    window: float,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a 1x1 convolution that a norm over ``v`` follows, and that reads ``x``, or sign(norm(x)).

    Returns:
        The gradient in ``x``, or in norm(x), passed through sign; that in the weights; and, with ``record``, the
        sums (C, 2) that :func:`derivative_of_sums` reads.
    """
    images, inputs, height, width = x.shape
    outputs, pixels = len(weight), height * width
    out, in_weight = torch.empty(x.shape), torch.empty(weight.shape)
    sums = torch.empty(inputs if record is not None else 0, 2, dtype=torch.float64)
    between = None if record is None else middle(record)
    library().pointwise_gradients(
        address(g),
        outputs * pixels,
        address(v),
        0 if v is None else KINDS[v.dtype],
        address(derivative),
        address(x),
        KINDS[x.dtype],
        address(between),
        estimator,
        window,
        address(weight),
        images,
        inputs,
        pixels,
        outputs,
        address(out),
        address(in_weight),
        None if record is None else address(sums),
        torch.get_num_threads(),
    )
    return out, in_weight, sums


@_operator(
    "pointwise_floats(Tensor x, Tensor? v, Tensor? derivative, Tensor? record, int estimator, "
    "float window, Tensor weight) -> Tensor"
)
def pointwise_floats(
    x: Tensor,
    v: Tensor | None,
    derivative: Tensor | None,
    record: Tensor | None,
    estimator: int,
    window: float,
    weight: Tensor,
) -> Tensor:
    """A 1x1 convolution of floats: of ``x``, or of a tangent ``x`` of ``v`` led through norm and sign."""
    images, inputs, height, width = x.shape
    outputs, pixels = len(weight), height * width
    out = torch.empty(images, outputs, height, width)
    between = None if record is None else middle(record)
    library().pointwise_floats(
        address(x),
        address(v),
        0 if v is None else KINDS[v.dtype],
        address(derivative),
        address(between),
        estimator,
        window,
        address(weight),
        images,
        inputs,
        pixels,
        outputs,
        outputs * pixels,
        address(out),
        torch.get_num_threads(),
    )
    return out


@_operator("depthwise_floats(Tensor x, Tensor weight, int stride, int dilation) -> Tensor")
def depthwise_floats(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """A depthwise convolution of floats that keeps the size, padded by zeros."""
    images, channels, height, width = x.shape
    out = torch.empty(images, channels, -(-height // stride), -(-width // stride))
    sizes = (images, channels, height, width, weight.shape[-1], stride, dilation)
    library().depthwise_floats(address(x), address(weight), *sizes, address(out), torch.get_num_threads())
    return out


@_operator(
    "depthwise_gradients(Tensor g, Tensor? v, Tensor? derivative, Tensor x, int border, Tensor weight, int stride, "
    "int dilation) -> (Tensor, Tensor)"
)
def depthwise_gradients(
    g: Tensor,
    v: Tensor | None,
    derivative: Tensor | None,
    x: Tensor,
    border: int,
    weight: Tensor,
    stride: int,
    dilation: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of a depthwise convolution in its input and weights; a norm over ``v`` may follow it."""
    images, channels, height, width = x.shape
    out, in_weight = torch.empty(x.shape), torch.empty(weight.shape)
    library().depthwise_gradients(
        address(g),
        address(v),
        0 if v is None else KINDS[v.dtype],
        address(derivative),
        address(x),
        KINDS[x.dtype],
        float(border),
        address(weight),
        images,
        channels,
        height,
        width,
        weight.shape[-1],
        stride,
        dilation,
        address(out),
        address(in_weight),
        torch.get_num_threads(),
    )
    return out, in_weight


@_operator("pool(Tensor x, int stride, bool average) -> (Tensor, Tensor)")
def pool(x: Tensor, stride: int, average: bool) -> tuple[Tensor, Tensor]:
    """A 3x3 pool with padding 1, and where each maximum lies in its window (empty for averages)."""
    images, channels, height, width = x.shape
    out = torch.empty(images, channels, -(-height // stride), -(-width // stride))
    where = torch.empty(0 if average else out.shape, dtype=torch.int8)
    sizes = (images, channels, height, width, stride, average)
    library().pool_forward(address(x), *sizes, address(out), address(where), torch.get_num_threads())
    return out, where


@_operator("pool_gradient(Tensor g, Tensor where, int height, int width, int stride, bool average) -> Tensor")
def pool_gradient(g: Tensor, where: Tensor, height: int, width: int, stride: int, average: bool) -> Tensor:
    """The gradient in a pool's input, (N, C, height, width)."""
    images, channels = g.shape[:2]
    out = torch.empty(images, channels, height, width)
    sizes = (images, channels, height, width, stride, average)
    library().pool_backward(address(g), address(where), *sizes, address(out), torch.get_num_threads())
    return out


@_operator("pool_pick(Tensor x, Tensor where, int stride) -> Tensor")
def pool_pick(x: Tensor, where: Tensor, stride: int) -> Tensor:
    """The values of ``x`` at the places of a pool's maxima."""
    images, channels, height, width = x.shape
    out = torch.empty(where.shape)
    library().pool_pick(address(x), address(where), images * channels, height, width, stride, address(out))
    return out


@_operator("dot(Tensor x, Tensor y) -> Tensor")
def dot(x: Tensor, y: Tensor) -> Tensor:
    """The sum of x y over all entries, a scalar in float64."""
    out = torch.empty((), dtype=torch.float64)
    library().dot(address(x), address(y), x.numel(), address(out))
    return out
