"""``BinaryConv``: a 1-bit convolution for MMDetection's ``conv_cfg``, for FPN and RPN."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from search.binary import Estimator, QuantConv2d, Scale, Shared, SignActivation, SignWeight, value_of


@MODELS.register_module(force=True)
class BinaryConv(QuantConv2d):
    """W1A1 convolution with an optional real bias: ``conv_cfg=dict(type='BinaryConv')``.

    mmdet's FPN and RPN convolutions have a bias and no normalisation; both stay possible here. The bias is
    real and added after the scaled 1-bit product, so the layer costs BOPs and one addition an output.

    What a sign sees matters: after a ReLU every sign is +1 and the layer would be a constant. With
    ``pre_norm`` the input is batch-normalised first (XNOR-Net's order: BN, sign, 1-bit convolution), which
    centres each channel; FPN's convolutions use it. RPN's convolution reads the FPN's signed outputs on all
    levels with one set of weights and does without.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: As in ``nn.Conv2d``.
        bias: Add a real bias to the output.
        pre_norm: Batch-normalise the input before the sign.
        estimator: Gradient estimator of the activations.
        scale: Scale of the weights.
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
        bias: bool = True,
        *,
        pre_norm: bool = False,
        estimator: Estimator = "bireal",
        scale: Scale = "mean_abs",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            input_quantiser=SignActivation(estimator),
            weight_quantiser=SignWeight(scale, out_channels),
        )
        self.pre_norm = nn.BatchNorm2d(in_channels) if pre_norm else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, input: Tensor | Shared) -> Tensor:
        """(N, in, H, W) to (N, out, H', W')."""
        y = super().forward(self.pre_norm(value_of(input)))
        return y if self.bias is None else y + self.bias[:, None, None]
