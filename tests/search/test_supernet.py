"""What a sampled or mixed supernet computes, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from search.binary import SignActivation
from search.genotype import EDGES, OPERATIONS
from search.network import NetworkConfig
from search.space import PAPER, SMALL
from search.style import OperationStyle
from search.supernet import Architecture, Mixture, Supernet

SEPARABLE, POOL, SKIP = (OPERATIONS.index(name) for name in ("sep_conv_3x3", "max_pool_3x3", "skip_connect"))


def supernet(binary: bool = True, partial: int = 1) -> Supernet:
    torch.manual_seed(0)
    config = NetworkConfig(4, 3, 5, "cifar", OperationStyle("paper", binary=binary))
    return Supernet(config, partial=partial)


def signs(network: Supernet, choice: Architecture | Mixture) -> list[str]:
    """Names of the activations that ran in one forward pass."""
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *call, name=name: ran.append(name))
        for name, module in network.named_modules()
        if isinstance(module, SignActivation)
    ]
    network(torch.randn(2, 3, 8, 8), choice)
    for handle in handles:
        handle.remove()
    return ran


@pytest.mark.usefixtures("plain_layers")
def test_every_map_is_binarised_once() -> None:
    """Separable convolutions on all edges: each state's sign serves all its edges, each cell's output two cells."""
    drawn = Architecture((SEPARABLE,) * len(EDGES), (SEPARABLE,) * len(EDGES))
    ran = signs(supernet(), drawn)
    # A cell has 14 edges with four signs each; the first reads one of five states.
    inside = 3 * (5 + 3 * len(EDGES))
    # The stem's map, which three preprocessing convolutions read, and the outputs of the first two cells; the
    # first of these is read by a convolution and by both halves of a factorised reduction.
    between = 1 + 2
    assert len(ran) == inside + between
    assert len(set(ran)) == len(ran)


@pytest.mark.usefixtures("plain_layers")
def test_a_mixture_binarises_each_state_once_for_all_operations() -> None:
    weights = torch.full((len(EDGES), len(OPERATIONS)), 1 / len(OPERATIONS))
    ran = signs(supernet(), Mixture(weights, weights))
    # Two separable operations with three more signs each, two dilated ones with one more each.
    normal = 5 + 14 * (3 + 3 + 1 + 1)
    assert len(ran) == 3 * normal + 3


def test_operations_without_weights_binarise_nothing_inside_a_normal_cell() -> None:
    ran = signs(supernet(), Architecture((POOL,) * len(EDGES), (SEPARABLE,) * len(EDGES)))
    assert not any(name.startswith("cells.0.edges") for name in ran)


def test_only_the_drawn_operations_get_gradients() -> None:
    network = supernet()
    drawn = Architecture((SEPARABLE,) * len(EDGES), (POOL,) * len(EDGES))
    network(torch.randn(2, 3, 8, 8), drawn).sum().backward()
    used = {id(parameter) for parameter in network.active_parameters(drawn)}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in used), name


def test_a_mixture_of_one_operation_is_that_operation() -> None:
    for partial in (1, 2):
        network = supernet(binary=False, partial=partial)
        index = SKIP
        weights = torch.nn.functional.one_hot(torch.full((len(EDGES),), index), len(OPERATIONS)).to(
            torch.float32
        )
        x = torch.randn(2, 3, 8, 8)
        mixed = network(x, Mixture(weights, weights))
        drawn = network(x, Architecture((index,) * len(EDGES), (index,) * len(EDGES)))
        torch.testing.assert_close(mixed, drawn)


def test_a_supernet_of_another_space_has_its_nodes_and_operations() -> None:
    """Two nodes, four operations, one architecture for both kinds of cell: as many paths as choices."""
    net = Supernet(NetworkConfig(4, 3, 10), space=SMALL)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, last = (Architecture.of(choices, SMALL) for choices in ([0] * 5, [3] * 5))
    assert net(x, first).shape == (2, 10)
    assert first.normal == first.reduce == first.rows
    assert net.num_features == 2 * 4 * 4
    used = {id(parameter) for parameter in net.active_parameters(last)}
    edge = net.cells[0].edges[0]
    assert all(id(parameter) in used for parameter in edge.operations[3].parameters())
    assert not any(id(parameter) in used for parameter in edge.operations[2].parameters())


def test_an_architecture_knows_its_space() -> None:
    with pytest.raises(ValueError, match="5 indices below 4"):
        Architecture.of([0, 1, 2, 3, 4], SMALL)
    paper = Architecture.of([1] * 28, PAPER)
    assert paper.encode() == ("1" * 14, "1" * 14)
