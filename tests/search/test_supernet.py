"""What a sampled or mixed supernet computes, and what it leaves alone."""

from __future__ import annotations

import torch

from search.binary import SignActivation
from search.genotype import EDGES, OPERATIONS
from search.network import NetworkConfig
from search.operations import OperationStyle
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
