"""Gradients of this machine's convolutions against float64: the check that a long run makes before it starts.

A library's kernel can be wrong on one kind of CPU and right on all others (:mod:`search.convolution` names one).
Losses still fall with wrong gradients, so nothing but a comparison shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from search.convolution import Pair, conv2d
from search.errors import InputError

TOLERANCE = 1e-5
"""Largest difference of a float32 gradient from float64's, relative to the gradient's largest entry."""
BATCH, SIDE = 16, 12
"""Images and pixels of the comparison: enough that the library takes the kernels it takes in training."""
CHECKED_CHANNELS = (4, 12)
"""Narrower than a vector with AVX2 (8 numbers), and between that and one with AVX-512 (16)."""
Convolution = Callable[[Tensor, Tensor, Tensor | None, Pair, Pair, Pair, int], Tensor]


@dataclass(frozen=True)
class Layer:
    """A kind of convolution that networks of the suite have; its width varies.

    Attributes:
        kernel, stride, dilation: Of both directions; padding keeps the size at stride 1.
        depthwise: One filter a channel.
        picture: Three input channels, as a stem has; only the outputs vary.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False
    picture: bool = False

    @property
    def name(self) -> str:
        """Such as ``5x5 depthwise stride 2``."""
        parts = [f"{self.kernel}x{self.kernel}"]
        parts += ["depthwise"] * self.depthwise + ["of a picture"] * self.picture
        parts += [f"stride {self.stride}"] * (self.stride > 1)
        return " ".join(parts + [f"dilation {self.dilation}"] * (self.dilation > 1))


LAYERS = (
    *(Layer(kernel, stride) for kernel in (1, 3) for stride in (1, 2)),
    *(Layer(kernel, stride, picture=True) for kernel, stride in ((3, 1), (3, 2), (7, 2))),
    *(Layer(kernel, stride, depthwise=True) for kernel in (3, 5) for stride in (1, 2)),
    *(Layer(kernel, stride, dilation=2, depthwise=True) for kernel in (3, 5) for stride in (1, 2)),
)
"""1x1 (projections, shortcuts, factorised reductions, necks), 3x3 (stems, hand-designed networks), the first layer,
and the depthwise convolutions of separable and dilated operations."""


@dataclass(frozen=True)
class Case:
    """A convolution with its inputs, and the values and gradients that it has in float64.

    Attributes:
        layer: The kind of convolution.
        inputs: Images and weights.
        incoming: The gradient that comes in.
        expected: Output, gradient in the images, gradient in the weights; float64.
    """

    layer: Layer
    inputs: tuple[Tensor, Tensor]
    incoming: Tensor
    expected: list[Tensor]

    @classmethod
    def draw(cls, layer: Layer, channels: int) -> Case:
        """A case with ``channels`` input channels (outputs, for the first layer of a network)."""
        draw = torch.Generator().manual_seed(channels)
        groups = channels if layer.depthwise else 1
        wide = 3 if layer.picture else channels
        outputs = channels if layer.depthwise or layer.picture else max(4, channels)
        side = -(-SIDE // layer.stride)
        x = torch.randn(BATCH, wide, SIDE, SIDE, generator=draw)
        weight = torch.randn(outputs, wide // groups, layer.kernel, layer.kernel, generator=draw)
        incoming = torch.randn(BATCH, outputs, side, side, generator=draw)
        case = cls(layer, (x, weight), incoming, [])
        case.expected.extend(case.run(torch.nn.functional.conv2d, torch.float64, torch.contiguous_format))
        return case

    def run(self, convolution: Convolution, dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
        """Output and gradients by a function like :func:`search.convolution.conv2d`."""
        layer = self.layer
        leaves = [value.to(dtype, memory_format=layout).requires_grad_() for value in self.inputs]
        padding = layer.dilation * (layer.kernel // 2)
        how = ((layer.stride,) * 2, (padding,) * 2, (layer.dilation,) * 2)
        groups = len(self.inputs[1]) if layer.depthwise else 1
        y = convolution(leaves[0], leaves[1], None, *how, groups)  # type: ignore[arg-type]
        gradients = torch.autograd.grad(y, leaves, self.incoming.to(dtype, memory_format=layout))
        return [y.detach(), *gradients]

    def difference(self, channels_last: bool, convolution: Convolution = conv2d) -> float:
        """Largest difference of a float32 value or gradient from float64's, relative to the largest entry.

        Args:
            channels_last: Memory layout of the images, the weights and the gradient that comes in.
            convolution: What is compared.
        """
        layout = torch.channels_last if channels_last else torch.contiguous_format
        found = self.run(convolution, torch.float32, layout)
        return max(
            float((ours.double() - theirs).abs().max() / theirs.abs().max())
            for ours, theirs in zip(found, self.expected, strict=True)
        )


def require_right_gradients(device: torch.device, convolution: Convolution = conv2d) -> None:
    """Stop a run on a machine whose convolutions are wrong, at its number of threads; takes about a second.

    Args:
        device: Where the run computes; nothing is checked but a CPU.
        convolution: What is checked.

    Raises:
        InputError: Names the first kind of convolution that differs from float64.
    """
    for layer in LAYERS if device.type == "cpu" else ():
        for channels in CHECKED_CHANNELS:
            case = Case.draw(layer, channels)
            for channels_last in (True, False):
                difference = case.difference(channels_last, convolution)
                if not difference <= TOLERANCE:  # a NaN is refused too
                    layout = "channels last" if channels_last else "contiguous"
                    raise InputError(
                        f"this machine computes wrong gradients: {layer.name} convolution, {channels} channels, "
                        f"{layout}, {torch.get_num_threads()} threads: off by {difference:.2g} of the largest",
                        allowed=f"{TOLERANCE:g}",
                        mend="use another version of PyTorch or another machine; nothing was trained",
                    )
