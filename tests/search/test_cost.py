"""Cost counting against other people's counts and torch's own counter, and what it must leave alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.binary import QuantConv2d, SignActivation, SignWeight, set_stage
from search.cost import CostReport, LayerCost, count
from search.errors import InputError
from search.genotype import published
from search.network import Network, NetworkConfig
from search.style import OperationStyle
from tests.golden import FOLDER, golden

MEGA = 1e6


def _network(
    name: str, form: str, stem: str, channels: int, cells: int, classes: int, **more: Any
) -> Network:
    binary = more.pop("binary", form != "darts")
    config = NetworkConfig(channels, cells, classes, stem, OperationStyle(form=form, binary=binary), **more)
    with torch.device("meta"):
        return Network(published(name), config)


def _one_bit(inputs: int, outputs: int, kernel: int, **more: Any) -> QuantConv2d:
    quantisers = {"input_quantiser": SignActivation(), "weight_quantiser": SignWeight("mean_abs", outputs)}
    return QuantConv2d(inputs, outputs, kernel, **{**quantisers, **more})


def _torch_macs(module: nn.Module, *shape: int) -> int:
    meta = module.to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta(torch.empty(shape, device="meta"))
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


@pytest.mark.parametrize(
    ("name", "stem", "auxiliary", "parameters", "macs"), golden("genotype_costs")["rows"]
)
def test_published_genotypes(name: str, stem: str, auxiliary: bool, parameters: int, macs: float) -> None:
    size = (48, 14, 1000) if stem == "imagenet" else (36, 20, 10)
    report = count(
        _network(name, "darts", stem, *size, auxiliary=auxiliary),
        (3, *[224 if stem == "imagenet" else 32] * 2),
    )
    assert report.parameters == parameters
    assert round(report.macs / MEGA, 3) == macs
    assert (report.bops, report.w1a32_macs, report.binary_weights) == (0, 0, 0)
    assert report.mbit == 32 * parameters / MEGA


@pytest.fixture(scope="module")
def released() -> tuple[Network, CostReport]:
    network = _network("DDPNAS_MCN_2", "released", "imagenet", 108, 10, 1000)
    return network, count(network, (3, 224, 224))


def _part(layer: LayerCost) -> str:
    if layer.weight_bits == 32:
        return "real"
    for part in ("pointwise", "depthwise"):
        if part in layer.name:
            return part
    return "preprocess"


def test_released_network_totals(released: tuple[Network, CostReport]) -> None:
    expected, report = golden("released"), released[1]
    assert report.parameters == expected["parameters"]
    assert report.binary_weights == expected["binary_weights"]
    assert round(report.macs / MEGA, 2) == expected["macs"]
    # Exactly 1079.147448; the source adds its rounded parts up.
    assert report.ops_strict / MEGA == pytest.approx(expected["ops_strict"], abs=0.06)
    assert round(report.ops_generous / MEGA, 1) == expected["ops_generous"]
    assert round(report.mbit, 1) == expected["mbit"]


def test_released_network_breakdown(released: tuple[Network, CostReport]) -> None:
    network, report = released
    expected = golden("released")
    macs: dict[str, int] = {}
    weights: dict[str, int] = {}
    for layer in report.layers:
        part = _part(layer)
        macs[part] = macs.get(part, 0) + layer.macs
        weights[part] = weights.get(part, 0) + layer.binary_weights
        assert (part == "pointwise") == (layer.bops > 0)
    assert weights.pop("real") == 0
    assert weights == expected["binary_weights_of"]
    assert {part: round(value / MEGA, 2) for part, value in macs.items()} == expected["macs_of"]

    def size(kind: type[nn.Module]) -> int:
        return sum(
            p.numel() for m in network.modules() if isinstance(m, kind) for p in m.parameters(recurse=False)
        )

    convolutions = sum(layer.parameters for layer in report.layers if layer.name.startswith("stem"))
    assert expected["parameters_of"] == {
        "scales": size(SignWeight),
        "stem": convolutions,
        "batch_norm": size(nn.BatchNorm2d),
        "prelu": size(nn.PReLU),
        "classifier": size(nn.Linear),
    }


@pytest.mark.parametrize("form", ["paper", "released", "darts"])
@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("cifar", 37), ("imagenet", 225)])
def test_torch_counts_the_same(form: str, stem: str, size: int) -> None:
    network = _network("DDPNAS_MCN_2", form, stem, 8, 5, 10)
    assert count(network, (3, size, size)).macs == _torch_macs(network, 1, 3, size, size)


@pytest.mark.parametrize("pad_value", [-1.0, 0.0, 1.0])
def test_torch_counts_the_same_whatever_surrounds_the_map(pad_value: float) -> None:
    conv = _one_bit(4, 6, 3, stride=2, padding=1, pad_value=pad_value)
    report = count(conv, (4, 9, 9))
    assert report.bops == report.macs == 5 * 5 * 6 * 4 * 9 == _torch_macs(conv, 1, 4, 9, 9)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(6, 9, (3, 5), stride=(2, 1), padding=(1, 2), groups=3), (6, 17, 13)),
        (nn.Conv2d(4, 4, 3, padding="same", dilation=2), (4, 9, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 7, 9)),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 16, 5)), (3, 4, 4)),
    ],
)
def test_torch_counts_the_same_for_foreign_modules(module: nn.Module, shape: tuple[int, int, int]) -> None:
    assert count(module, shape).flops == _torch_macs(module, 1, *shape)
    assert count(module, (5, *shape)).flops == _torch_macs(module, 5, *shape)


def test_larq_toy_model() -> None:
    expected = golden("larq_toy")
    network = nn.Sequential(
        QuantConv2d(1, 32, 3, padding=1, weight_quantiser=SignWeight("none")),
        nn.MaxPool2d(2),
        _one_bit(32, 32, 3, stride=3, padding=1, groups=32),
        _one_bit(32, 32, 1),
    )
    first, depthwise, pointwise = count(network, (1, 64, 64)).layers
    assert (first.weight_bits, first.input_bits) == (1, 32)
    assert (first.w1a32_macs, first.bops) == (expected["first"], 0), "a real input is no 1-bit MAC"
    assert depthwise.bops == depthwise.macs == expected["depthwise"]
    assert pointwise.bops == pointwise.macs == expected["pointwise"]


def test_stages_change_the_cost_and_nothing_else() -> None:
    conv = _one_bit(4, 8, 3, padding=1)
    macs = 6 * 6 * 8 * 4 * 9
    found = {}
    for activations in (True, False):
        for weights in (True, False):
            set_stage(conv, activations=activations, weights=weights)
            report = count(conv, (4, 6, 6))
            found[activations, weights] = (
                report.bops,
                report.w1a32_macs,
                report.flops,
                report.binary_weights,
            )
    assert found == {
        (True, True): (macs, 0, 0, 288),
        (False, True): (0, macs, 0, 288),
        (True, False): (0, 0, macs, 0),
        (False, False): (0, 0, macs, 0),
    }


def test_both_kinds_of_ops_and_memory_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1),
        QuantConv2d(2, 4, 1, weight_quantiser=SignWeight("learned", 4)),
        nn.PReLU(4),
        _one_bit(4, 8, 1),
    )
    report = count(network, (1, 8, 8))
    assert (report.flops, report.w1a32_macs, report.bops) == (64 * 2, 64 * 8, 64 * 32)
    assert report.ops_strict == 128 + 512 + 32
    assert report.ops_generous == 128 + 8 + 32
    assert type(report.ops_strict) is type(report.ops_generous) is int
    assert report.parameters == 2 + 2 + 8 + 4 + 4 + 32
    assert report.binary_weights == 8 + 32
    assert report.mbit == (40 + 32 * 12) / MEGA
    assert [layer.parameters for layer in report.layers] == [4, 12, 32]
    odd = count(_one_bit(1, 1, 1), (1, 3, 3))
    assert odd.ops_strict == 9 / 64


def test_any_object_with_a_precision_decides() -> None:
    class TwoBits(nn.Module):
        precision = 2

    class OneBit(nn.Module):
        precision = 1

    conv = nn.Conv2d(2, 2, 1, bias=False)
    conv.weight_quantiser, conv.input_quantiser = OneBit(), TwoBits()
    report = count(conv, (2, 4, 4))
    assert (report.w1a32_macs, report.binary_weights, report.layers[0].input_bits) == (64, 4, 2)


class _Shared(nn.Module):
    """One head on two maps, as in a detector, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)
        self.tied = nn.Conv2d(3, 4, 1)
        self.tied.weight = self.head.weight
        self.unused = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, scale: int) -> list[torch.Tensor]:
        return [self.head(x), self.head(x[..., ::scale, ::scale])]


def test_every_call_of_a_shared_layer_counts() -> None:
    report = count(_Shared(), (3, 8, 8), forward=lambda network, images: network(images, 2))
    head, tied, unused = report.layers
    assert (head.calls, head.flops, head.output) == (2, (64 + 16) * 12, (1, 4, 8, 8))
    assert (tied.calls, unused.calls, unused.flops, unused.output) == (0, 0, 0, ())
    assert (head.parameters, tied.parameters, unused.parameters) == (16, 4, 20), (
        "the tied weight is stored once"
    )
    assert report.parameters == 40


@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_is(training: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=8), nn.BatchNorm2d(4), _one_bit(4, 4, 1), nn.Dropout(0.5)
    )
    network.train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    report = count(network, (3, 8, 8))
    assert report.bops == 16, "one pixel: batch norm must not refuse it"
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(random, torch.get_rng_state())
    network(torch.randn(2, 3, 16, 16))


def test_double_precision_and_cached_tensors() -> None:
    class Cached(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input + self.offset)

    conv = Cached(3, 2, 1).double()
    conv.offset = torch.ones(1, 3, 1, 1, dtype=torch.float64, requires_grad=True) * 2
    assert count(conv, (3, 4, 4)).flops == 96
    assert conv.offset.device.type == "cpu"


def test_auxiliary_head_has_parameters_but_does_not_run() -> None:
    plain, with_head = (
        count(_network("DARTS_V2", "paper", "cifar", 4, 3, 10, auxiliary=flag), (3, 32, 32))
        for flag in (False, True)
    )
    assert plain.macs == with_head.macs
    head = [layer for layer in with_head.layers if layer.name.startswith("auxiliary")]
    assert len(head) == 3 and all(layer.calls == 0 for layer in head)
    assert with_head.parameters > plain.parameters


def test_child_and_parent_have_the_same_macs() -> None:
    for form in ("paper", "released"):
        child, parent = (
            count(_network("DARTS_V2", form, "cifar", 4, 3, 10, binary=flag), (3, 32, 32))
            for flag in (True, False)
        )
        assert child.macs == parent.macs == parent.flops
        assert [layer.macs for layer in child.layers] == [layer.macs for layer in parent.layers]
        assert (child.w1a32_macs == 0) == (form == "paper")


def test_layers_add_up_to_the_totals() -> None:
    report = count(_network("PC_DARTS_cifar", "released", "imagenet", 4, 4, 7), (2, 3, 64, 96))
    for name in ("bops", "w1a32_macs", "flops", "macs", "binary_weights"):
        assert getattr(report, name) == sum(getattr(layer, name) for layer in report.layers) > 0
    one = count(_network("PC_DARTS_cifar", "released", "imagenet", 4, 4, 7), (3, 64, 96))
    assert report.macs == 2 * one.macs and report.parameters == one.parameters


def test_dictionary_has_integers_where_exact() -> None:
    values = count(_one_bit(4, 16, 1), (4, 1, 1)).to_dict()
    assert list(values) == [
        "params", "binary_weights", "bops", "w1a32_macs", "flops", "macs",
        "ops_strict", "ops_generous", "mbit",
    ]  # fmt: skip
    assert all(type(value) is int for key, value in values.items() if key != "mbit")
    assert values["ops_strict"] == 1


def test_rows_are_flat() -> None:
    (row,) = count(_one_bit(4, 16, 1), (4, 2, 2)).rows()
    assert row["output"] == "1x16x2x2" and row["macs"] == row["bops"] == 256
    assert all(isinstance(value, str | int) for value in row.values())


def test_printed_table() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        _one_bit(16, 32, 3, padding=1),
        QuantConv2d(32, 32, 1, weight_quantiser=SignWeight("learned", 32)),
        nn.PReLU(32),
    )
    assert count(network, (3, 32, 32)).to_text() + "\n" == (FOLDER / "cost_table.txt").read_text(
        encoding="utf-8"
    )
    assert "layer" not in count(network, (3, 32, 32)).to_text(per_layer=False)


@pytest.mark.parametrize("shape", [(3, 32), (3, 0, 32), (1, 1, 3, 4, 4), ()])
def test_a_shape_that_is_none_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="input shape"):
        count(nn.Conv2d(3, 3, 1), shape)


def test_counts_are_exact_beyond_floating_point() -> None:
    with torch.device("meta"):
        wide = nn.Conv2d(2**12, 2**12, 3, padding=1, bias=False)
    assert count(wide, (2**12, 2**13, 2**13)).flops == 9 * 2**50
    assert math.log2(9 * 2**50) > 53
