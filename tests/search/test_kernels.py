"""Native kernels against their plain twin on drawn shapes, and every variant against portable C bit for bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from search.binary import binarise, sign
from search.kernels import layers, native
from search.kernels.build import VARIANTS
from search.kernels.layers import (
    BlockPlan,
    block,
    plain_block,
    plain_project,
    plain_reduce,
    project,
    reduce,
    signed,
)
from search.kernels.norms import Norm

pytestmark = pytest.mark.skipif(not native.available(), reason="no native kernels: no compiler")
RUNNABLE = [variant for variant in VARIANTS if variant.runs_here]


@dataclass(frozen=True)
class Case:
    """A drawn block: sizes, geometry, and how its norms and estimators are."""

    images: int
    inputs: int
    outputs: int
    height: int
    width: int
    kernel: int
    stride: int
    dilation: int
    border: int
    affine: bool
    evaluate: bool
    estimator: str
    window: float


CASES = st.builds(
    Case,
    images=st.integers(2, 5),
    inputs=st.one_of(st.integers(2, 20), st.sampled_from([126, 127, 128, 200, 256])),
    outputs=st.sampled_from([2, 4, 6, 8]),
    height=st.integers(3, 14),
    width=st.integers(3, 19),
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    border=st.sampled_from([-1, 0, 1]),
    affine=st.booleans(),
    evaluate=st.booleans(),
    estimator=st.sampled_from(["ste", "bireal", "identity"]),
    window=st.sampled_from([1.0, 1.7]),
)
TYPICAL = Case(17, 16, 16, 32, 32, 5, 1, 2, 0, False, False, "bireal", 1.0)
WIDE = Case(3, 200, 6, 7, 9, 3, 2, 1, 1, True, False, "ste", 1.7)


@dataclass
class Inputs:
    """Tensors of a case: the map, weights +-beta, affine parts, a plan, and what comes in for the output."""

    x: Tensor
    w1: Tensor
    w2: Tensor
    affine: list[Tensor | None]
    plan: BlockPlan
    generator: torch.Generator

    def fresh(self, dtype: torch.dtype = torch.float32) -> Inputs:
        """Leaves that want gradients, and running statistics of their own."""
        norms = [
            replace(norm, mean=norm.mean.to(dtype, copy=True), var=norm.var.to(dtype, copy=True))  # type: ignore[union-attr]
            for norm in (self.plan.first, self.plan.second)
        ]
        leaves = [
            None if value is None else value.to(dtype, copy=True).requires_grad_()
            for value in (self.x, self.w1, self.w2, *self.affine)
        ]
        plan = replace(self.plan, first=norms[0], second=norms[1])
        return Inputs(*leaves[:3], leaves[3:], plan, self.generator)  # type: ignore[arg-type]

    @property
    def leaves(self) -> list[Tensor]:
        return [value for value in (self.x, self.w1, self.w2, *self.affine) if value is not None]


def inputs(case: Case) -> Inputs:
    generator = torch.Generator().manual_seed(hash(case) % 2**32)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def weights(outputs: int, *shape: int) -> Tensor:
        return sign(normal(outputs, *shape)) * normal(outputs, 1, 1, 1).abs()

    def norm(channels: int) -> Norm:
        return Norm(0.1 * normal(channels), normal(channels).square() + 0.1, 1e-5, 0.1, case.evaluate)

    plan = BlockPlan(
        case.stride,
        case.dilation,
        case.border,
        (case.estimator, case.window),
        norm(case.inputs),
        norm(case.outputs),
    )
    channels = (case.inputs, case.inputs, case.outputs, case.outputs)
    return Inputs(
        normal(case.images, case.inputs, case.height, case.width),
        weights(case.inputs, 1, case.kernel, case.kernel),
        weights(case.outputs, case.inputs, 1, 1),
        [normal(count) for count in channels] if case.affine else [None] * 4,
        plan,
        generator,
    )


def quantised(given: Inputs) -> tuple[Tensor, Tensor]:
    """Proxy and planes; in float64 by the plain quantiser."""
    if given.x.dtype == torch.float32:
        return signed(given.x, given.plan.estimate)
    x = binarise(given.x, given.plan.estimate[0], window=given.plan.estimate[1])  # type: ignore[arg-type]
    return x - x.detach(), x.detach().to(torch.int8)


def run_block(function: Callable[..., Tensor], given: Inputs) -> Tensor:
    gamma1, bias1, gamma2, bias2 = given.affine
    pair = quantised(given)
    return function(*pair, given.w1, gamma1, bias1, given.w2, gamma2, bias2, given.plan)


def run_project(function: Callable[..., Tensor], given: Inputs) -> Tensor:
    pair = quantised(given)
    return function(*pair, given.w2, *given.affine[2:], given.plan.second)


PAIRS = {
    "block": (run_block, block, plain_block),
    "project": (run_project, project, plain_project),
    "reduce": (run_project, reduce, plain_reduce),
}


def everything(
    run: Callable[..., Tensor],
    function: Callable[..., Tensor],
    given: Inputs,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Value, gradients and updated running statistics."""
    given = given.fresh(dtype)
    y = run(function, given)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = torch.autograd.grad(y, given.leaves, gradient, allow_unused=True)
    statistics = [s for n in (given.plan.first, given.plan.second) for s in (n.mean, n.var)]
    named = {"value": y.detach()}
    named |= {f"gradient {k}": value for k, value in enumerate(found) if value is not None}
    return named | {f"statistic {k}": value for k, value in enumerate(statistics) if value is not None}


def assert_near(ours: Tensor, expected: Tensor, where: str, tolerance: float = 1e-5) -> None:
    scale = float(expected.abs().max())
    assert float((ours - expected).abs().max()) <= tolerance * scale + 1e-12, where


@pytest.mark.parametrize("layer", PAIRS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=CASES)
def test_kernels_and_plain_twin_agree(layer: str, case: Case) -> None:
    """Values and running statistics are equal bit for bit, gradients to the rounding of sums in float32.

    Gradients are held against the twin in float64. A sum that cancels has its terms' rounding error, whatever its
    own size; what the library's float32 makes of the same terms shows how large that is.
    """
    given_inputs = inputs(case)
    run, fast, slow = PAIRS[layer]
    ours, plain = everything(run, fast, given_inputs), everything(run, slow, given_inputs)
    exact = everything(run, slow, given_inputs, torch.float64)
    assert ours.keys() == plain.keys() == exact.keys()
    for name, value in ours.items():
        if not name.startswith("gradient"):
            assert torch.equal(value, plain[name]), name
            continue
        usual = float((plain[name] - exact[name]).abs().max())
        found = float((value - exact[name]).abs().max())
        assert found <= max(1e-5 * float(exact[name].abs().max()), 4 * usual, 1e-6), name


@pytest.mark.parametrize("layer", PAIRS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=CASES)
def test_the_tangent_is_that_of_two_reverse_passes_over_the_twin(layer: str, case: Case) -> None:
    given_inputs = inputs(case)
    run, fast, slow = PAIRS[layer]
    given_inputs.plan = given_inputs.plan.again
    direction = torch.randn(given_inputs.x.shape, generator=given_inputs.generator)
    x = given_inputs.x
    with torch.no_grad(), forward_ad.dual_level():
        given_inputs.x = forward_ad.make_dual(x, direction)
        tangent = forward_ad.unpack_dual(run(fast, given_inputs)).tangent
    leaf = given_inputs.x = x.clone().requires_grad_()
    y = run(slow, given_inputs)
    dummy = torch.zeros_like(y, requires_grad=True)
    (pulled,) = torch.autograd.grad(y, leaf, dummy, create_graph=True)
    (expected,) = torch.autograd.grad(pulled, dummy, direction)
    assert_near(tangent, expected, "tangent", 2e-5)


def test_a_tangent_of_the_weights_is_pushed_by_the_twin() -> None:
    given_inputs = inputs(replace(TYPICAL, images=2, height=8, width=8))
    plan = replace(given_inputs.plan, first=given_inputs.plan.first.again)
    pair = signed(given_inputs.x, plan.estimate)
    direction = torch.randn(given_inputs.w2.shape, generator=given_inputs.generator)
    with torch.no_grad(), forward_ad.dual_level():
        w2 = forward_ad.make_dual(given_inputs.w2, direction)
        y = block(*pair, given_inputs.w1, None, None, w2, None, None, plan.again)
        tangent = forward_ad.unpack_dual(y).tangent
    leaf = given_inputs.w2.clone().requires_grad_()
    y = block(*pair, given_inputs.w1, None, None, leaf, None, None, plan.again)
    weights = torch.randn(y.shape, generator=given_inputs.generator)
    (gradient,) = torch.autograd.grad(y, leaf, weights)
    torch.testing.assert_close((tangent * weights).sum(), (gradient * direction).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", PAIRS)
def test_second_derivatives_are_those_of_the_twin(layer: str) -> None:
    found = []
    run, *functions = PAIRS[layer]
    for function in functions:
        given_inputs = inputs(replace(TYPICAL, images=2, height=6, width=6, affine=True)).fresh()
        y = run(function, given_inputs)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (first,) = torch.autograd.grad((y * weights).sum(), given_inputs.x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), given_inputs.x)[0])
    ours, expected = found
    assert float(expected.abs().max()) > 1e-3
    assert_near(ours, expected, "second derivative", 1e-4)


def test_the_sign_of_the_mean_is_plus() -> None:
    """An integer equal to the mean normalises to 0 and its sign is +1, which floats decide by rounding."""
    x = torch.ones(2, 3, 4, 4)
    x[0] = -1.0
    weight = torch.full((3, 1, 1, 1), 0.3).expand(3, 3, 1, 1).contiguous()
    pair = signed(x, ("ste", 1.0))
    norm = Norm(None, None, 1e-5, 0.1, False)
    constant = project(*signed(torch.ones(2, 3, 4, 4), ("ste", 1.0)), weight, None, None, norm)
    assert torch.equal(constant, torch.zeros_like(constant))
    assert torch.equal(
        project(*pair, weight, None, None, norm)[0], -project(*pair, weight, None, None, norm)[1]
    )


def test_a_channel_whose_weights_are_all_zero_gives_zero_and_plus() -> None:
    for case in (TYPICAL, replace(TYPICAL, affine=True), replace(TYPICAL, evaluate=True)):
        given_inputs = inputs(replace(case, images=2, height=5, width=5))
        given_inputs.w1[3] *= 0.0
        given_inputs.w2[1] *= 0.0
        ours, expected = (everything(run_block, f, given_inputs) for f in (block, plain_block))
        assert torch.equal(ours["value"], expected["value"])
        for name in ("gradient 0", "gradient 1", "gradient 2"):
            assert_near(ours[name], expected[name], name)


# ---- the same numbers, whatever the instruction set and the number of threads


@contextmanager
def loaded(library: ctypes.CDLL) -> Iterator[None]:
    before = native._loaded
    native._loaded = lambda: (library, None)  # type: ignore[assignment]
    try:
        yield
    finally:
        native._loaded = before


def all_results(case: Case) -> dict[str, Tensor]:
    given_inputs = inputs(case)
    results = {}
    for layer, (run, function, _) in PAIRS.items():
        results |= {
            f"{layer} {name}": value for name, value in everything(run, function, given_inputs).items()
        }
        with torch.no_grad(), forward_ad.dual_level():
            direction = torch.randn(given_inputs.x.shape, generator=torch.Generator().manual_seed(2))
            dual = replace_x(given_inputs.fresh(), forward_ad.make_dual(given_inputs.x, direction))
            results[f"{layer} tangent"] = forward_ad.unpack_dual(run(function, dual)).tangent
    return results


def replace_x(given_inputs: Inputs, x: Tensor) -> Inputs:
    given_inputs.x = x
    return given_inputs


@pytest.mark.parametrize("case", [TYPICAL, WIDE, replace(WIDE, inputs=9, stride=1, evaluate=True)])
@pytest.mark.parametrize("variant", RUNNABLE, ids=lambda variant: variant.name)
def test_every_variant_gives_the_numbers_of_portable_c(variant: Any, case: Case) -> None:
    with loaded(native.prepared(native.LIBRARY.load(VARIANTS[-1]))):
        expected = all_results(case)
    with loaded(native.prepared(native.LIBRARY.load(variant))):
        ours = all_results(case)
    for name, value in ours.items():
        assert torch.equal(value, expected[name]), name


def test_the_number_of_threads_changes_nothing() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(all_results(TYPICAL))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(value, other[name]) for name, value in results[0].items())


def test_only_planes_and_sums_are_kept_for_backward() -> None:
    """Two bytes a value of the inner maps and one of the planes, which all readers share."""
    given_inputs = inputs(TYPICAL).fresh()
    pair = signed(given_inputs.x, ("bireal", 1.0))
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        block(*pair, given_inputs.w1, None, None, given_inputs.w2, None, None, given_inputs.plan)
    assert sum(kept.values()) < 3.1 * given_inputs.x.numel()


# ---- what runs


def test_what_runs_is_named_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        assert native.choose("off") == "plain" == native.running() and not native.available()
        assert native.choose("auto") == native.LIBRARY.choose().name and native.available()
    finally:
        native.choose("auto")


def test_without_a_library_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "_loaded", lambda: (None, "no C compiler (gcc) is installed"))
    assert native.choose("auto") == "plain"
    assert "plain PyTorch runs in place of the native kernels: no C compiler" in caplog.text


def test_layers_refuse_nothing_silently() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        layers.operators.planes(torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
