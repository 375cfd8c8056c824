"""The eight operations of the search space in three forms (method.md, section 2).

``paper`` (fig. 4.8): the Child is sign, depthwise, batch norm, sign, pointwise, batch norm, everything W1A1. Its
Parent is by default the figure's original branch: ReLU, depthwise, pointwise, batch norm; see
:class:`search.style.BlockSettings` for the others.
``released``: the layer order of the authors' released network; only pointwise convolutions inside operations
are W1A1, depthwise, preprocessing and reduction convolutions are W1A32.
``darts``: ReLU, depthwise, pointwise, batch norm, as DARTS defines it; always real-valued.

The convolutions of a Child (``binary=True``) and of its Parent (``binary=False``) have the same names, so that they
correspond one to one; quantisers differ, and so may norms. Every operation also takes its input as a
:class:`search.binary.Shared` map, which is quantised once for all operations that read it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.binary import Shared, Shifted, share, value_of
from search.errors import InputError
from search.kernels import modules
from search.style import OperationStyle

Map = Tensor | Shared

RELEASED_EPS = 1e-3


class Zero(nn.Module):
    """The operation ``none``: zeros of the output's shape, without touching the input's values."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Map) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        x = value_of(x)
        height, width = (-(-size // self.stride) for size in x.shape[2:])
        return x.new_zeros(x.shape[0], x.shape[1], height, width)


class Pool(nn.Module):
    """3x3 pooling with padding 1, then batch norm where the style asks for one; averages do not count padding."""

    def __init__(self, kind: str, channels: int, stride: int, style: OperationStyle) -> None:
        super().__init__()
        self.kind = kind
        self.stride = stride
        eps = RELEASED_EPS if style.form == "released" else 1e-5
        self.norm = nn.Identity() if style.pool_norm == "never" else style.norm(channels, eps)

    def forward(self, x: Map) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        pooled = modules.pool(share(x), self.kind == "avg_pool_3x3", self.stride, self.norm)
        if pooled is not None:
            return pooled
        x = value_of(x)
        if self.kind == "max_pool_3x3":
            return self.norm(F.max_pool2d(x, 3, self.stride, 1))
        return self.norm(F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False))


class PaperBlock(nn.Module):
    """Quantise, depthwise k x k, batch norm, quantise, pointwise, batch norm: fig. 4.8's Child, and its twin."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, style: OperationStyle
    ) -> None:
        super().__init__()
        self.depthwise = style.depthwise_conv(inputs, kernel, stride, dilation)
        self.depthwise_norm = style.norm(inputs)
        self.pointwise = style.conv(inputs, outputs, 1, activate=True)
        self.pointwise_norm = style.norm(outputs)

    def forward(self, x: Map) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        x = share(x)
        parts = (self.depthwise, self.depthwise_norm, self.pointwise, self.pointwise_norm)
        whole = modules.paper_block(x, *parts)
        if whole is not None:
            return whole
        return self.pointwise_norm(self.pointwise(self.depthwise_norm(self.depthwise(x))))


class DartsBlock(nn.Module):
    """ReLU, depthwise k x k, pointwise, batch norm: DARTS's block, and fig. 4.8's original branch."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, style: OperationStyle
    ) -> None:
        super().__init__()
        self.depthwise = style.depthwise_conv(inputs, kernel, stride, dilation)
        self.pointwise = style.conv(inputs, outputs, 1, activate=False)
        self.pointwise_norm = style.norm(outputs)

    def forward(self, x: Map) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        x = share(x)
        whole = modules.real_block(x, self.depthwise, self.pointwise, self.pointwise_norm)
        return self.pointwise_norm(self.pointwise(self.depthwise(x))) if whole is None else whole


class ReleasedBlock(nn.Module):
    """The authors' block: BN, W1A32 depthwise, BN, PReLU, W1A1 pointwise, BN, shortcut at stride 1, PReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, style: OperationStyle
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        self.norm = style.norm(inputs, RELEASED_EPS)
        self.depthwise = style.conv(
            inputs, inputs, kernel, activate=False, stride=stride, dilation=dilation, groups=inputs
        )
        self.depthwise_norm = style.norm(inputs, RELEASED_EPS)
        self.depthwise_act = nn.PReLU(inputs)
        self.pointwise = style.conv(inputs, outputs, 1, activate=True)
        self.pointwise_norm = style.norm(outputs, RELEASED_EPS)
        self.pointwise_act = nn.PReLU(outputs)

    def forward(self, x: Map) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        x = value_of(x)
        y = self.depthwise_act(self.depthwise_norm(self.depthwise(self.norm(x))))
        y = self.pointwise_norm(self.pointwise(y))
        return self.pointwise_act(y + x if self.shortcut else y)


class Project(nn.Module):
    """The preprocessing 1x1 convolution: activation or BN, 1x1 convolution, BN (and PReLU in ``released``)."""

    def __init__(self, inputs: int, outputs: int, style: OperationStyle) -> None:
        super().__init__()
        released = style.form == "released"
        self.pre_norm = style.norm(inputs) if released else nn.Identity()
        self.conv = style.conv(inputs, outputs, 1, activate=not released)
        self.norm = style.norm(outputs, RELEASED_EPS) if released else style.norm(outputs)
        self.act = nn.PReLU(outputs) if released else nn.Identity()

    def quantise(self, x: Shared) -> None:
        """Quantise ``x`` now, where :meth:`forward` will read it so."""
        if isinstance(self.pre_norm, nn.Identity):
            modules.quantise(x, self.conv)

    def forward(self, x: Map) -> Tensor:
        """(N, C, H, W) to (N, C', H, W)."""
        x = _normed(self.pre_norm, x)
        whole = modules.projection(x, self.conv, self.norm)
        return self.act(self.norm(self.conv(x)) if whole is None else whole)


class FactorisedReduce(nn.Module):
    """Halve the resolution by two 1x1 stride-2 convolutions, the second on the input shifted by one pixel.

    An odd size is padded by one row and column *before* the quantiser, so that the convolution still sees two
    values and both halves have size ceil(H / 2). With ``stride=1`` (a network whose last stride is 1) the same
    weights keep the resolution, without the shift.
    """

    def __init__(self, inputs: int, outputs: int, style: OperationStyle, stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        if outputs % 2:
            raise InputError(f"{outputs} channels cannot be halved", mend="choose an even number of channels")
        released = style.form == "released"
        self.pre_norm = style.norm(inputs) if released else nn.Identity()
        self.conv_even = style.conv(inputs, outputs // 2, 1, activate=not released, stride=stride)
        self.conv_odd = style.conv(inputs, outputs // 2, 1, activate=not released, stride=stride)
        self.norm = style.norm(outputs, RELEASED_EPS) if released else style.norm(outputs)
        self.act = nn.PReLU(outputs) if released else nn.Identity()

    def quantise(self, x: Shared) -> None:
        """Quantise ``x`` now, where :meth:`forward` will read it so."""
        if isinstance(self.pre_norm, nn.Identity):
            modules.quantise(x, self.conv_even)

    def forward(self, x: Map) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        even = _normed(self.pre_norm, x)
        whole = modules.reduction(even, self.conv_even, self.conv_odd, self.norm, self.stride)
        if whole is not None:
            return self.act(whole)
        odd = self._shifted(even) if self.stride == 2 else even
        return self.act(self.norm(torch.cat([self.conv_even(even), self.conv_odd(odd)], dim=1)))

    @staticmethod
    def _shifted(x: Shared) -> Shared:
        shifted = Shifted(x)
        height, width = x.value.shape[2:]
        if height % 2 or width % 2:
            return Shared(F.pad(shifted.value, (0, width % 2, 0, height % 2)))
        return shifted


def _normed(norm: nn.Module, x: Map) -> Shared:
    """Normalised, or, where there is no norm, the very map that other operations share."""
    return share(x) if isinstance(norm, nn.Identity) else Shared(norm(value_of(x)))


Block = PaperBlock | DartsBlock | ReleasedBlock
_BLOCKS: dict[str, type[Block]] = {"paper": PaperBlock, "released": ReleasedBlock, "darts": DartsBlock}


def block_of(style: OperationStyle) -> type[Block]:
    """The class of a style's convolutional block."""
    return DartsBlock if style.original else _BLOCKS[style.form]


def build_operation(
    name: str, channels: int, stride: int, style: OperationStyle, reduction: bool | None = None
) -> nn.Module:
    """One of the eight operations on ``channels`` channels at stride 1 or 2.

    Args:
        name: A name of :data:`search.space.KNOWN_OPERATIONS`.
        channels: Input and output channels.
        stride: 1, or 2 for the edges from a reduction cell's inputs.
        style: Form and precision.
        reduction: Whether the edge leaves a reduction cell's input, so that a skip connection has weights; by
            default where the stride is 2.
    """
    if name == "none":
        return Zero(stride)
    if name in ("max_pool_3x3", "avg_pool_3x3"):
        return Pool(name, channels, stride, style)
    if name == "skip_connect":
        reduces = stride == 2 if reduction is None else reduction
        return FactorisedReduce(channels, channels, style, stride) if reduces else nn.Identity()
    block = block_of(style)
    kernel = int(name[-1])
    if name.startswith("dil_conv"):
        return block(channels, channels, kernel, stride, 2, style)
    if name.startswith("sep_conv"):
        return nn.Sequential(
            block(channels, channels, kernel, stride, 1, style),
            block(channels, channels, kernel, 1, 1, style),
        )
    raise InputError(f"unknown operation {name!r}")
