"""The layers of :mod:`search.operations` by kernels, by their plain twin, or not at all.

Each function takes a layer's modules, and gives None where the modules have to be called themselves: where a layer
is not 1-bit (staged binarisation, ``w1a32``), its norms run over several processes, autocast chooses the precision,
or someone listens to its parts by hooks (as cost counting does).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.binary import QuantConv2d, Real, Shared, SignActivation, SignWeight
from search.kernels import layers, native, plain, real
from search.kernels.layers import BlockPlan
from search.kernels.norms import Norm, called

ROW = 4096
"""The longest row of a map that kernels have room for."""


def native_runs(x: Tensor) -> bool:
    """Whether kernels compute layers that read ``x``."""
    usual = x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[-1] <= ROW
    return usual and native.available()


def _free(x: Tensor, *modules: nn.Module) -> bool:
    """Whether a layer may be computed as a whole."""
    if x.device.type == "meta" or torch.is_autocast_enabled(x.device.type):
        return False
    norms = [module for module in modules if not isinstance(module, nn.Conv2d)]
    return all(type(norm) is nn.BatchNorm2d for norm in norms) and not any(m._forward_hooks for m in modules)


def _one_bit(conv: QuantConv2d) -> bool:
    quantisers = isinstance(conv.input_quantiser, SignActivation) and isinstance(
        conv.weight_quantiser, SignWeight
    )
    return quantisers and conv.input_quantiser.precision == 1 and conv.weight_quantiser.precision == 1


def _real(conv: QuantConv2d) -> bool:
    return type(conv.input_quantiser) is Real and type(conv.weight_quantiser) is Real and conv.pad_value == 0


def _same(conv: QuantConv2d) -> bool:
    """Whether it is depthwise and keeps the size at stride 1."""
    sizes = (conv.kernel_size, conv.stride, conv.dilation, conv.padding)
    kernel, stride, dilation, padding = (int(size[0]) for size in sizes)
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    square = all(len(set(size)) == 1 for size in sizes)
    return depthwise and square and kernel <= 7 and stride <= 2 and 2 * padding == dilation * (kernel - 1)


def estimate_of(conv: QuantConv2d) -> layers.Estimate:
    """How the sign before a convolution passes gradients."""
    quantiser = conv.input_quantiser
    assert isinstance(quantiser, SignActivation)
    return quantiser.estimator, quantiser.window


def pair_of(x: Shared, conv: QuantConv2d) -> tuple[Tensor, Tensor]:
    """Proxy and planes of the map as ``conv`` reads it, made once for all convolutions that read it so."""
    how = estimate_of(conv)
    return x.made(("planes", *how), lambda value: layers.signed(value, how))


def _affine(norm: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    return norm.weight, norm.bias  # type: ignore[return-value]


def _called(norm: nn.Module) -> Norm:
    assert isinstance(norm, nn.BatchNorm2d)
    return called(norm)


def quantise(x: Shared, conv: QuantConv2d) -> None:
    """Quantise the map now, the way :func:`projection` or :func:`reduction` with ``conv`` will read it."""
    if native_runs(x.value) and _free(x.value, conv) and _one_bit(conv):
        pair_of(x, conv)
    else:
        x.quantised(conv.input_quantiser)


def paper_block(
    x: Shared, depthwise: QuantConv2d, first: nn.Module, pointwise: QuantConv2d, second: nn.Module
) -> Tensor | None:
    """sign - depthwise - norm - sign - pointwise - norm; None where the modules themselves are to be called."""
    one_bit = _one_bit(depthwise) and _one_bit(pointwise) and _same(depthwise)
    if not (one_bit and _free(x.value, depthwise, first, pointwise, second)):
        return None
    plan = BlockPlan(
        depthwise.stride[0],
        depthwise.dilation[0],  # type: ignore[arg-type]
        int(depthwise.pad_value),
        estimate_of(pointwise),
        _called(first),
        _called(second),
    )
    w1, w2 = depthwise.weight_quantiser(depthwise.weight), pointwise.weight_quantiser(pointwise.weight)
    if native_runs(x.value):
        return layers.block(*pair_of(x, depthwise), w1, *_affine(first), w2, *_affine(second), plan)
    signs = x.quantised(depthwise.input_quantiser)
    normed, plus = layers.plain_depthwise(signs, w1, *_affine(first), plan)
    signs = plain.with_value(pointwise.input_quantiser(normed), plus)
    return layers.plain_pointwise(signs, w2, *_affine(second), plan.second)


def real_block(x: Shared, depthwise: QuantConv2d, pointwise: QuantConv2d, norm: nn.Module) -> Tensor | None:
    """ReLU - depthwise - pointwise - norm of a real-valued network, by kernels; None where they do not run."""
    usual = _real(depthwise) and _real(pointwise) and _same(depthwise) and native_runs(x.value)
    if not (usual and _free(x.value, depthwise, pointwise, norm)):
        return None
    inner = real.depthwise(
        x.quantised(depthwise.input_quantiser),
        depthwise.weight,
        depthwise.stride[0],
        depthwise.dilation[0],  # type: ignore[arg-type]
    )
    return real.project(inner, pointwise.weight, *_affine(norm), _called(norm))


def projection(x: Shared, conv: QuantConv2d, norm: nn.Module) -> Tensor | None:
    """sign (or ReLU) - 1x1 convolution - norm; None where the modules themselves are to be called."""
    if not _free(x.value, conv, norm):
        return None
    if _real(conv) and native_runs(x.value):
        return real.project(x.quantised(conv.input_quantiser), conv.weight, *_affine(norm), _called(norm))
    if not _one_bit(conv):
        return None
    weight = conv.weight_quantiser(conv.weight)
    if native_runs(x.value):
        return layers.project(*pair_of(x, conv), weight, *_affine(norm), _called(norm))
    return layers.plain_pointwise(x.quantised(conv.input_quantiser), weight, *_affine(norm), _called(norm))


def reduction(x: Shared, even: QuantConv2d, odd: QuantConv2d, norm: nn.Module, stride: int) -> Tensor | None:
    """The factorised reduction; None where the modules themselves are to be called."""
    if not _free(x.value, even, odd, norm):
        return None
    if _real(even) and native_runs(x.value):
        signs = x.quantised(even.input_quantiser)
        weight = torch.cat([even.weight, odd.weight])
        if stride == 1:
            return real.project(signs, weight, *_affine(norm), _called(norm))
        halves = [
            real.pointwise(layers.every_second(signs, offset, 0.0), conv.weight)
            for offset, conv in enumerate((even, odd))
        ]
        return real.batch_norm(torch.cat(halves, dim=1), *_affine(norm), _called(norm))
    if not (_one_bit(even) and _one_bit(odd)):
        return None
    weight = torch.cat([conv.weight_quantiser(conv.weight) for conv in (even, odd)])
    if native_runs(x.value):
        function = layers.reduce if stride == 2 else layers.project
        return function(*pair_of(x, even), weight, *_affine(norm), _called(norm))
    plain_function = layers.plain_reduced if stride == 2 else layers.plain_pointwise
    return plain_function(x.quantised(even.input_quantiser), weight, *_affine(norm), _called(norm))


def pool(x: Shared, average: bool, stride: int, norm: nn.Module) -> Tensor | None:
    """A 3x3 pool and its norm by kernels; computed once for all that read it, where the norm has no state."""
    if not native_runs(x.value) or torch.is_autocast_enabled("cpu"):
        return None
    pooled = x.made(("pool", average, stride), lambda value: real.pool(value, stride, average))
    if isinstance(norm, nn.Identity):
        return pooled
    if type(norm) is not nn.BatchNorm2d or norm._forward_hooks:
        return norm(pooled)
    if norm.affine or norm.track_running_stats:
        return real.batch_norm(pooled, *_affine(norm), _called(norm))
    key = ("pool", average, stride, norm.eps)
    return x.made(key, lambda _: real.batch_norm(pooled, None, None, _called(norm)))


COLUMNS = 2**26
"""Values of the largest map of columns that a dense convolution is led through; larger ones are left to the library."""


def dense(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A real-valued 3x3 convolution, as a 1x1 one over its columns where kernels run; else ``conv(x)``."""
    side, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    height, width = ((size + 2 * padding - side) // stride + 1 for size in x.shape[2:])
    inputs = conv.in_channels * side * side
    usual = conv.groups == 1 and conv.bias is None and set(conv.dilation) == {1} and _free(x, conv)
    if not (usual and native_runs(x) and x.shape[0] * inputs * height * width <= COLUMNS):
        return conv(x)
    columns = torch.nn.functional.unfold(x, side, padding=padding, stride=stride)
    weight = conv.weight.reshape(conv.out_channels, inputs, 1, 1)
    return real.pointwise(columns.view(len(x), inputs, height, width), weight)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """``norm(x)``, a batch norm, by kernels where they run."""
    if not native_runs(x) or not _free(x, norm):
        return norm(x)
    return real.batch_norm(x, *_affine(norm), _called(norm))


def sequence(x: Tensor, parts: nn.Sequential) -> Tensor:
    """``parts(x)``, its convolutions and batch norms by kernels where they run."""
    for part in parts:
        if isinstance(part, nn.Conv2d):
            x = dense(x, part)
        else:
            x = normed(x, part) if isinstance(part, nn.BatchNorm2d) else part(x)
    return x


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """``x * factor``, a scalar; the factor's gradient by kernels where they run."""
    if not native_runs(x) or torch.is_autocast_enabled("cpu"):
        return x * factor
    return real.scaled(x, factor)
