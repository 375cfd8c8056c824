"""Hand-made networks to compare with: XNOR-Net, Bi-Real Net, ReActNet, plain ResNets, 1-bit and real.

Published definitions:

* ``resnet-18``, ``resnet-34``: He et al., CVPR 2016. In one bit: sign -> conv -> BN twice, one shortcut
  around both (a real 1x1 convolution where the shape changes), no ReLU, since its sign would be constant.
* ``xnor-net-18``: Rastegari et al., ECCV 2016, ResNet-18 with type-B shortcuts: BN -> sign -> conv, and
  everything but the first convolution and the classifier in one bit, so the shortcuts' 1x1 convolutions
  too. The paper's scaling of the input by K is left out.
* ``bi-real-18``, ``bi-real-34``: Liu et al., ECCV 2018: a shortcut around every convolution; where the shape
  changes, average pooling and a real 1x1 convolution with BN.
* ``reactnet-18``, ``reactnet-a``: Liu et al., ECCV 2020: a learned shift before sign (RSign) and a PReLU
  between two learned shifts (RPReLU), on the blocks of Bi-Real-18 and on those of MobileNetV1.

The real-valued twin of a 1-bit network has a ReLU in place of every sign and real weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from search import exact
from search.backbone import BackboneModule, Precision
from search.binary import Estimator, QuantConv2d, Real, SignActivation, SignWeight
from search.convolution import Conv2d
from search.errors import InputError, nearest
from search.files import sha256_json

Stem = Literal["cifar", "imagenet"]
MINIMUM_DETECTION_STRIDE = 4


@dataclass(frozen=True)
class _Maker:
    """Makes a network's quantised convolutions, 1-bit or those of its real twin."""

    binary: bool
    estimator: Estimator = "bireal"

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> QuantConv2d:
        return QuantConv2d(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2,
            input_quantiser=SignActivation(self.estimator) if self.binary else Real(relu=True),
            weight_quantiser=SignWeight("mean_abs", outputs) if self.binary else Real(),
        )


Block = Callable[[int, int, int, _Maker], nn.Module]


class Shift(nn.Module):
    """A learned bias a channel, zero at first: RSign's threshold, RPReLU's shifts. Keeps (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``x + bias``."""
        return x + self.bias


class RPReLU(nn.Sequential):
    """ReActNet's activation: shift, PReLU a channel, shift. Keeps (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(Shift(channels), nn.PReLU(channels), Shift(channels))


class ResidualBlock(nn.Module):
    """ResNet's basic block: two 3x3 convolutions and one shortcut; (N, C, H, W) to (N, C', H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int, make: _Maker) -> None:
        super().__init__()
        self.conv1 = make.conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = make.conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.act = nn.Identity() if make.binary else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Both convolutions, then the shortcut's sum (and ReLU in the real network)."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return self.act(y + self.shortcut(x))


class XnorBlock(nn.Module):
    """XNOR-Net's order in a ResNet block: BN, sign, convolution, twice; the type-B shortcut is 1-bit too."""

    def __init__(self, inputs: int, outputs: int, stride: int, make: _Maker) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = make.conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = make.conv(outputs, outputs, 3)
        self.shortcut = make.conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H/s, W/s), rounded up."""
        normed = self.bn1(x)
        y = self.conv2(self.bn2(self.conv1(normed)))
        return y + (x if self.shortcut is None else self.shortcut(normed))


class BiRealBlock(nn.Module):
    """Bi-Real Net's block, one convolution and its shortcut; with ``react`` ReActNet's RSign and RPReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, make: _Maker, react: bool = False) -> None:
        super().__init__()
        self.shift = Shift(inputs) if react else nn.Identity()
        self.conv = make.conv(inputs, outputs, 3, stride)
        self.bn = nn.BatchNorm2d(outputs)
        shortcut: list[nn.Module] = []
        if stride != 1:
            shortcut.append(nn.AvgPool2d(2, stride, ceil_mode=True))
        if inputs != outputs:
            shortcut += [Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*shortcut)
        self.act = RPReLU(outputs) if react else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H/s, W/s), rounded up."""
        return self.act(self.bn(self.conv(self.shift(x))) + self.shortcut(x))


class Pointwise(nn.Module):
    """ReActNet's 1x1 half block; two convolutions of one input, each with a shortcut, double the channels."""

    def __init__(self, inputs: int, outputs: int, make: _Maker) -> None:
        super().__init__()
        self.shift = Shift(inputs)
        copies = range(outputs // inputs)
        self.convs = nn.ModuleList(make.conv(inputs, inputs, 1) for _ in copies)
        self.norms = nn.ModuleList(nn.BatchNorm2d(inputs) for _ in copies)
        self.act = RPReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H, W), C' = C or 2 C."""
        shifted = self.shift(x)
        halves = [norm(conv(shifted)) + x for conv, norm in zip(self.convs, self.norms, strict=True)]
        return self.act(torch.cat(halves, dim=1))


def _react_block(inputs: int, outputs: int, stride: int, make: _Maker) -> nn.Module:
    return BiRealBlock(inputs, outputs, stride, make, react=True)


def _react_mobile_block(inputs: int, outputs: int, stride: int, make: _Maker) -> nn.Module:
    return nn.Sequential(
        BiRealBlock(inputs, inputs, stride, make, react=True), Pointwise(inputs, outputs, make)
    )


@dataclass(frozen=True)
class _Definition:
    """One published network: its block, blocks a stage, stem and estimator; widths in units of the stem's."""

    block: Block
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (1, 2, 4, 8)
    channels: int = 64
    estimator: Estimator = "bireal"
    mobile_stem: bool = False
    relu_stem: bool = False
    final_norm: bool = False


_DEFINITIONS = {
    "xnor-net-18": _Definition(XnorBlock, (2, 2, 2, 2), estimator="ste", relu_stem=True, final_norm=True),
    "bi-real-18": _Definition(BiRealBlock, (4, 4, 4, 4)),
    "bi-real-34": _Definition(BiRealBlock, (6, 8, 12, 6)),
    "reactnet-18": _Definition(_react_block, (4, 4, 4, 4)),
    "resnet-18": _Definition(ResidualBlock, (2, 2, 2, 2)),
    "resnet-34": _Definition(ResidualBlock, (3, 4, 6, 3)),
    "reactnet-a": _Definition(
        _react_mobile_block, (1, 2, 2, 6, 2), widths=(2, 4, 8, 16, 32), channels=32, mobile_stem=True
    ),
}
NAMES = tuple(sorted(_DEFINITIONS))
"""The hand-made networks."""


def _stem(definition: _Definition, channels: int, stem: Stem, rectify: bool) -> tuple[nn.Sequential, int]:
    """The real first layers and their stride: 7x7 and pooling (ResNets) or 3x3 (MobileNet); 3x3 on CIFAR."""
    if stem == "cifar" or definition.mobile_stem:
        stride = 1 if stem == "cifar" else 2
        layers: list[nn.Module] = [Conv2d(3, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)]
        return nn.Sequential(*layers, *([nn.ReLU()] if rectify else [])), stride
    layers = [Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers, *([nn.ReLU()] if rectify else []), nn.MaxPool2d(3, 2, 1)), 4


class HandmadeNetwork(BackboneModule):
    """A stem, stages that halve the resolution, global average pooling and a linear classifier.

    Args:
        name: One of :data:`NAMES`.
        precision: ``1bit``, or ``real`` for the twin with ReLUs and real weights.
        classes: Outputs of the classifier.
        stem: ``imagenet`` as published, or ``cifar``: a 3x3 convolution at stride 1 and no pooling.
        channels: Width of the stem; every other width follows.
        last_stride: Stride of the last stage; 1 keeps the resolution (re-ID practice).

    Input (N, 3, H, W), any size from 32 up; halves are rounded up.
    """

    def __init__(
        self,
        name: str,
        *,
        precision: Precision,
        classes: int,
        stem: Stem,
        channels: int,
        last_stride: int = 2,
    ) -> None:
        super().__init__()
        definition = _DEFINITIONS[name]
        make = _Maker(precision == "1bit", definition.estimator)
        self._architecture: dict[str, Any] = {
            "kind": "handmade",
            "network": name,
            "precision": precision,
            "classes": classes,
            "stem": stem,
            "channels": channels,
            "last_stride": last_stride,
        }
        plain_real = definition.block is ResidualBlock and precision == "real"
        self.stem, stride = _stem(definition, channels, stem, definition.relu_stem or plain_real)
        self.stages = nn.ModuleList()
        self.strides = []
        self.feature_channels = {}
        self._first_stride = MINIMUM_DETECTION_STRIDE if stem == "imagenet" else 1
        width, last = channels, len(definition.depths) - 1
        for index, (depth, factor) in enumerate(zip(definition.depths, definition.widths, strict=True)):
            step = 1 if index == 0 else last_stride if index == last else 2
            stride *= step
            outputs = factor * channels
            blocks = [definition.block(width, outputs, step, make)]
            blocks += [definition.block(outputs, outputs, 1, make) for _ in range(1, depth)]
            self.stages.append(nn.Sequential(*blocks))
            self.strides.append(stride)
            width = outputs
            if stride >= self._first_stride:
                self.feature_channels[stride] = outputs
        final = [nn.BatchNorm2d(width), nn.ReLU()] if definition.final_norm else []
        self.tail = nn.Sequential(*final)
        self.num_features = width
        self.classifier = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def architecture(self) -> dict[str, Any]:
        """What must be known to build this network again, as JSON values."""
        return self._architecture

    @property
    def genotype_hash(self) -> None:
        """There is no genotype."""
        return None

    @property
    def precision(self) -> Precision:
        """``1bit`` or ``real``."""
        return self._architecture["precision"]  # type: ignore[no-any-return]

    @property
    def architecture_hash(self) -> str:
        """Hash (sha256, hex) of ``architecture``."""
        return sha256_json(self.architecture)

    def forward_features(self, x: Tensor) -> dict[int, Tensor]:
        """The last map of every stride: 4 to 32 with the ImageNet stem, from 1 on with the CIFAR stem."""
        features = {}
        x = self.stem(x)
        for stride, stage in zip(self.strides, self.stages, strict=True):
            x = stage(x)
            if stride >= self._first_stride:
                features[stride] = x
        return features

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the pooled vector before the classifier, (N, num_features)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return exact.spatial_mean(self.tail(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, classes)."""
        return exact.linear(self.embed(x), self.classifier)


def build(
    name: str,
    *,
    precision: Precision = "1bit",
    classes: int = 1000,
    stem: Stem = "imagenet",
    channels: int | None = None,
    last_stride: int = 2,
) -> HandmadeNetwork:
    """A hand-made network; arguments as in :class:`HandmadeNetwork`, ``channels`` as published by default.

    Raises:
        InputError: For an unknown name or a value out of range.
    """
    if name not in _DEFINITIONS:
        hint = nearest(name, NAMES)
        raise InputError(
            f"no hand-made network {name!r}" + (f", did you mean {hint!r}?" if hint else ""),
            allowed=", ".join(NAMES),
        )
    for key, value, allowed in (
        ("precision", precision, get_args(Precision)),
        ("stem", stem, get_args(Stem)),
    ):
        if value not in allowed:
            raise InputError(f"{value!r} is no {key}", allowed=", ".join(allowed))
    if last_stride not in (1, 2):
        raise InputError(f"last_stride {last_stride}", allowed="1, 2")
    width = _DEFINITIONS[name].channels if channels is None else channels
    for key, number in (("channels", width), ("classes", classes)):
        if number < 1:
            raise InputError(f"{number} {key}", allowed="1 or more")
    return HandmadeNetwork(
        name, precision=precision, classes=classes, stem=stem, channels=width, last_stride=last_stride
    )


def rebuild(architecture: dict[str, Any]) -> HandmadeNetwork:
    """The network that an ``architecture`` description stands for."""
    settings = {key: value for key, value in architecture.items() if key not in ("kind", "network")}
    return build(architecture["network"], **settings)
