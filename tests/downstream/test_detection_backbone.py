"""The backbone in MMDetection's registry, frozen stages, weights, and the 1-bit convolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("mmdet", reason="the extra 'detection' is not installed")

import downstream.detection.modules  # noqa: E402, F401 - registers our types
from downstream.detection.backbone import GenotypeBackbone  # noqa: E402
from downstream.detection.convolution import BinaryConv  # noqa: E402
from downstream.models import build  # noqa: E402
from search.binary import quant_convs  # noqa: E402
from search.errors import InputError  # noqa: E402
from search.genotype import published  # noqa: E402
from search.weights import save_weights  # noqa: E402

SMALL = {"channels": 4, "cells": 3}


def small(**changes: Any) -> GenotypeBackbone:
    """A small backbone of a published genotype."""
    return GenotypeBackbone("PC_DARTS_cifar", **{**SMALL, **changes})


@pytest.mark.parametrize("precision", ["1bit", "real"])
@pytest.mark.parametrize("network", ["PC_DARTS_cifar", "resnet-18"])
def test_maps_have_the_strides_and_channels_that_are_announced(network: str, precision: str) -> None:
    backbone = GenotypeBackbone(network, precision=precision, **SMALL)
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.out_channels, (4, 8, 16, 32), strict=True)
    ]
    bits = {conv.weight_quantiser.precision for _, conv in quant_convs(backbone)}
    assert bits == ({1} if precision == "1bit" else bits - {1})


def test_out_strides_choose_and_order_the_maps() -> None:
    backbone = small(out_strides=(32, 8))
    assert [m.shape[-1] for m in backbone(torch.randn(1, 3, 64, 64))] == [2, 8]
    with pytest.raises(InputError, match=r"out_strides \[64\]; allowed: \[4, 8, 16, 32\]"):
        small(out_strides=(4, 64))


def test_genotype_by_file_by_content_and_by_name_is_the_same_network(tmp_path: Path) -> None:
    genotype = published("PC_DARTS_cifar")
    genotype.save(tmp_path / "genotype.json")
    by_name, by_file, by_content = (
        GenotypeBackbone(network, **SMALL)
        for network in ("PC_DARTS_cifar", str(tmp_path / "genotype.json"), genotype.to_dict())
    )
    keys = list(by_name.state_dict())
    assert list(by_file.state_dict()) == keys and list(by_content.state_dict()) == keys


def test_any_mmdet_config_can_use_it_through_custom_imports() -> None:
    from mmdet.registry import MODELS
    from mmengine.config import Config

    config = Config.fromstring(
        "custom_imports = dict(imports=['downstream.detection.modules'], allow_failed_imports=False)\n"
        "model = dict(type='GenotypeBackbone', network='bi-real-18', channels=8, out_strides=(16,))\n",
        ".py",
    )
    (only,) = MODELS.build(config.model)(torch.randn(1, 3, 64, 64))
    assert only.shape[2:] == (4, 4)


@pytest.mark.parametrize("network", ["PC_DARTS_cifar", "resnet-18"])
def test_frozen_stages_do_not_train_and_keep_their_statistics(network: str) -> None:
    torch.manual_seed(0)
    backbone = GenotypeBackbone(network, frozen_stages=2, **SMALL)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    x = torch.randn(2, 3, 64, 64)
    sum(m.square().mean() for m in backbone.train()(x)).backward()
    free = [p for p in backbone.parameters() if p.requires_grad]
    torch.optim.SGD(free, lr=0.1).step()
    backbone.eval()
    with torch.no_grad():
        after = backbone(x)
        current = {key: value.clone() for key, value in backbone.state_dict().items()}
        backbone.load_state_dict(before)
        original = backbone(x)
    unchanged = [torch.equal(a, b) for a, b in zip(after, original, strict=True)]
    assert unchanged == [True, True, False, False]
    assert any("running_mean" in key and not torch.equal(before[key], current[key]) for key in before)


def test_norm_eval_keeps_every_running_statistic() -> None:
    backbone = small(norm_eval=True).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items() if "running" in key}
    backbone(torch.randn(2, 3, 64, 64))
    assert before and all(torch.equal(value, backbone.state_dict()[key]) for key, value in before.items())
    assert backbone.training


def retrained(path: Path, **changes: Any) -> nn.Module:
    """A classifier as the retrain stage would leave it, with recognisable weights."""
    network = build("PC_DARTS_cifar", **{**SMALL, "classes": 7, "stem": "imagenet", **changes})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.5)
    save_weights(path, network)
    return network


def test_retrained_weights_load_by_name_and_leave_the_classifier_out(tmp_path: Path) -> None:
    source = retrained(tmp_path / "model.safetensors", auxiliary=True)
    backbone = small(weights=str(tmp_path / "model.safetensors"))
    backbone.init_weights()
    x = torch.randn(1, 3, 64, 64)
    expected = source.eval().forward_features(x)
    for stride, found in zip(backbone.out_strides, backbone.eval()(x), strict=True):
        assert torch.equal(found, expected[stride])
    assert backbone.load_report is not None
    assert sorted(backbone.load_report.matched) == sorted(backbone.network.state_dict())


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        ({"channels": 8}, "config.channels: 8 in the file, 4 wanted"),
        ({"precision": "real"}, "config.style.binary: False in the file, True wanted"),
    ],
)
def test_weights_of_another_backbone_stop_with_the_differences(
    tmp_path: Path, trained: dict[str, Any], message: str
) -> None:
    retrained(tmp_path / "model.safetensors", **trained)
    with pytest.raises(InputError, match=message):
        small(weights=str(tmp_path / "model.safetensors")).init_weights()


def test_missing_weights_stop(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weights file"):
        small(weights=str(tmp_path / "none.safetensors")).init_weights()


def test_binary_conv_is_a_scaled_sign_product_with_a_real_bias() -> None:
    torch.manual_seed(0)
    conv = BinaryConv(3, 5, 3, padding=1)
    with torch.no_grad():
        conv.bias.uniform_(-1, 1)
    x = torch.randn(2, 3, 6, 6)
    signs_x, signs_w = (torch.where(t >= 0, 1.0, -1.0) for t in (x, conv.weight))
    beta = conv.weight.abs().mean((1, 2, 3), keepdim=True)
    expected = F.conv2d(signs_x, beta * signs_w, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), expected)
    assert (conv.input_quantiser.precision, conv.weight_quantiser.precision) == (1, 1)


def test_pre_norm_lets_a_binary_conv_see_through_a_relu() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 3, 8, 8)  # never negative: every sign is +1
    plain, centred = BinaryConv(3, 5, 1), BinaryConv(3, 5, 1, pre_norm=True)
    assert float(plain(x).std(dim=(0, 2, 3)).detach().max()) == 0
    assert float(centred(x).std(dim=(0, 2, 3)).detach().min()) > 0


def test_fpn_takes_binary_convs_by_conv_cfg_and_trains_their_biases() -> None:
    from mmdet.models import FPN

    torch.manual_seed(0)
    neck = FPN([8, 16], 6, num_outs=3, conv_cfg={"type": "BinaryConv", "pre_norm": True})
    neck.init_weights()
    outputs = neck((torch.randn(2, 8, 16, 16).relu(), torch.randn(2, 16, 8, 8).relu()))
    sum(output.square().sum() for output in outputs).backward()
    convs = [module for module in neck.modules() if isinstance(module, BinaryConv)]
    assert len(convs) == 4
    for conv in convs:
        assert float(conv.weight.grad.abs().sum()) > 0 and float(conv.bias.grad.abs().sum()) > 0
