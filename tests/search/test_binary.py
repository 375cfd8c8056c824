"""Quantisers, their gradients and the 1-bit convolution, against the printed numbers of published modules."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from search.binary import (
    QuantConv2d,
    Real,
    Shared,
    Shifted,
    SignActivation,
    SignWeight,
    binarise,
    quant_convs,
    reconstruction_error,
    set_stage,
    share,
    sign,
    value_of,
)
from search.errors import InputError
from tests.golden import golden

TOLERANCE = {"rel": 1e-5, "abs": 1e-6}
"""The golden numbers come from float32 modules (sums exact to about 3e-6), printed with six decimals."""


def _gradient(points: list[float], estimator: str, dtype: torch.dtype = torch.float64) -> list[float]:
    x = torch.tensor(points, dtype=dtype, requires_grad=True)
    binarise(x, estimator).sum().backward()
    return x.grad.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_sign_of_zero_is_plus_one(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, 1e-4, -1e-4, 3.0, -3.0, float("inf"), -float("inf")], dtype=dtype)
    assert sign(x).tolist() == [1, 1, 1, -1, 1, -1, 1, -1]
    assert sign(x).dtype == dtype
    assert torch.signbit(x).tolist() == [False, True, False, True, False, True, False, True], (
        "the input is kept"
    )


def test_sign_of_the_smallest_numbers() -> None:
    tiny = torch.tensor([5e-324, -5e-324], dtype=torch.float64)
    assert sign(tiny).tolist() == [1, -1]


def test_sign_of_a_tensor_that_wants_gradients() -> None:
    weight = torch.nn.Parameter(torch.tensor([-0.5, 0.0]))
    assert sign(weight).tolist() == [-1, 1]
    assert not sign(weight).requires_grad


def test_bireal_gradient_equals_the_release() -> None:
    expected = golden("bireal_gradient")
    assert _gradient(expected["at"], "bireal") == expected["gradient"]


def test_bireal_gradient_ends_at_one() -> None:
    assert _gradient([-1.0, 1.0, 0.5, -0.5], "bireal") == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ste_gradient_is_one_on_the_closed_interval(dtype: torch.dtype) -> None:
    beyond = torch.nextafter(torch.tensor(1.0, dtype=dtype), torch.tensor(2.0, dtype=dtype)).item()
    points = [-2.0, -beyond, -1.0, -0.3, 0.0, 0.3, 1.0, beyond, 2.0]
    assert _gradient(points, "ste", dtype) == [0, 0, 1, 1, 1, 1, 1, 0, 0]


def test_identity_gradient() -> None:
    assert _gradient([-5.0, 0.0, 5.0], "identity") == [1, 1, 1]


@pytest.mark.parametrize("estimator", ["ste", "bireal"])
@pytest.mark.parametrize("differentiable", [False, True])
def test_gradient_is_the_formula_whether_it_is_differentiated_again_or_not(
    estimator: str, differentiable: bool
) -> None:
    """Two routes in the code: a fused kernel that writes in place, and one that autograd can follow."""
    x = torch.linspace(-2, 2, 81, dtype=torch.float64).requires_grad_()
    scale = torch.linspace(-3, 5, 81, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((binarise(x, estimator) * scale).sum(), x, create_graph=differentiable)
    inside = x.abs() <= 1
    expected = {"ste": scale, "bireal": scale * (2 - 2 * x.abs())}[estimator] * inside
    torch.testing.assert_close(gradient.detach(), expected.detach(), rtol=1e-14, atol=1e-14)
    if differentiable and estimator == "bireal":
        (second,) = torch.autograd.grad(gradient.sum(), x)
        interior = (x != 0) & (x.abs() < 1)
        torch.testing.assert_close(second[interior], (-2 * x.sign() * scale)[interior])


@pytest.mark.parametrize(("estimator", "expected"), [("ste", [0, 1, 1, 1, 0]), ("bireal", [0, 1, 2, 0, 0])])
def test_a_wider_window_reaches_further_and_scales_nothing(estimator: str, expected: list[float]) -> None:
    """1 for |x| <= t, or 2 - 2 |x| / t, with t = 2 at -3, -1, 0, 2 and 2.5; forward mode takes the same rule."""
    x = torch.tensor([-3.0, -1.0, 0.0, 2.0, 2.5], dtype=torch.float64, requires_grad=True)
    quantiser = SignActivation(estimator, window=2.0)
    quantiser(x).sum().backward()
    assert x.grad.tolist() == expected
    assert quantiser.rule != SignActivation(estimator).rule


def test_the_gradient_leaves_what_came_in_as_it_was() -> None:
    x = torch.tensor([0.5, -0.25], requires_grad=True)
    incoming = torch.tensor([1.0, 3.0])
    y = binarise(x, "bireal")
    y.backward(incoming)
    assert incoming.tolist() == [1, 3] and x.tolist() == [0.5, -0.25] and y.tolist() == [1, -1]


def test_a_shared_map_is_quantised_once_a_rule() -> None:
    calls = []
    quantisers = [
        SignActivation("bireal"),
        SignActivation("bireal"),
        SignActivation("ste"),
        Real(),
        Real(True),
    ]
    for index, quantiser in enumerate(quantisers):
        quantiser.register_forward_hook(lambda module, inputs, output, index=index: calls.append(index))
    state = share(torch.randn(1, 1, 2, 2))
    made = [state.quantised(quantiser) for quantiser in (*quantisers, *quantisers)]
    assert calls == [0, 2, 3, 4]
    assert made[0] is made[1] is made[5]
    assert torch.equal(made[3], state.value) and torch.equal(made[4], state.value.relu())
    assert share(state) is state and value_of(state) is state.value


def test_a_quantiser_that_was_switched_off_does_not_take_the_signs_of_another() -> None:
    state, off = Shared(torch.tensor([-0.5, 2.0])), SignActivation()
    off.enabled = False
    assert state.quantised(SignActivation()).tolist() == [-1, 1]
    assert state.quantised(off).tolist() == [-0.5, 2.0]


@pytest.mark.parametrize("estimator", ["ste", "bireal", "identity"])
def test_sharing_changes_neither_values_nor_gradients(estimator: str) -> None:
    """Two convolutions on one map, the second on it without first row and column, as a factorised reduction has."""
    torch.manual_seed(0)
    convs = [
        QuantConv2d(3, 2, 1, 2, input_quantiser=SignActivation(estimator), weight_quantiser=SignWeight())
        for _ in range(2)
    ]
    x = torch.randn(2, 3, 6, 6)
    found = []
    for sharing in (False, True):
        leaf = x.clone().requires_grad_()
        state = Shared(leaf)
        inputs = (state, Shifted(state)) if sharing else (leaf, leaf[:, :, 1:, 1:])
        outputs = [conv(value) for conv, value in zip(convs, inputs, strict=True)]
        torch.cat(outputs).square().sum().backward()
        found.append((torch.cat(outputs).detach(), leaf.grad))
    for separate, shared in zip(*found, strict=True):
        torch.testing.assert_close(shared, separate)


def test_golden_convolution() -> None:
    expected = golden("convolution")
    conv = QuantConv2d(
        2, 2, 3, 1, 1, input_quantiser=SignActivation("bireal"), weight_quantiser=SignWeight("mean_abs", 2)
    ).double()
    with torch.no_grad():
        conv.weight.copy_(torch.sin(0.5 * torch.arange(36, dtype=torch.float64) + 0.2).reshape(2, 2, 3, 3))
    x = torch.cos(0.3 * torch.arange(32, dtype=torch.float64) + 0.1).reshape(1, 2, 4, 4).requires_grad_()
    y = conv(x)
    y.square().sum().backward()

    def near(value: float | list[float]) -> object:
        return pytest.approx(value, **TOLERANCE)

    assert conv.weight_quantiser.beta(conv.weight).flatten().tolist() == near(expected["scales"])
    assert y.sum().item() == near(expected["sum"])
    assert y.square().sum().item() == near(expected["sum_of_squares"])
    assert y.flatten()[:6].tolist() == near(expected["first_outputs"])
    assert conv.weight.grad.sum().item() == near(expected["weight_gradient_sum"])
    assert conv.weight.grad.abs().sum().item() == near(expected["weight_gradient_abs_sum"])
    assert conv.weight.grad.flatten()[:4].tolist() == near(expected["weight_gradient_first"])
    assert x.grad.sum().item() == near(expected["input_gradient_sum"])
    assert x.grad.abs().sum().item() == near(expected["input_gradient_abs_sum"])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["mean_abs", "learned", "none"]))
def test_weights_have_two_values_a_channel(seed: int, scale: str) -> None:
    weight = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
    quantiser = SignWeight(scale, 3)
    beta = quantiser.beta(weight)
    assert beta.shape == (3, 1, 1, 1) and (beta >= 0).all()
    assert torch.equal(quantiser(weight), sign(weight) * beta)


def test_mean_abs_scale_is_constant_for_the_gradient() -> None:
    weight = torch.tensor([0.5, -0.25, 2.0, 0.25]).reshape(1, 1, 2, 2).requires_grad_()
    quantised = SignWeight("mean_abs", 1)(weight)
    assert quantised.flatten().tolist() == [0.75, -0.75, 0.75, 0.75]
    quantised.sum().backward()
    # The clipped straight-through estimator alone (4.35): neither d beta / d w nor beta itself.
    assert weight.grad.flatten().tolist() == [1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("scale", ["mean_abs", "learned", "none"])
@pytest.mark.parametrize("rule", ["unscaled", "scaled"])
def test_gradient_of_a_weight_is_the_printed_formula(scale: str, rule: str) -> None:
    """(4.34) with (4.35): beta g 1[|w| <= 1]; unscaled it is 1 / beta times that. A learned beta is in the chain."""
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn_like(weight)
    quantiser = SignWeight(scale, 3, gain=0.5, gradient=rule).double()
    quantiser(weight).backward(incoming)
    clipped = incoming * (weight.abs() <= 1)
    beta = {
        "mean_abs": weight.detach().abs().mean((1, 2, 3), keepdim=True),
        "learned": torch.full((3, 1, 1, 1), 0.5, dtype=torch.float64),
        "none": torch.ones(3, 1, 1, 1, dtype=torch.float64),
    }[scale]
    expected = clipped if rule == "unscaled" and scale == "mean_abs" else beta * clipped
    torch.testing.assert_close(weight.grad, expected, rtol=1e-14, atol=0)
    assert torch.equal(quantiser(weight), beta * sign(weight))


def test_learned_scale_is_positive_and_its_gradient_has_the_sign_of_the_parameter() -> None:
    """The release loses sign(M) in the backward of 0.02 sign(W) |M|; ours must not."""
    quantiser = SignWeight("learned", 2, estimator="identity", gain=0.02)
    with torch.no_grad():
        quantiser.magnitude.copy_(torch.tensor([3.0, -3.0]).reshape(2, 1, 1, 1))
    weight = torch.full((2, 1, 1, 1), 0.5)
    quantised = quantiser(weight)
    assert quantised.flatten().tolist() == pytest.approx([0.06, 0.06])
    quantised.sum().backward()
    assert quantiser.magnitude.grad.flatten().tolist() == pytest.approx([0.02, -0.02])


@pytest.mark.parametrize("pad_value", [-1.0, 0.0, 1.0])
def test_what_surrounds_a_one_bit_map(pad_value: float) -> None:
    conv = QuantConv2d(
        1,
        1,
        3,
        1,
        1,
        input_quantiser=SignActivation(),
        weight_quantiser=SignWeight("none"),
        pad_value=pad_value,
    )
    torch.nn.init.ones_(conv.weight)
    y = conv(torch.ones(1, 1, 3, 3))
    # A corner sees four ones and five padded values, the centre nine ones.
    assert y[0, 0, 0, 0].item() == 4 + 5 * pad_value
    assert y[0, 0, 1, 1].item() == 9


@pytest.mark.parametrize(("padding", "dilation", "groups"), [(1, 1, 1), (2, 2, 4), (4, 2, 1)])
def test_padding_with_a_value_is_a_convolution_of_the_padded_map(
    padding: int, dilation: int, groups: int
) -> None:
    kernel = 5 if padding == 4 else 3
    conv = QuantConv2d(
        4, 4, kernel, 2, padding, dilation, groups,
        input_quantiser=SignActivation(), weight_quantiser=SignWeight("mean_abs", 4), pad_value=-1.0,
    )  # fmt: skip
    x = torch.randn(2, 4, 9, 7)
    padded = F.pad(sign(x), (padding,) * 4, value=-1.0)
    weight = sign(conv.weight.detach()) * conv.weight.abs().mean((1, 2, 3), keepdim=True)
    expected = F.conv2d(padded, weight, stride=2, dilation=dilation, groups=groups)
    torch.testing.assert_close(conv(x), expected)


def test_a_default_convolution_is_real() -> None:
    conv = QuantConv2d(3, 4, 3, padding=1)
    x = torch.randn(1, 3, 5, 5)
    assert (conv.input_quantiser.precision, conv.weight_quantiser.precision) == (32, 32)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=1))


def test_the_twin_of_sign_is_a_relu() -> None:
    x = torch.tensor([-1.0, 2.0])
    assert Real(relu=True)(x).tolist() == [0.0, 2.0]
    assert Real()(x).tolist() == [-1.0, 2.0]
    assert Real(relu=True).precision == 32


@pytest.mark.parametrize(
    ("activations", "weights"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_staged_binarisation(activations: bool, weights: bool) -> None:
    conv = QuantConv2d(2, 3, 3, input_quantiser=SignActivation(), weight_quantiser=SignWeight("none"))
    network = torch.nn.Sequential(conv, torch.nn.ReLU())
    set_stage(network, activations=activations, weights=weights)
    assert conv.input_quantiser.precision == (1 if activations else 32)
    assert conv.weight_quantiser.precision == (1 if weights else 32)
    x = torch.randn(1, 2, 5, 5)
    expected = F.conv2d(sign(x) if activations else x, sign(conv.weight.detach()) if weights else conv.weight)
    torch.testing.assert_close(conv(x), expected)


def test_quant_convs_are_named_in_registration_order() -> None:
    network = torch.nn.Sequential(
        QuantConv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1), torch.nn.Sequential(QuantConv2d(1, 1, 1))
    )
    assert [name for name, _ in quant_convs(network)] == ["0", "2.0"]


def test_reconstruction_error() -> None:
    conv = QuantConv2d(1, 1, 2, weight_quantiser=SignWeight("mean_abs", 1))
    real = QuantConv2d(1, 1, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, -2.0, 3.0, -4.0]).reshape(1, 1, 2, 2))
    # beta = 2.5, so the distances are 1.5, 0.5, 0.5, 1.5.
    assert reconstruction_error(torch.nn.Sequential(conv, real)).item() == pytest.approx(5.0)
    set_stage(conv, activations=True, weights=False)
    assert reconstruction_error(torch.nn.Sequential(conv, real)).item() == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SignActivation("tanh"), "'tanh' is no estimator; allowed: ste, bireal, identity"),
        (lambda: SignWeight("max"), "'max' is no scale; allowed: mean_abs, learned, none"),
        (lambda: SignWeight(gradient="xnor"), "'xnor' is no weight gradient; allowed: unscaled, scaled"),
        (lambda: QuantConv2d(1, 1, 1, pad_value=0.5), "0.5 is no pad_value; allowed: -1, 0, 1"),
    ],
)
def test_wrong_settings_are_named(make: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
