"""Styles of operations: the Parent's block, the 1-bit variants, and descriptions from before a choice had a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from downstream.models import build, load_network
from search.binary import QuantConv2d, quant_convs
from search.cost import count
from search.errors import InputError
from search.files import sha256_json
from search.genotype import EDGES, OPERATIONS, published
from search.network import NetworkConfig
from search.operations import DartsBlock, PaperBlock, Pool, block_of, build_operation
from search.style import BlockSettings, OperationStyle, forbid_two_blocks, require_block
from search.supernet import Architecture, Supernet
from search.weights import save_weights
from tests.search.tiny import BLOCK


def paper_network(binary: bool, **style: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(
        "DDPNAS_MCN_2", precision="1bit" if binary else "real", channels=4, cells=3, classes=5,
        style=OperationStyle(**style),
    )  # fmt: skip


def steps(module: nn.Module, x: Tensor) -> list[str]:
    """Kinds of what runs in a block, in order; a convolution is preceded by what it does to its input."""
    ran: list[str] = []

    def note(part: nn.Module, *_call: Any) -> None:
        if isinstance(part, QuantConv2d):
            quantiser = part.input_quantiser
            before = "sign" if quantiser.precision == 1 else "relu" if getattr(quantiser, "relu", 0) else ""
            kind = "depthwise" if part.groups > 1 else "1x1"
            ran.extend([*([before] if before else []), f"{kind} {part.weight_quantiser.precision}"])
        elif isinstance(part, nn.BatchNorm2d):
            ran.append("norm")

    handles = [part.register_forward_hook(note) for part in module.modules()]
    module(x)
    for handle in handles:
        handle.remove()
    return ran


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ({}, "sign, depthwise 1, norm, sign, 1x1 1, norm"),
        ({"depthwise": "w1a32"}, "depthwise 1, norm, sign, 1x1 1, norm"),
        ({"depthwise": "w32a32"}, "depthwise 32, norm, sign, 1x1 1, norm"),
        ({"binary": False}, "relu, depthwise 32, 1x1 32, norm"),
        ({"binary": False, "depthwise": "w1a32"}, "relu, depthwise 32, 1x1 32, norm"),
        ({"binary": False, "parent_block": "twin"}, "relu, depthwise 32, norm, relu, 1x1 32, norm"),
        (
            {"binary": False, "parent_block": "twin", "depthwise": "w1a32"},
            "depthwise 32, norm, relu, 1x1 32, norm",
        ),
        ({"binary": False, "form": "darts"}, "relu, depthwise 32, 1x1 32, norm"),
    ],
)
def test_order_of_a_block(style: dict[str, Any], expected: str) -> None:
    """Fig. 4.8: the Child has a norm and a sign between its convolutions, the original branch has nothing."""
    operation = build_operation("dil_conv_3x3", 4, 1, OperationStyle(**style))
    assert ", ".join(steps(operation, torch.randn(2, 4, 6, 6))) == expected


def test_the_original_block_is_the_formula() -> None:
    style = OperationStyle(binary=False)
    assert block_of(style) is DartsBlock and block_of(OperationStyle()) is PaperBlock
    block = DartsBlock(4, 4, 3, 1, 1, style).double().eval()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    y = nn.functional.conv2d(x.relu(), block.depthwise.weight, padding=1, groups=4)
    y = nn.functional.conv2d(y, block.pointwise.weight) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), y)


@pytest.mark.parametrize("parent_block", ["original", "twin"])
def test_convolutions_of_child_and_parent_correspond(parent_block: str) -> None:
    """By name, shape, stride and dilation, so that weights can be shared, tied and inherited."""
    child, parent = (paper_network(binary, parent_block=parent_block) for binary in (True, False))
    ours, theirs = (
        [(name, c.weight.shape, c.stride, c.dilation) for name, c in quant_convs(n)] for n in (child, parent)
    )
    assert ours == theirs and len(ours) > 20
    assert not [c for _, c in quant_convs(parent) if c.weight_quantiser.precision == 1]


def norms_behind_pools(network: nn.Module) -> set[bool]:
    return {isinstance(m.norm, nn.BatchNorm2d) for m in network.modules() if isinstance(m, Pool)}


@pytest.mark.parametrize(
    ("style", "derived", "in_supernet"),
    [
        ({}, True, True),
        ({"binary": False}, False, True),
        ({"binary": False, "parent_block": "twin"}, True, True),
        ({"binary": False, "pool_norm": "always"}, True, True),
        ({"pool_norm": "never"}, False, False),
        ({"pool_norm": "supernet"}, False, True),
    ],
)
def test_norms_behind_pools(style: dict[str, Any], derived: bool, in_supernet: bool) -> None:
    """The original Parent has them in supernets only, as DARTS; ``pool_norm`` overrules any form."""
    chosen = OperationStyle(**style)
    genotype = published("DARTS_V1")
    network = build(
        genotype, precision="1bit" if chosen.binary else "real", channels=4, cells=3, style=chosen
    )
    assert norms_behind_pools(network) == {derived}
    assert norms_behind_pools(Supernet(NetworkConfig(4, 3, 5, "cifar", chosen))) == {in_supernet}


@pytest.mark.parametrize("of_supernet", [True, False])
def test_a_norm_behind_each_node(of_supernet: bool) -> None:
    """Every node's sum comes out with mean 0 and variance 1 a channel."""
    style, x = OperationStyle(node_norm=True), torch.randn(8, 3, 32, 32)
    if of_supernet:
        separable = (OPERATIONS.index("sep_conv_3x3"),) * len(EDGES)
        network = Supernet(NetworkConfig(4, 3, 5, "cifar", style))
        maps = network.features(x, Architecture(separable, separable))
    else:
        network = paper_network(True, node_norm=True)
        maps = network.forward_features(x)[4]
    torch.testing.assert_close(maps.mean((0, 2, 3)), torch.zeros(maps.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        maps.var((0, 2, 3), correction=0), torch.ones(maps.shape[1]), atol=0.02, rtol=0
    )


def test_costs_follow_the_depthwise_convolutions() -> None:
    """The same MACs in all; those of depthwise convolutions move from 1 bit to W1A32 to real."""
    found = {
        kind: count(paper_network(True, depthwise=kind), (3, 32, 32)) for kind in (None, "w1a32", "w32a32")
    }
    depthwise = sum(layer.macs for layer in found[None].layers if layer.name.endswith(".depthwise"))
    assert depthwise > 0 and len({report.macs for report in found.values()}) == 1
    assert found["w1a32"].w1a32_macs == depthwise == found[None].bops - found["w1a32"].bops
    assert found["w32a32"].flops == depthwise + found[None].flops
    assert found["w32a32"].binary_weights < found["w1a32"].binary_weights == found[None].binary_weights


# ---- descriptions of before

FIRST = {
    "form": "paper", "binary": False, "affine": True, "running_statistics": True, "pool_norm": True,
    "estimator": "bireal", "scale": None, "pad_value": 0.0, "learned_gain": 0.02,
}  # fmt: skip
"""A real-valued network's style as the first version wrote it, which knew no ``parent_block``."""


def test_a_style_without_the_key_is_a_twin() -> None:
    assert OperationStyle.read(FIRST).parent_block == "twin"
    assert OperationStyle.read(FIRST).pool_norm == "own"
    assert OperationStyle.read(FIRST | {"pool_norm": False}).pool_norm == "never"
    assert OperationStyle.read(FIRST | {"parent_block": "original"}).parent_block == "original"


def test_networks_from_before_keep_their_description() -> None:
    """So their weight files' hashes still hold: of a Child always, of a Parent if it is a twin."""
    assert OperationStyle().describe() == FIRST | {"binary": True}
    assert OperationStyle(binary=False, parent_block="twin").describe() == FIRST
    assert OperationStyle(binary=False).describe() == FIRST | {"parent_block": "original"}
    assert OperationStyle(form="released").describe() == FIRST | {"form": "released", "binary": True}


@pytest.mark.parametrize(
    "style",
    [
        {"binary": False},
        {"depthwise": "w1a32", "node_norm": True, "estimator_window": 1.5, "weight_gradient": "scaled"},
        {"form": "released", "pool_norm": "never", "scale": "mean_abs"},
        {"form": "darts", "binary": False, "pool_norm": "always"},
    ],
)
def test_a_description_is_read_back(style: dict[str, Any]) -> None:
    chosen = OperationStyle(**style)
    again = OperationStyle.read(json.loads(json.dumps(chosen.describe())))
    assert again.describe() == chosen.describe()
    assert again.published.pool_norm == chosen.published.pool_norm
    if not chosen.binary:
        assert again.original == chosen.original


def test_a_weight_file_of_before_is_read_as_the_network_it_was(tmp_path: Path) -> None:
    """Header and hash as the first version wrote them."""
    twin = paper_network(False, parent_block="twin").eval()
    save_weights(tmp_path / "now.safetensors", twin)
    genotype, config = (
        twin.genotype,
        {"channels": 4, "cells": 3, "classes": 5, "stem": "cifar", "style": FIRST},
    )
    config |= {"auxiliary": False, "last_stride": 2}
    header = {
        "architecture": json.dumps({"kind": "genotype", "genotype": genotype.to_dict(), "config": config}),
        "architecture_hash": sha256_json({"genotype": genotype.hash, "config": config}),
    }
    with safe_open(tmp_path / "now.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    save_file(tensors, tmp_path / "before.safetensors", metadata=header)
    read, _ = load_network(tmp_path / "before.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(read.eval()(x), twin(x))
    with pytest.raises(InputError, match="these weights are of architecture"):
        load_network(tmp_path / "before.safetensors", paper_network(False))


# ---- settings


def test_settings_make_the_style() -> None:
    settings = BlockSettings(**BLOCK)
    assert settings.style("paper", True, "bireal") == OperationStyle()
    assert settings.untrained("released", False) == OperationStyle(form="released", binary=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OperationStyle(parent_block="twins"), "'twins' is no parent_block; allowed: original, twin"),  # type: ignore[arg-type]
        (
            lambda: OperationStyle(form="released", depthwise="w1a32"),
            "depthwise: w1a32: the form 'released' has its own depthwise convolutions",
        ),
        (lambda: OperationStyle.read(FIRST | {"colour": 1}), "unknown key 'colour' in a style"),
    ],
)
def test_wrong_styles_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)


def test_blocks_of_transfer_are_said_once() -> None:
    forbid_two_blocks(True, None)
    forbid_two_blocks(False, None)
    require_block(True, None, "x")
    require_block(False, BlockSettings(**BLOCK), "x")
    with pytest.raises(ValueError, match="pretrained weights bring theirs"):
        forbid_two_blocks(True, BlockSettings(**BLOCK))
    with pytest.raises(InputError, match="x: block is null without pretrained weights"):
        require_block(False, None, "x")
