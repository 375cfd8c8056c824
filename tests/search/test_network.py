"""Networks of a genotype: sizes, strides, twins, checkpointing, drop path, auxiliary head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.binary import Real, SignActivation, SignWeight, quant_convs, set_stage
from search.convolution import Conv2d
from search.cost import count
from search.errors import InputError
from search.genotype import OPERATIONS, Genotype, published
from search.network import Network, NetworkConfig, _pool_to_2x2, drop, plan_cells
from search.operations import build_operation
from search.style import OperationStyle

RELEASED = published("DDPNAS_MCN_2")
FORMS = ("paper", "released", "darts")


def _network(
    genotype: Genotype = RELEASED, *, form: str = "paper", binary: bool | None = None, **more: Any
) -> Network:
    torch.manual_seed(0)
    style = OperationStyle(form=form, binary=form != "darts" if binary is None else binary)
    runtime = {key: more.pop(key) for key in ("drop_path", "checkpointing") if key in more}
    config = NetworkConfig(**{"channels": 4, "cells": 3, "classes": 5, "style": style, **more})
    return Network(genotype, config, **runtime)


def _halved(size: int, stride: int) -> int:
    while stride > 1:
        size, stride = -(-size // 2), stride // 2
    return size


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("stem", "height", "width"),
    [("cifar", 32, 32), ("cifar", 33, 37), ("imagenet", 32, 32), ("imagenet", 33, 64), ("imagenet", 225, 37)],
)
def test_any_size_from_32_up(form: str, stem: str, height: int, width: int) -> None:
    network = _network(form=form, stem=stem, cells=5).eval()
    x = torch.randn(2, 3, height, width)
    strides = [4, 8, 16, 32] if stem == "imagenet" else [1, 2, 4]
    with torch.no_grad():
        features = network.forward_features(x)
        assert network(x).shape == (2, 5)
        assert network.embed(x).shape == (2, network.num_features)
    assert list(features) == strides == list(network.feature_channels)
    for stride, feature in features.items():
        expected = (2, network.feature_channels[stride], _halved(height, stride), _halved(width, stride))
        assert feature.shape == expected


@pytest.mark.parametrize("height", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("width", [1, 5, 7, 16])
def test_the_auxiliary_heads_windows_are_the_adaptive_ones(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    torch.testing.assert_close(_pool_to_2x2(x), nn.functional.adaptive_avg_pool2d(x, 2))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_operation_keeps_or_halves_the_size(operation: str, form: str, stride: int) -> None:
    style = OperationStyle(form=form, binary=form != "darts")
    module = build_operation(operation, 4, stride, style)
    for height, width in ((7, 8), (8, 8), (9, 5)):
        y = module(torch.randn(2, 4, height, width))
        assert y.shape == (2, 4, -(-height // stride), -(-width // stride))


def test_classifier_sees_the_embedding() -> None:
    network = _network().eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.classifier(network.embed(x)), network(x))


def test_reductions_stand_at_the_thirds_of_the_depth() -> None:
    assert [index for index, plan in enumerate(plan_cells(36, 20, "cifar")) if plan.reduction] == [6, 13]
    assert [plan.channels for plan in plan_cells(4, 6, "imagenet")] == [4, 4, 8, 8, 16, 16]
    assert plan_cells(4, 6, "imagenet")[0].stride_before == 2, (
        "the first ImageNet cell starts with a factorised reduction"
    )
    assert plan_cells(4, 6, "cifar", last_stride=1)[4].stride == 1


def test_last_stride_one_keeps_the_resolution() -> None:
    features = _network(stem="imagenet", last_stride=1).eval().forward_features(torch.randn(1, 3, 64, 64))
    assert {stride: feature.shape[-1] for stride, feature in features.items()} == {4: 16, 8: 8, 16: 4}


@pytest.mark.parametrize("form", ["paper", "released"])
def test_twins_correspond_convolution_by_convolution(form: str) -> None:
    child, parent = _network(form=form, binary=True), _network(form=form, binary=False)
    pairs = list(zip(quant_convs(child), quant_convs(parent), strict=True))
    assert len(pairs) > 10
    for (child_name, child_conv), (parent_name, parent_conv) in pairs:
        assert child_name == parent_name
        assert child_conv.weight.shape == parent_conv.weight.shape
        assert (child_conv.stride, child_conv.dilation) == (parent_conv.stride, parent_conv.dilation)
        assert child_conv.weight_quantiser.precision == 1
        assert (parent_conv.weight_quantiser.precision, parent_conv.input_quantiser.precision) == (32, 32)
    names, theirs = ({name for name, _ in network.named_parameters()} for network in (child, parent))
    scales = {name for name in names if name.endswith("magnitude")}
    # The original branch has no norm between the convolutions and, derived, none behind pools.
    norms = {name for name in names if "depthwise_norm" in name or name.split(".")[-2] == "norm"}
    assert theirs <= names - scales and names - scales - theirs <= (norms if form == "paper" else set())


def test_every_convolution_of_a_paper_child_is_w1a1_and_its_twin_has_relus() -> None:
    for _, conv in quant_convs(_network(form="paper")):
        assert isinstance(conv.input_quantiser, SignActivation) and isinstance(
            conv.weight_quantiser, SignWeight
        )
    twin = OperationStyle(binary=False, parent_block="twin")
    for _, conv in quant_convs(_network(style=twin)):
        assert isinstance(conv.input_quantiser, Real) and conv.input_quantiser.relu


def test_only_pointwise_convolutions_of_a_released_child_are_w1a1() -> None:
    for name, conv in quant_convs(_network(form="released")):
        assert conv.input_quantiser.precision == (1 if "pointwise" in name else 32), name
        assert conv.weight_quantiser.precision == 1, name


def test_stem_classifier_and_norms_are_real() -> None:
    network = _network(stem="imagenet", auxiliary=True)
    plain = [
        type(m) for m in (*network.stem.modules(), *network.auxiliary.modules()) if isinstance(m, nn.Conv2d)
    ]
    assert set(plain) == {Conv2d} and type(network.classifier) is nn.Linear


@pytest.mark.usefixtures("plain_layers")
def test_one_bit_convolutions_see_two_values_at_odd_sizes() -> None:
    """The factorised reduction must pad before it quantises: a padded zero would be a third value."""
    network = _network(form="paper", stem="imagenet", cells=4).eval()
    seen = []
    for _, conv in quant_convs(network):
        conv.input_quantiser.register_forward_hook(
            lambda module, inputs, output: seen.append(output.unique().tolist())
        )
    network(torch.randn(1, 3, 37, 45))
    assert len(seen) > 10 and all(values in ([-1, 1], [1], [-1]) for values in seen)


@pytest.mark.parametrize("form", FORMS)
def test_checkpointing_changes_nothing_but_memory(form: str) -> None:
    x, target = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    results = []
    for checkpointing in (False, True):
        network = _network(form=form, checkpointing=checkpointing, drop_path=0.3)
        torch.manual_seed(1)
        logits = network(x)
        nn.functional.cross_entropy(logits, target).backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        results.append((logits.detach(), gradients, dict(network.named_buffers())))
    (plain, plain_gradients, plain_buffers), (checked, checked_gradients, checked_buffers) = results
    assert torch.equal(plain, checked)
    for name, gradient in plain_gradients.items():
        assert gradient is not None and torch.equal(gradient, checked_gradients[name]), name
    for name, buffer in plain_buffers.items():
        assert torch.equal(buffer, checked_buffers[name]), f"{name}: the second forward must not be counted"


def test_drop_path_acts_in_training_only() -> None:
    network = _network(drop_path=0.5)
    x = torch.randn(2, 3, 32, 32)
    outputs = [network(x).detach() for _ in range(2)]
    assert not torch.equal(*outputs)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train().drop_path = 0.0
    assert torch.equal(network(x), network(x))


def test_drop_path_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(20_000, 1, 1, 1), 0.3)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0.0, 1 / 0.7])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("stem", "size"), [("cifar", 32), ("cifar", 37), ("imagenet", 224), ("imagenet", 64)]
)
def test_auxiliary_head_runs_in_training_only(stem: str, size: int) -> None:
    network = _network(stem=stem, auxiliary=True)
    x = torch.randn(2, 3, size, size)
    logits, auxiliary = network(x)
    assert logits.shape == auxiliary.shape == (2, 5)
    evaluated = network.eval()(x)
    assert isinstance(evaluated, Tensor) and evaluated.shape == (2, 5)


def test_stages_change_the_cost() -> None:
    network = _network(form="paper")
    both = count(network, (3, 32, 32))
    set_stage(network, activations=True, weights=False)
    first = count(network, (3, 32, 32))
    assert both.bops > 0 and first.bops == 0 and first.macs == both.macs
    assert first.binary_weights == 0 < both.binary_weights and first.mbit > both.mbit


def test_all_edges_of_a_cell_can_be_kept() -> None:
    node = [
        [[operation, source] for source, operation in enumerate(OPERATIONS[:count])] for count in range(2, 6)
    ]
    genotype = Genotype.from_dict(
        {"schema": 1, "name": "all", "source": "test", "normal": node, "reduce": node}
    )
    assert _network(genotype)(torch.randn(2, 3, 33, 33)).shape == (2, 5)


def test_architecture_hash_is_of_the_architecture() -> None:
    network = _network()
    renamed = Genotype.from_dict({**RELEASED.to_dict(), "name": "x", "source": "y"})
    assert _network(renamed).architecture_hash == network.architecture_hash
    others = [
        _network(channels=6),
        _network(cells=4),
        _network(classes=6),
        _network(form="released"),
        _network(binary=False),
    ]
    assert len({network.architecture_hash, *(other.architecture_hash for other in others)}) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 5}, "5 channels; allowed: an even number from 2 up"),
        ({"channels": 0}, "0 channels"),
        ({"cells": 2}, "2 cells; allowed: 3 or more"),
        ({"classes": 0}, "0 classes"),
        ({"stem": "vgg"}, "'vgg' is no stem; allowed: cifar, imagenet"),
        ({"last_stride": 3}, "last_stride 3"),
        ({"form": "resnet", "binary": True}, "'resnet' is no form"),
        ({"form": "darts", "binary": True}, "the form 'darts' is real-valued"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _network(**settings)
    assert message in str(caught.value)
