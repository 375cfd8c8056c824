"""Hand-made networks against the counts of published modules; the real ResNets against torchvision itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from downstream.handmade import NAMES, HandmadeNetwork, Shift, build, rebuild
from search.binary import Real, SignActivation, quant_convs
from search.cost import CostReport, count
from search.errors import InputError
from tests.golden import golden

MEGA = 1e6
IMAGENET = (3, 224, 224)


def _on_meta(name: str, **more: Any) -> HandmadeNetwork:
    with torch.device("meta"):
        return build(name, **more)


def _cost(name: str, **more: Any) -> CostReport:
    return count(_on_meta(name, **more), IMAGENET)


def _small(name: str, **more: Any) -> HandmadeNetwork:
    torch.manual_seed(0)
    return build(name, **{"channels": 4, "classes": 5, **more})


@pytest.mark.parametrize(
    ("name", "bops", "flops", "ops", "parameters", "binary_weights", "mbit"),
    golden("one_bit_networks")["rows"],
)
def test_published_one_bit_networks(
    name: str, bops: float, flops: float, ops: float, parameters: int, binary_weights: int, mbit: float
) -> None:
    report = _cost(name)
    assert round(report.bops / MEGA, 3) == bops
    assert round(report.flops / MEGA, 3) == flops
    assert round(report.ops_strict / MEGA, 3) == ops
    assert report.ops_generous == report.ops_strict, "no W1A32 layer"
    assert report.parameters == parameters
    assert report.binary_weights == binary_weights
    assert round(report.mbit, 2) == mbit


@pytest.mark.parametrize(("name", "parameters", "macs"), golden("torchvision")["rows"])
def test_real_resnets_cost_what_torchvision_does(name: str, parameters: int, macs: float) -> None:
    report = _cost(name, precision="real")
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name.replace("-", ""))()
    assert report.parameters == sum(p.numel() for p in theirs.parameters()) == parameters
    assert report.macs == count(theirs, IMAGENET).macs
    assert round(report.macs / MEGA, 3) == macs


@pytest.mark.parametrize("name", ["resnet-18", "resnet-34"])
def test_real_resnets_compute_what_torchvision_does(name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name.replace("-", ""))(num_classes=7).eval()
    ours = build(name, precision="real", classes=7).eval()
    # Both register their layers in the order of the definition, so the states correspond by position.
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 65, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("precision", ["1bit", "real"])
@pytest.mark.parametrize("name", NAMES)
def test_torch_counts_the_same(name: str, precision: str) -> None:
    network = _on_meta(name, precision=precision).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *IMAGENET, device="meta"))
    assert count(network, IMAGENET).macs * 2 == counter.get_total_flops()


def test_xnor_net_keeps_only_the_first_convolution_and_the_classifier_real() -> None:
    report = _cost("xnor-net-18")
    real = [layer.name for layer in report.layers if layer.weight_bits == 32]
    assert real == ["stem.0", "classifier"]
    assert report.flops == 112 * 112 * 64 * 3 * 49 + 512 * 1000
    # Against Bi-Real-18 the three 1x1 convolutions of the shortcuts change sides.
    assert report.bops - _cost("bi-real-18").bops == 3 * 28 * 28 * 64 * 128


def test_one_bit_networks_have_one_shortcut_a_convolution_or_one_a_block() -> None:
    for name, other in (("resnet-18", "bi-real-18"), ("resnet-34", "bi-real-34")):
        ours, theirs = _cost(name), _cost(other)
        assert (ours.bops, ours.flops, ours.parameters) == (theirs.bops, theirs.flops, theirs.parameters)
    shifts = [m for m in _on_meta("reactnet-18").modules() if isinstance(m, Shift)]
    assert len(shifts) == 3 * 16


@pytest.mark.parametrize("precision", ["1bit", "real"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 65)])
def test_shapes_at_any_size(name: str, stem: str, precision: str, height: int, width: int) -> None:
    network = _small(name, stem=stem, precision=precision)
    x = torch.randn(2, 3, height, width)
    features = network.forward_features(x)
    strides = [4, 8, 16, 32] if stem == "imagenet" else [1, 2, 4, 8] + ([16] if name == "reactnet-a" else [])
    assert list(features) == list(network.feature_channels) == strides
    for stride, feature in features.items():
        expected = [height, width]
        for _ in range(stride.bit_length() - 1):
            expected = [-(-size // 2) for size in expected]
        assert feature.shape == (2, network.feature_channels[stride], *expected)
    assert network.embed(x).shape == (2, network.num_features)
    assert network(x).shape == (2, 5)
    network(x).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_classifier_sees_the_embedding(name: str) -> None:
    network = _small(name).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.classifier(network.embed(x)), network(x))
    assert (
        isinstance(network.classifier, nn.Linear) and network.classifier.in_features == network.num_features
    )


@pytest.mark.parametrize("name", NAMES)
def test_twins_correspond(name: str) -> None:
    child, parent = _small(name), _small(name, precision="real")
    assert {key: value.shape for key, value in child.state_dict().items()} == {
        key: value.shape for key, value in parent.state_dict().items()
    }
    for (child_name, one_bit), (parent_name, real) in zip(
        quant_convs(child), quant_convs(parent), strict=True
    ):
        assert child_name == parent_name
        assert isinstance(one_bit.input_quantiser, SignActivation) and one_bit.weight_quantiser.precision == 1
        assert isinstance(real.input_quantiser, Real) and real.input_quantiser.relu
        assert real.weight_quantiser.precision == 32


def test_estimators_are_the_published_ones() -> None:
    found = {name: {c.input_quantiser.estimator for _, c in quant_convs(_small(name))} for name in NAMES}
    assert found.pop("xnor-net-18") == {"ste"}
    assert set.union(*found.values()) == {"bireal"}


@pytest.mark.parametrize("name", NAMES)
def test_architecture_rebuilds_the_network(name: str) -> None:
    network = _small(name, stem="cifar", precision="real", last_stride=1)
    again = rebuild(network.architecture)
    assert again.architecture == network.architecture
    assert again.architecture_hash == network.architecture_hash != _small(name).architecture_hash
    again.load_state_dict(network.state_dict())


def test_last_stride_one_keeps_the_resolution() -> None:
    features = _small("resnet-18", last_stride=1).forward_features(torch.randn(1, 3, 64, 64))
    assert {stride: feature.shape[1:] for stride, feature in features.items()} == {
        4: (4, 16, 16), 8: (8, 8, 8), 16: (32, 4, 4),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("reactnet-b", {}, "no hand-made network 'reactnet-b', did you mean 'reactnet-a'?"),
        ("resnet-18", {"precision": "8bit"}, "'8bit' is no precision; allowed: 1bit, real"),
        ("resnet-18", {"stem": "vgg"}, "'vgg' is no stem; allowed: cifar, imagenet"),
        ("resnet-18", {"channels": 0}, "0 channels; allowed: 1 or more"),
        ("resnet-18", {"classes": -1}, "-1 classes"),
        ("resnet-18", {"last_stride": 4}, "last_stride 4; allowed: 1, 2"),
    ],
)
def test_wrong_settings_are_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, **settings)
    assert message in str(caught.value)
