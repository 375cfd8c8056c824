from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from search.binary import quant_convs
from search.decoupled import Backtracking, operation_norms, ranking
from search.genotype import OPERATIONS
from search.network import NetworkConfig
from search.style import OperationStyle
from search.supernet import Supernet

ETA, ETA_PSI, TAU, START = 0.5, 0.2, 0.5, 0.3
SHAPE = torch.Size((2, 14, 8))


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ranks() -> Tensor:
    return ranking(draw(3, *SHAPE).square())


def backtracking(eta: float = ETA, eta_psi: float = ETA_PSI, tau: float = TAU) -> Backtracking:
    return Backtracking(SHAPE, eta, eta_psi, tau, START, dtype=torch.float64)


def descend(alpha: Tensor, gradient: Tensor, rate: float = 0.1) -> None:
    alpha.sub_(gradient, alpha=rate)


def one_step(entry: Backtracking, alpha: Tensor, gradient: Tensor) -> Tensor:
    moved = alpha.clone()
    entry.step(moved, gradient, ranks(), lambda: descend(moved, gradient))
    return moved


def test_only_selected_operations_are_led_back() -> None:
    """alphatilde = alpha^{t+1} + eta psi o alpha^t where the rank is above tau, else alpha^{t+1}."""
    alpha, gradient, entry = draw(0, *SHAPE), draw(1, *SHAPE), backtracking()
    found = one_step(entry, alpha, gradient)
    plain = alpha.clone()
    descend(plain, gradient)
    selected = ranks() > TAU
    assert 0 < selected.sum() < selected.numel()
    assert torch.equal(found[~selected], plain[~selected])
    expected = plain + ETA * START * alpha
    torch.testing.assert_close(found[selected], expected[selected])
    assert not torch.isclose(found[selected], plain[selected]).any()


def test_eta_0_is_plain_descent_to_the_last_bit() -> None:
    entry, alpha = backtracking(eta=0.0), draw(0, *SHAPE)
    plain = alpha.clone()
    for step in range(5):
        gradient = draw(step + 1, *SHAPE)
        alpha = one_step(entry, alpha, gradient)
        descend(plain, gradient)
    assert torch.equal(alpha, plain)
    assert torch.equal(entry.psi, torch.full((2, 14), START, dtype=torch.float64))


@pytest.mark.parametrize(("tau", "share"), [(1.0, 0), (0.0, 7), (0.5, 4)])
def test_tau_decides_how_many_operations_of_an_edge_are_selected(tau: float, share: int) -> None:
    entry = backtracking(tau=tau)
    one_step(entry, draw(0, *SHAPE), draw(1, *SHAPE))
    assert ((entry.slope != 0).sum(-1) == share).all()


def test_psi_stays_non_negative() -> None:
    """(4.51) takes the absolute value; with a long step its argument does become negative."""
    entry, alpha = backtracking(eta_psi=0.5), draw(0, *SHAPE)
    arguments = []
    for step in range(6):
        gradient = draw(step + 1, *SHAPE)
        slope = (gradient * entry.slope).sum(-1)
        arguments.append(entry.psi - 0.5 * slope / slope.square().mean().sqrt() if slope.any() else entry.psi)
        alpha = one_step(entry, alpha, gradient)
        assert (entry.psi >= 0).all()
        torch.testing.assert_close(entry.psi, arguments[-1].abs())
    assert min(float(argument.min()) for argument in arguments) < 0


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3])
def test_psi_moves_by_eta_psi_whatever_the_size_of_alpha(size: float) -> None:
    entry, alpha = backtracking(eta_psi=0.01), size * draw(0, *SHAPE)
    alpha = one_step(entry, alpha, 1e-4 * draw(1, *SHAPE))
    assert torch.equal(entry.psi, torch.full((2, 14), START, dtype=torch.float64))
    before = entry.psi.clone()
    one_step(entry, alpha, 1e-4 * draw(2, *SHAPE))
    assert float((entry.psi - before).square().mean().sqrt()) == pytest.approx(0.01, rel=1e-6)


def test_share_is_the_backtracking_over_the_descent() -> None:
    alpha, gradient, entry = draw(0, *SHAPE), draw(1, *SHAPE), backtracking()
    one_step(entry, alpha, gradient)
    expected = (ETA * START * alpha * (ranks() > TAU)).norm() / (0.1 * gradient).norm()
    assert entry.share == pytest.approx(float(expected), rel=1e-9)
    assert torch.equal(entry.selected, ranks() > TAU)


def test_gradient_of_psi_is_that_of_finite_differences() -> None:
    """dL/dpsi with L at the backtracked alpha: the update of psi, against L as a function of psi."""
    alpha, gradient, entry = draw(0, *SHAPE), draw(1, *SHAPE), backtracking()
    matrix = draw(7, 224, 224) / 15

    def loss(table: Tensor) -> Tensor:
        return torch.sin(matrix @ table.flatten()).sum()

    plain = alpha - 0.1 * gradient
    led = one_step(entry, alpha, gradient)

    def of_psi(psi: Tensor) -> Tensor:
        return loss(plain + ETA * psi[..., None] * alpha * (ranks() > TAU))

    torch.testing.assert_close(of_psi(entry.psi), loss(led))
    leaf = led.clone().requires_grad_()
    (next_gradient,) = torch.autograd.grad(loss(leaf), leaf)
    before = entry.psi.clone()
    one_step(entry, led, next_gradient)
    expected = torch.zeros(2, 14, dtype=torch.float64)
    for kind in range(2):
        for edge in range(14):
            unit = torch.zeros(2, 14, dtype=torch.float64)
            unit[kind, edge] = 1e-6
            expected[kind, edge] = (of_psi(before + unit) - of_psi(before - unit)) / 2e-6
    assert expected.abs().max() > 1e-2
    step = ETA_PSI * expected / expected.square().mean().sqrt()
    torch.testing.assert_close(entry.psi, (before - step).abs(), rtol=1e-6, atol=1e-8)


def test_forgotten_slope_leaves_psi_alone() -> None:
    entry = backtracking()
    moved = one_step(entry, draw(0, *SHAPE), draw(1, *SHAPE))
    psi = entry.psi.clone()
    entry.forget()
    one_step(entry, moved, draw(2, *SHAPE))
    assert torch.equal(entry.psi, psi)


def test_state_goes_on_where_it_was() -> None:
    first, second = backtracking(), backtracking()
    alpha = one_step(first, draw(0, *SHAPE), draw(1, *SHAPE))
    second.load_state_dict(first.state_dict())
    assert torch.equal(one_step(first, alpha, draw(2, *SHAPE)), one_step(second, alpha, draw(2, *SHAPE)))
    assert torch.equal(first.psi, second.psi)


def test_ranking_is_the_scaled_rank_on_the_edge() -> None:
    norms = torch.tensor([[0.0, 0.5, 0.5, 9.0, 3.0, 4.0, 1.0, 2.0]])
    assert (ranking(norms) * 7).tolist() == [[0, 1, 1, 7, 5, 6, 3, 4]]


# ---- R(w_m)


def supernet(binary: bool) -> Supernet:
    torch.manual_seed(0)
    return Supernet(NetworkConfig(4, 3, 4, "cifar", OperationStyle(binary=binary)))


def mean_square(operation: nn.Module) -> float:
    """Of the weights the network multiplies by, by hand."""
    weights = [conv.weight_quantiser(conv.weight.detach()).flatten() for _, conv in quant_convs(operation)]
    return float(torch.cat(weights).square().mean())


@pytest.mark.parametrize("binary", [True, False])
def test_norms_are_those_of_the_weights_the_network_multiplies_by(binary: bool) -> None:
    """A weight's mean square: beta^2 for beta o sign(w), that of w in the Parent (4.53)."""
    network = supernet(binary)
    found = operation_norms(network)
    k, row = OPERATIONS.index("sep_conv_3x3"), 5
    (cell,) = [cell for cell in network.cells if not cell.plan.reduction]
    total, count = 0.0, 0
    for _, conv in quant_convs(cell.edges[row].operations[k]):
        for channel in conv.weight.detach():
            beta = float(channel.abs().mean())
            total += channel.numel() * beta**2 if binary else float(channel.square().sum())
            count += channel.numel()
    assert float(found[0, row, k]) == pytest.approx(total / count, rel=1e-5)


def test_norms_are_the_mean_over_the_cells_of_a_kind() -> None:
    network = supernet(binary=True)
    cells = [cell for cell in network.cells if cell.plan.reduction]
    assert len(cells) == 2
    k = OPERATIONS.index("dil_conv_5x5")
    single = [mean_square(cell.edges[0].operations[k]) for cell in cells]
    assert single[0] != single[1]
    assert float(operation_norms(network)[1, 0, k]) == pytest.approx(sum(single) / 2, rel=1e-5)


def test_operations_without_weights_count_as_the_convolution_they_equal() -> None:
    """A weight of the identity is 1, one of a 3x3 pool 1/9; ``none`` has nothing."""
    norms = operation_norms(supernet(binary=True))[0, 13]
    expected = {"none": 0.0, "max_pool_3x3": 1 / 81, "avg_pool_3x3": 1 / 81, "skip_connect": 1.0}
    for name, value in expected.items():
        assert float(norms[OPERATIONS.index(name)]) == pytest.approx(value)


def test_a_reduction_cells_skip_has_weights() -> None:
    """At stride 2 ``skip_connect`` is a factorised reduction: its two convolutions count."""
    norms = operation_norms(supernet(binary=True))[1]
    k = OPERATIONS.index("skip_connect")
    assert float(norms[13, k]) == pytest.approx(1.0)
    assert float(norms[0, k]) < 0.9


def test_the_order_by_norms_is_no_constant_of_the_operations() -> None:
    """The size of an operation does not decide: twice the weights, the same R; larger weights, another rank."""
    network = supernet(binary=True)
    before = ranking(operation_norms(network))
    small, large = (OPERATIONS.index(name) for name in ("dil_conv_3x3", "sep_conv_5x5"))
    with torch.no_grad():
        for cell in network.cells:
            for edge in cell.edges:
                for _, conv in quant_convs(edge.operations[large]):
                    conv.weight.mul_(0.1)
                for _, conv in quant_convs(edge.operations[small]):
                    conv.weight.mul_(3.0)
    after = ranking(operation_norms(network))
    assert (after[..., small] > after[..., large]).all()
    assert ((before > TAU) != (after > TAU)).any()
