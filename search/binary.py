"""Quantisers and the 1-bit convolution (method.md, section 2).

A quantiser is an object that knows its bit width, ``precision``; cost counting reads that and never asks for
a class. ``sign(0) = +1`` everywhere, so that a 1-bit tensor has exactly two values.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.convolution import conv2d
from search.errors import InputError

Estimator = Literal["ste", "bireal", "identity"]
Scale = Literal["mean_abs", "learned", "none"]
WeightGradient = Literal["unscaled", "scaled"]
Pair = tuple[int, int]


def sign(x: Tensor) -> Tensor:
    """+1 where ``x >= 0`` (so for 0 and -0.0 too), else -1; shape and dtype of ``x``, no gradient.

    Adding 0.0 turns -0.0 into 0.0 and changes nothing else; then the sign bit decides. Two vectorised kernels
    and one temporary, where a comparison and its conversion are slower (measured in tests/benchmarks).
    """
    result = torch.add(x.detach(), 0.0)
    return torch.copysign(result.new_ones(()), result, out=result)


def estimate(gradient: Tensor, x: Tensor, estimator: Estimator, window: float = 1.0) -> Tensor:
    """The gradient that is passed through ``sign`` at ``x``.

    Args:
        gradient: Gradient of the loss in ``sign(x)``, the shape of ``x``.
        x: The input of ``sign``.
        estimator: ``ste``: times 1 for ``|x| <= t``, else 0 (eq. 4.35); ``bireal``: times ``2 - 2|x| / t`` for
            ``|x| <= t``, else 0 (Bi-Real Net, Liu et al. 2018); ``identity``: unchanged.
        window: t, 1 in the literature. A wider one reaches more of the inputs and scales none of them.
    """
    if estimator == "identity":
        return gradient
    if window != 1.0:
        x = x / window
    if estimator == "ste":
        # The open interval of hardtanh's one-kernel derivative, widened by one ulp, is the closed [-1, 1].
        bound = 1 + torch.finfo(x.dtype).eps
        return torch.ops.aten.hardtanh_backward(gradient, x, -bound, bound)
    # r = max(-|x|, -1), then 2 g (r + 1) in one kernel: elu's derivative, given elu's result r <= 0.
    if torch.is_grad_enabled():  # second derivatives are wanted, which forbid to write to a given place
        result = torch.abs(x).neg_().clamp(min=-1.0)
        return torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 2.0, True, result)
    result = torch.copysign(x, -1.0).clamp_(min=-1.0)
    return torch.ops.aten.elu_backward.grad_input(gradient, 1.0, 1.0, 2.0, True, result, grad_input=result)


class _Sign(torch.autograd.Function):
    """``scale o sign(x)`` forward, :func:`estimate` backward: straight through sign and scale together."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, estimator: Estimator, scale: Tensor | None, window: float) -> Tensor:
        ctx.estimator, ctx.window = estimator, window
        ctx.save_for_backward(x)
        return sign(x) if scale is None else sign(x).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return estimate(gradients[0], x, ctx.estimator, ctx.window), None, None, None


def binarise(
    x: Tensor, estimator: Estimator = "ste", scale: Tensor | None = None, window: float = 1.0
) -> Tensor:
    """Differentiable ``scale o sign(x)`` with the chosen gradient estimator; see :func:`estimate`.

    The gradient skips ``scale``, a constant that broadcasts to ``x``: what comes in for ``scale o sign(x)``
    goes to ``x`` unscaled. :class:`SignWeight` says whose rule that is.
    """
    return _Sign.apply(x, estimator, scale, window)


class Quantiser(nn.Module):
    """What is done to a tensor before a convolution multiplies it.

    Attributes:
        precision: Bits of a value after quantisation: 1 or 32.
    """

    @property
    def precision(self) -> int:
        """Bits of a value after quantisation."""
        return 32

    @property
    def rule(self) -> Hashable:
        """Equal for two quantisers that make the same of every map; by default each is a rule of its own."""
        return self


class Shared:
    """A map that several operations read, and what quantisers made of it.

    Every rule is applied once, however many operations ask for it, and the gradients of all that read the
    result are added before they pass back through it.

    Args:
        value: The map, (N, C, H, W).
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._made: dict[Hashable, Any] = {}

    def made(self, key: Hashable, make: Callable[[Tensor], Any]) -> Any:
        """``make(value)``, computed at the first call with ``key``."""
        if key not in self._made:
            self._made[key] = make(self.value)
        return self._made[key]

    def quantised(self, quantiser: Quantiser) -> Tensor:
        """``quantiser(value)``, computed at the first call."""
        made: Tensor = self.made(quantiser.rule, quantiser)
        return made


class Shifted(Shared):
    """A shared map without its first row and column; quantisers act entry by entry, so that theirs is shared too."""

    def __init__(self, source: Shared) -> None:
        super().__init__(source.value[:, :, 1:, 1:])
        self.source = source

    def quantised(self, quantiser: Quantiser) -> Tensor:
        """The same part of what ``quantiser`` makes of the whole map."""
        return self.source.quantised(quantiser)[:, :, 1:, 1:]


def share(x: Tensor | Shared) -> Shared:
    """``x`` as a shared map."""
    return x if isinstance(x, Shared) else Shared(x)


def value_of(x: Tensor | Shared) -> Tensor:
    """The map itself."""
    return x.value if isinstance(x, Shared) else x


class Real(Quantiser):
    """No quantisation: 32 bits, the tensor as it is; after a ReLU where ``relu`` is set (the Parent's twin of sign)."""

    def __init__(self, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        return F.relu(x) if self.relu else x

    @property
    def rule(self) -> Hashable:
        """Whether there is a ReLU."""
        return ("real", self.relu)

    def extra_repr(self) -> str:
        """Printed settings."""
        return f"relu={self.relu}"


class _Switchable(Quantiser):
    """A 1-bit quantiser that staged binarisation can switch off: then it is the identity and has 32 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    @property
    def precision(self) -> int:
        """1 while enabled, 32 while switched off."""
        return 1 if self.enabled else 32


class SignActivation(_Switchable):
    """Activations in one bit: ``b^a = sign(a)``, ``sign(0) = +1``.

    Args:
        estimator: Gradient estimator: ``ste``, ``bireal`` or ``identity``; see :func:`estimate`.
        window: Half the width of the interval where the estimator passes gradients.
    """

    def __init__(self, estimator: Estimator = "bireal", window: float = 1.0) -> None:
        super().__init__()
        self.estimator = _one_of(estimator, get_args(Estimator), "estimator")
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Values in {-1, +1}, the shape of ``x``."""
        return binarise(x, self.estimator, window=self.window) if self.enabled else x

    @property
    def rule(self) -> Hashable:
        """Estimator and window while enabled."""
        return ("sign", self.estimator, self.window) if self.enabled else ("sign", None)

    def extra_repr(self) -> str:
        """Printed settings."""
        return f"estimator={self.estimator}, window={self.window:g}"


class SignWeight(_Switchable):
    """Convolution weights in one bit, ``beta o sign(w)``, with one scale ``beta`` an output channel.

    With g the gradient that comes in for ``beta o sign(w)``, three rules for ``w`` are in use:

    * ``unscaled``: ``g 1[|w| <= 1]``, the rule in the code of Bi-Real Net and of ReActNet: 1 / beta times the next;
    * ``scaled``: ``beta g 1[|w| <= 1]``, the chain rule with a constant beta, eq. (4.34) and (4.35);
    * XNOR-Net prints ``g (1 / n + beta 1[|w| <= 1])``, n the size of a filter: (4.34) and a part for beta's
      own dependence on ``w``. It is not offered here.

    An optimiser that divides by the gradient's size (Adam) sees little of the difference, SGD all of it.

    Args:
        scale: ``mean_abs``: beta = mean |w| of the channel, a constant for the gradient (XNOR-Net's forward pass);
            ``learned``: beta = gain * |M|, M a parameter a channel; ``none``: beta = 1.
        out_channels: Number of output channels.
        estimator: Gradient to ``w`` through sign; ``ste`` is eq. 4.35, ``identity`` does not clip.
        gain: Constant factor of the learned scale (the authors' release uses 0.02 with M ~ N(0, 1)).
        gradient: ``unscaled`` or ``scaled``, for ``mean_abs``; a learned beta is always in the chain: ``scaled``.
    """

    def __init__(
        self,
        scale: Scale = "mean_abs",
        out_channels: int = 1,
        estimator: Estimator = "ste",
        gain: float = 1.0,
        gradient: WeightGradient = "unscaled",
    ) -> None:
        super().__init__()
        self.scale = _one_of(scale, get_args(Scale), "scale")
        self.estimator = _one_of(estimator, get_args(Estimator), "estimator")
        self.gain = gain
        self.gradient = _one_of(gradient, get_args(WeightGradient), "weight gradient")
        if scale == "learned":
            self.magnitude = nn.Parameter(torch.ones(out_channels, 1, 1, 1))
        else:
            self.register_parameter("magnitude", None)

    def beta(self, weight: Tensor) -> Tensor:
        """The scales, shape (out, 1, 1, 1), never negative."""
        if self.scale == "learned":
            return self.gain * self.magnitude.abs()
        if self.scale == "mean_abs":
            return _mean(weight.detach().abs())
        return weight.new_ones(weight.shape[0], 1, 1, 1)

    def forward(self, weight: Tensor) -> Tensor:
        """``beta o sign(weight)``, shape (out, in / groups, k, k)."""
        if not self.enabled:
            return weight
        if self.scale == "none":
            return binarise(weight, self.estimator)
        if self.scale == "learned" or self.gradient == "scaled":
            return binarise(weight, self.estimator) * self.beta(weight)
        return binarise(weight, self.estimator, self.beta(weight))

    def extra_repr(self) -> str:
        """Printed settings."""
        return f"scale={self.scale}, estimator={self.estimator}, gain={self.gain:g}, gradient={self.gradient}"


def _mean(x: Tensor) -> Tensor:
    """Mean over all but the first dimension, (C, 1, 1, 1): summed in float64, so that the order leaves no trace."""
    return x.mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).to(x.dtype)


def _one_of(value: Any, allowed: tuple[str, ...], name: str) -> Any:
    if value not in allowed:
        raise InputError(f"{value!r} is no {name}", allowed=", ".join(allowed))
    return value


class QuantConv2d(nn.Conv2d):
    """A convolution without bias whose input and weights pass through quantisers first (eq. 4.22).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: As in ``nn.Conv2d``.
        input_quantiser: Applied to the input; default none (32 bits).
        weight_quantiser: Applied to the weights; default none (32 bits).
        pad_value: What surrounds the quantised input. The literature pads with 0, which in a +-1 map is a
            third value that contributes nothing; +1 or -1 keep the map two-valued, as an XNOR kernel needs.

    Input (N, C, H, W), also as a :class:`Shared` map; output (N, C', H', W').
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        *,
        input_quantiser: Quantiser | None = None,
        weight_quantiser: Quantiser | None = None,
        pad_value: float = 0.0,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False
        )
        if pad_value not in (-1.0, 0.0, 1.0):
            raise InputError(f"{pad_value!r} is no pad_value", allowed="-1, 0, 1")
        self.input_quantiser = input_quantiser if input_quantiser is not None else Real()
        self.weight_quantiser = weight_quantiser if weight_quantiser is not None else Real()
        self.pad_value = float(pad_value)

    def forward(self, input: Tensor | Shared) -> Tensor:
        """Convolve the quantised input with the quantised weights."""
        quantiser = self.input_quantiser
        x = input.quantised(quantiser) if isinstance(input, Shared) else quantiser(input)
        weight = self.weight_quantiser(self.weight)
        padding: Pair = self.padding  # type: ignore[assignment]
        if self.pad_value != 0.0:
            height, width = padding
            x = F.pad(x, (width, width, height, height), value=self.pad_value)
            padding = (0, 0)
        return conv2d(x, weight, None, self.stride, padding, self.dilation, self.groups)  # type: ignore[arg-type]


def quant_convs(module: nn.Module) -> Iterator[tuple[str, QuantConv2d]]:
    """Every :class:`QuantConv2d` below ``module`` with its dotted name, in registration order."""
    for name, child in module.named_modules():
        if isinstance(child, QuantConv2d):
            yield name, child


def set_stage(module: nn.Module, *, activations: bool, weights: bool) -> None:
    """Staged binarisation: switch all sign quantisers below ``module`` on or off.

    Stage 1 of the two-stage recipe is ``activations=True, weights=False``, stage 2 both. A quantiser that is
    off is the identity and reports 32 bits, so that cost counting follows.
    """
    for child in module.modules():
        if isinstance(child, SignActivation):
            child.enabled = activations
        elif isinstance(child, SignWeight):
            child.enabled = weights


def reconstruction_error(module: nn.Module) -> Tensor:
    """L_R = sum over 1-bit convolutions of ``|| w - beta o sign(w) ||^2`` (eq. 4.23), a scalar.

    The gradient reaches ``w`` (sign is constant almost everywhere) and a learned beta.
    """
    total = torch.zeros((), device=next(module.parameters()).device)
    for _, conv in quant_convs(module):
        quantiser = conv.weight_quantiser
        if isinstance(quantiser, SignWeight) and quantiser.enabled:
            target = sign(conv.weight.detach()) * quantiser.beta(conv.weight)
            total = total + (conv.weight - target).square().sum()
    return total
