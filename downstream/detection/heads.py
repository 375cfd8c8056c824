"""Heads that MMDetection does not have: a 1-bit RPN, and an SSD head that can predict."""

from __future__ import annotations

from typing import Any

from downstream.detection import operators

operators.install()

from mmdet.models.dense_heads import RPNHead, SSDHead  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402

from downstream.detection.convolution import BinaryConv  # noqa: E402


@MODELS.register_module(force=True)
class BinaryRPNHead(RPNHead):
    """RPN whose shared 3x3 convolution is a :class:`BinaryConv`; the two 1x1 predictors stay real.

    RPNHead builds that convolution itself and knows no ``conv_cfg``. Arguments as in RPNHead, ``num_convs``
    1.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        self.rpn_conv = BinaryConv(self.in_channels, self.feat_channels, 3, padding=1)


@MODELS.register_module(force=True)
class SSDPredictionHead(SSDHead):
    """SSDHead with the ``loss_cls`` attribute that mmdet 3.3's prediction asks every head for.

    SSD's loss is computed in the head itself; None tells the prediction that there is no custom activation.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_cls = None
