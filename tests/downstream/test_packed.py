"""Packed networks compute what the simulated ones do: sums and thresholds exactly, logits to rounding."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from downstream.models import build
from downstream.packed import Packed, load, pack, save
from downstream.packed.file import check
from downstream.packed.native import runnable_variants
from downstream.packed.steps import Step, find_thresholds
from search.binary import QuantConv2d, SignActivation, SignWeight, set_stage, sign
from search.data import load_cifar10
from search.errors import InputError
from tests.downstream.packed_reference import Pair, in_order, randomise

DATA = Path("data/cifar10")
NETWORKS = {
    "found": {"network": "DDPNAS_MCN_2", "channels": 8, "cells": 4},
    "found imagenet": {"network": "DARTS_V2", "channels": 12, "cells": 3, "stem": "imagenet"},
    "released": {
        "network": "DDPNAS_MCN_2",
        "channels": 8,
        "cells": 3,
        "form": "released",
        "stem": "imagenet",
    },
    "bi-real-18": {"network": "bi-real-18", "channels": 12, "stem": "imagenet"},
    "xnor-net-18": {"network": "xnor-net-18", "channels": 8, "stem": "cifar"},
    "reactnet-18": {"network": "reactnet-18", "channels": 8, "stem": "cifar"},
    "reactnet-a": {"network": "reactnet-a", "channels": 8, "stem": "imagenet"},
    "resnet-18": {"network": "resnet-18", "channels": 8, "stem": "cifar"},
}


@functools.cache
def _network(name: str) -> nn.Module:
    torch.manual_seed(1)
    return randomise(build(**NETWORKS[name]), seed=2)


def _images(count: int, side: int, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(3))


def _conv(inputs: int, outputs: int, kernel: int, scale: str = "none", **settings_: object) -> QuantConv2d:
    return QuantConv2d(
        inputs,
        outputs,
        kernel,
        input_quantiser=SignActivation(),
        weight_quantiser=SignWeight(scale, outputs),  # type: ignore[arg-type]
        **settings_,  # type: ignore[arg-type]
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Pair, tuple[int, int]]:
    """Two convolutions of drawn shapes: dense, grouped or depthwise, any padding, stride and dilation."""
    torch.manual_seed(draw(st.integers(0, 99)))
    convs, channels = [], 3 * draw(st.integers(1, 2))
    for _ in range(2):
        kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2))
        groups = draw(st.sampled_from([1, 3, channels]))
        outputs = channels if groups == channels > 3 else groups * draw(st.sampled_from([1, 5, 8, 22, 64]))
        convs.append(
            _conv(
                channels,
                outputs,
                kernel,
                stride=draw(st.integers(1, 2)),
                padding=draw(st.integers(0, dilation * (kernel // 2))),
                dilation=dilation,
                groups=groups,
                pad_value=float(draw(st.sampled_from([0, 1, -1]))),
            )
        )
        channels = outputs - outputs % 3 if outputs >= 3 else outputs
        if channels != outputs:
            convs[-1] = _conv(convs[-1].in_channels, channels, kernel, padding=kernel // 2)
        if channels < 3:
            channels = 3
            convs[-1] = _conv(convs[-1].in_channels, channels, kernel, padding=kernel // 2)
    size = draw(st.tuples(st.integers(24, 40), st.integers(24, 40)))
    return randomise(Pair(*convs, norm=False), draw(st.integers(0, 99))), size


@given(pairs())
@settings(max_examples=10, deadline=None)
def test_sums_of_drawn_convolutions_are_exact(drawn: tuple[Pair, tuple[int, int]]) -> None:
    network, size = drawn
    x = torch.randn(2, network.first.in_channels, *size, generator=torch.Generator().manual_seed(0))
    packed = pack(network, size)
    with torch.no_grad():
        expected = network.forward_features(x)[1]
    for variant in runnable_variants():
        here = type(packed)(packed.program, {}, "", variant)
        assert torch.equal(here.forward_features(x)[1], expected), variant


@given(st.integers(0, 1000), st.integers(1, 200), st.booleans())
@settings(max_examples=40, deadline=None)
def test_thresholds_give_the_norms_sign_at_every_sum(seed: int, largest: int, constant: bool) -> None:
    torch.manual_seed(seed)
    norm = randomise(nn.Sequential(nn.BatchNorm2d(9)), seed)[0]
    if constant:
        norm.weight.data[:3] = 0.0
    state = (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data)
    beta = torch.rand(9) / 10
    found = find_thresholds([Step("norm", state, norm.eps)], beta, largest, "norm")
    assert found is not None
    sums = np.arange(-largest, largest + 1)[:, None]
    bits = np.where(found.flipped, -sums, sums) >= found.values
    with torch.no_grad():
        values = norm.double()((torch.from_numpy(sums) * beta.double())[:, :, None, None])[:, :, 0, 0]
    assert np.array_equal(bits, (values >= 0).numpy())
    assert not (found.flipped & (norm.weight >= 0).numpy()).any()


def test_a_falling_norm_negates_its_filters() -> None:
    ones = torch.ones(3)
    step = Step("norm", (torch.tensor([0.0, 2.5, -1.0]), ones, -ones, 0 * ones))
    found = find_thresholds([step], ones, 9, "norm")
    assert found is not None and found.flipped.all()
    assert found.values.tolist() == [0, -2, 1]  # sums up to 0, 2 and -1 are positive


def test_what_is_not_monotone_gets_no_threshold() -> None:
    steps = [Step("slope", (-torch.ones(1),)), Step("bias", (torch.tensor([-2.5]),))]
    assert find_thresholds(steps, torch.ones(1), 9, "act") is None


@pytest.mark.parametrize(
    ("name", "kernels"),
    [*((name, False) for name in NETWORKS), ("found", True), ("found imagenet", True)],
)
@pytest.mark.parametrize("side", [64, 75])
def test_networks_equal_the_simulation_bit_for_bit(name: str, kernels: bool, side: int) -> None:
    """By PyTorch's functions in the order of the packed kernels, and with the cells on the training kernels."""
    network, x = _network(name), _images(2, side)
    packed, reference = pack(network), in_order(network, kernels)
    with torch.no_grad():
        features = reference.forward_features(x)
        assert torch.equal(packed(x), reference(x))
        assert torch.equal(packed.embed(x), reference.embed(x))
    maps = packed.forward_features(x)
    assert list(maps) == list(features) and packed.feature_channels == network.feature_channels
    assert all(torch.equal(maps[stride], features[stride]) for stride in features)
    assert packed.num_features == network.num_features


@pytest.mark.parametrize("name", NETWORKS)
def test_every_instruction_set_and_thread_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    packed, x = pack(_network(name)), _images(3, 64)
    expected = packed(x)
    save(tmp_path / "a.safetensors", packed)
    for variant in runnable_variants():
        assert torch.equal(load(tmp_path / "a.safetensors", variant)(x), expected), variant
    packed.threads = 2
    assert torch.equal(packed(x), expected)
    assert torch.equal(torch.cat([packed(x[i : i + 1]) for i in range(3)]), expected)
    assert packed(x[:0]).shape == (0, expected.shape[1])


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="CIFAR-10 is not prepared (python -m pipelines.prepare)")
@pytest.mark.parametrize("name", ["found", "bi-real-18"])
def test_a_trained_network_on_test_images(name: str) -> None:
    network = build(**{**NETWORKS[name], "stem": "cifar", "classes": 10})
    _train(network.train(), *_cifar10("train", 768))
    x, y = _cifar10("test", 300)
    packed = pack(network.eval())
    with torch.no_grad():
        plain = torch.cat([network(part) for part in x.split(100)])
    found = packed(x)
    differs = (found - plain).abs().amax(1) > 1e-5 * plain.abs().max()
    # a value that rounding alone keeps from zero has either sign in either order of summation
    assert differs.float().mean() <= 0.02, f"{int(differs.sum())} of {len(x)} images differ"
    assert (found.argmax(1) == plain.argmax(1))[~differs].all()
    assert (found.argmax(1) != plain.argmax(1)).sum() <= 2
    assert (found.argmax(1) == y).float().mean() > 0.15


def _cifar10(part: str, count: int) -> tuple[Tensor, Tensor]:
    """The first images of a part, normalised, and their labels."""
    images = load_cifar10(DATA, part)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (images.mean, images.std))
    return (images.pixels[:count].float() / 255 - mean) / std, images.labels[:count]


def _train(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for batch in torch.randperm(len(images)).split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimiser.step()


def test_the_files_bytes_follow_from_the_formula(tmp_path: Path) -> None:
    """docs/packed.md, on a network of the paper's form, from the layers alone."""
    packed = pack(_network("found"))
    save(tmp_path / "a.safetensors", packed)
    raw = (tmp_path / "a.safetensors").read_bytes()
    tables = 4 * 20 * len(packed.program.operations) + 4 * 8 * len(packed.program.values)
    content = sum(_layer_bytes(name, module) for name, module in _network("found").named_modules())
    assert len(raw) == 8 + int.from_bytes(raw[:8], "little") + tables + content


def _layer_bytes(name: str, module: nn.Module) -> int:
    if isinstance(module, QuantConv2d):
        outputs, inputs, kernel, _ = module.weight.shape
        if module.groups > 1:
            return 8 * outputs * -(-kernel * kernel // 64) + 2 * outputs  # words and thresholds
        words = 8 * outputs * kernel * kernel * -(-inputs // 64)
        # the first block of a separable convolution feeds the second one's depthwise convolution: thresholds
        packed = name.split(".")[5:] == ["0", "pointwise"]  # cells.i.nodes.j.k.0.pointwise
        return words + outputs * (2 if packed else 12)  # or the norm's centre, scale and bias
    if isinstance(module, nn.Conv2d):
        return 4 * module.weight.numel() + 12 * module.out_channels
    if isinstance(module, nn.Linear):
        return 4 * (module.weight.numel() + module.out_features)
    pool = name.split(".")[5:] == ["norm"]  # cells.i.nodes.j.k.norm
    return 12 * module.num_features if pool and isinstance(module, nn.BatchNorm2d) else 0


def test_layers_that_cannot_be_packed_are_named() -> None:
    staged = build("bi-real-18", channels=8)
    set_stage(staged, activations=True, weights=False)
    with pytest.raises(InputError, match=r"stages\.0\.0\.conv: has 1-bit inputs and real weights"):
        pack(staged)
    with pytest.raises(InputError, match="no layer with 1-bit weights and inputs"):
        pack(build("bi-real-18", channels=8, precision="real"))
    batch = Pair(_conv(3, 8, 3), _conv(8, 8, 3))
    batch.first_norm = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(InputError, match="first_norm: batch norm without running statistics"):
        pack(batch)
    with pytest.raises(InputError, match=r"first: is a depthwise 1-bit convolution of 13 x 13"):
        pack(Pair(_conv(3, 3, 13, padding=6, groups=3), _conv(3, 8, 3)))
    odd = Pair(_conv(3, 8, 3), _conv(8, 8, 3))
    odd.second_norm = nn.Softmax(dim=1)
    with pytest.raises(InputError, match="second_norm: calls the function softmax"):
        pack(odd)
    infinite = Pair(_conv(3, 8, 3), _conv(8, 8, 3))
    infinite.first_norm.weight.data[2] = float("inf")
    with pytest.raises(InputError, match="first: has a norm that is not finite"):
        pack(infinite)


def test_images_and_files_of_other_shapes_are_refused(tmp_path: Path) -> None:
    packed = pack(_network("found"))
    with pytest.raises(InputError, match=r"allowed: \(N, 3, H, W\)"):
        packed(torch.zeros(1, 1, 32, 32))
    valid = Pair(_conv(3, 8, 5), _conv(8, 8, 5))
    with pytest.raises(InputError, match="too small"):
        pack(valid)(torch.zeros(1, 3, 6, 6))
    save(tmp_path / "a.safetensors", packed)
    raw = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load(tmp_path / "cut.safetensors")
    packed.program.tensors[3] = (packed.program.tensors[3][0], packed.program.tensors[3][1][:-1])
    save(tmp_path / "short.safetensors", packed)
    with pytest.raises(InputError, match="contradicts itself"):
        load(tmp_path / "short.safetensors")


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_changed_table_is_refused_or_still_fits(data: st.DataObject) -> None:
    """Whatever number stands in a table, the file is refused or runs within its buffers."""
    packed = _small()
    table = data.draw(st.sampled_from(["operations", "values"]))
    original = getattr(packed.program, table)
    changed = original.copy()
    row, column = (data.draw(st.integers(0, size - 1)) for size in changed.shape)
    changed[row, column] = data.draw(st.sampled_from([-2, -1, 0, 1, 2, 3, 5, 64, 2**30]))
    program = replace(packed.program, **{table: changed})
    with suppress(ValueError, IndexError, InputError):
        check(program)
        Packed(program, {}, "")(torch.zeros(1, 3, 16, 16))


@functools.cache
def _small() -> Packed:
    torch.manual_seed(0)
    return pack(
        randomise(Pair(_conv(3, 8, 3, padding=1), _conv(8, 8, 3, stride=2, groups=8, padding=1)), 0), (16, 16)
    )


def test_signs_of_zero_are_positive() -> None:
    pair = Pair(_conv(3, 3, 1), _conv(3, 3, 1), norm=False).eval()
    x = torch.tensor([0.0, -0.0, -1e-30]).view(1, 3, 1, 1).expand(1, 3, 4, 4).contiguous()
    assert torch.equal(sign(x)[0, :, 0, 0], torch.tensor([1.0, 1.0, -1.0]))
    assert torch.equal(pack(pair, (4, 4)).forward_features(x)[1], pair.forward_features(x)[1].detach())
