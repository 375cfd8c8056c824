"""Supernets: all operations of a space on each edge of a cell, sampled or mixed (docs/method.md, 3 to 5).

One class serves all methods. Given an :class:`Architecture` it runs one operation an edge (CP-NAS, BNAS, random
search) and touches no other; given tables of weights, one row an edge, it mixes all (DARTS, PC-DARTS, DCP-NAS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search import exact
from search.binary import Shared, share, value_of
from search.errors import InputError
from search.kernels import modules
from search.network import (
    CellPlan,
    CifarStem,
    ImageNetStem,
    NetworkConfig,
    build_preprocessing,
    plan_cells,
    shared_pair,
)
from search.operations import Map, Zero, build_operation
from search.space import INPUTS, PAPER, Space
from search.style import OperationStyle


@dataclass(frozen=True)
class Architecture:
    """One operation on every edge: indices into the space's operations, one an edge for each kind of cell.

    Attributes:
        normal, reduce: The two cells; equal where the space has one architecture for both.
        space: What the indices mean.
    """

    normal: tuple[int, ...]
    reduce: tuple[int, ...]
    space: Space = PAPER

    def __post_init__(self) -> None:
        edges, operations = len(self.space.edges), len(self.space.operations)
        for choices in (self.normal, self.reduce):
            if len(choices) != edges or not all(0 <= index < operations for index in choices):
                raise ValueError(f"an architecture has {edges} indices below {operations} a cell")

    @classmethod
    def of(cls, choices: Sequence[int], space: Space) -> Architecture:
        """The architecture of one index for each of ``space.rows``."""
        normal, reduce = space.by_kind(tuple(choices))
        return cls(normal, reduce, space)

    @property
    def rows(self) -> tuple[int, ...]:
        """One index for each of ``space.rows``."""
        return self.normal + self.reduce if self.space.reduction else self.normal

    def encode(self) -> tuple[str, str]:
        """Both cells as strings, a digit an edge."""
        return "".join(map(str, self.normal)), "".join(map(str, self.reduce))


@dataclass(frozen=True)
class Mixture:
    """Weights of all operations on every edge.

    Attributes:
        normal, reduce: One row an edge of the space, one column an operation (14 x 8 in the papers).
        normal_edges, reduce_edges: Factors of the edges themselves (PC-DARTS), or None for 1.
    """

    normal: Tensor
    reduce: Tensor
    normal_edges: Tensor | None = None
    reduce_edges: Tensor | None = None


Choice = Architecture | Mixture


class SuperEdge(nn.Module):
    """All operations of one edge, on all channels or, as in PC-DARTS, on one part in ``partial``."""

    def __init__(
        self, channels: int, stride: int, style: OperationStyle, partial: int, operations: Sequence[str]
    ) -> None:
        super().__init__()
        if channels % partial:
            raise InputError(f"{channels} channels", allowed=f"a multiple of {partial} for partial channels")
        self.partial = partial
        self.stride = stride
        self.part = channels // partial
        self.operations = nn.ModuleList(
            build_operation(name, self.part, stride, style) for name in operations
        )

    def forward(self, x: Map, weights: Tensor | int) -> Tensor | None:
        """The drawn operation's output, or the mixture's.

        Args:
            x: (N, C, H, W).
            weights: An operation's index, or a weight for each.

        Returns:
            (N, C, H / stride, W / stride); None stands for zeros.
        """
        if self.partial == 1:
            return self._operate(x, weights)
        active, rest = value_of(x).split([self.part, value_of(x).shape[1] - self.part], dim=1)
        y = self._operate(share(active), weights)
        if self.stride == 2:
            rest = F.max_pool2d(rest, 2, 2, ceil_mode=True)
        if y is None:
            y = rest.new_zeros(rest.shape[0], self.part, *rest.shape[2:])
        return F.channel_shuffle(torch.cat([y, rest], dim=1), self.partial)

    def _operate(self, x: Map, weights: Tensor | int) -> Tensor | None:
        if isinstance(weights, int):
            operation = self.operations[weights]
            return None if isinstance(operation, Zero) else value_of(operation(x))
        total: Tensor | None = None
        for operation, weight in zip(self.operations, weights.unbind(), strict=True):
            if not isinstance(operation, Zero):
                term = modules.scaled(value_of(operation(x)), weight)
                total = term if total is None else total + term
        return total


class SuperCell(nn.Module):
    """Nodes, each the sum of the edges from the two inputs and all earlier nodes."""

    def __init__(self, plan: CellPlan, style: OperationStyle, partial: int, space: Space) -> None:
        super().__init__()
        self.plan = plan
        self.preprocess0, self.preprocess1 = build_preprocessing(plan, style)
        self.edges = nn.ModuleList(
            SuperEdge(plan.channels, plan.stride if source < INPUTS else 1, style, partial, space.operations)
            for source, _ in space.edges
        )
        self.node_norms = nn.ModuleList(style.node(plan.channels) for _ in range(plan.nodes))

    def forward(self, s0: Map, s1: Map, weights: Tensor | tuple[int, ...], factors: Tensor | None) -> Tensor:
        """Two inputs to (N, nodes C, H / stride, W / stride)."""
        states = [Shared(self.preprocess0(s0)), Shared(self.preprocess1(s1))]
        row = 0
        for node in range(INPUTS, INPUTS + self.plan.nodes):
            total: Tensor | None = None
            for source in range(node):
                term = self.edges[row](states[source], weights[row])
                if term is not None:
                    term = term if factors is None else modules.scaled(term, factors[row])
                    total = term if total is None else total + term
                row += 1
            total = total if total is not None else self._zeros(states[0])
            states.append(Shared(self.node_norms[node - INPUTS](total)))
        return torch.cat([state.value for state in states[INPUTS:]], dim=1)

    def _zeros(self, x: Map) -> Tensor:
        return Zero(self.plan.stride)(x)


class Supernet(nn.Module):
    """A weight-sharing network over the whole space.

    Args:
        config: Size, stem, form and precision; its style's ``affine`` and ``running_statistics`` are those of
            derived networks and are replaced by the next two.
        affine: Whether the cells' batch norms have weights (DARTS: no); in a 1-bit supernet they are the learned
            thresholds of the signs behind them.
        running_statistics: Whether they evaluate with running statistics. A sampled supernet's mix all the
            architectures drawn before, so the default [choice] is each batch's own statistics.
        partial: PC-DARTS's K: operations see 1 / K of the channels.
        space: Operations and edges of the cells.
    """

    @exact.drawn_in_float64
    def __init__(
        self,
        config: NetworkConfig,
        affine: bool = False,
        partial: int = 1,
        running_statistics: bool = False,
        space: Space = PAPER,
    ) -> None:
        super().__init__()
        style = replace(config.style, affine=affine, running_statistics=running_statistics)
        plans = plan_cells(config.channels, config.cells, config.stem, config.last_stride, space.nodes)
        self.config = config
        self.space = space
        self.plans = plans
        self.stem = ImageNetStem(config.channels) if config.stem == "imagenet" else CifarStem(config.channels)
        self.cells = nn.ModuleList(SuperCell(plan, style, partial, space) for plan in plans)
        self.num_features = plans[-1].outputs
        self.classifier = nn.Linear(self.num_features, config.classes)

    def features(self, x: Tensor, choice: Choice) -> Tensor:
        """The last cell's map, (N, num_features, H / 4, W / 4) with the CIFAR stem."""
        s0, s1 = shared_pair(*self.stem(x))
        for cell, plan in zip(self.cells, self.plans, strict=True):
            reduction = plan.reduction
            weights = choice.reduce if reduction else choice.normal
            factors = None
            if isinstance(choice, Mixture):
                factors = choice.reduce_edges if reduction else choice.normal_edges
            s0, s1 = s1, Shared(cell(s0, s1, weights, factors))
        return s1.value

    def forward(self, x: Tensor, choice: Choice) -> Tensor:
        """(N, 3, H, W) to logits (N, classes) of the chosen architecture or mixture."""
        return exact.linear(exact.spatial_mean(self.features(x, choice)), self.classifier)

    def active_parameters(self, architecture: Architecture) -> list[nn.Parameter]:
        """The parameters that ``architecture`` uses: stem, preprocessing, classifier and the drawn operations."""
        used: list[nn.Module] = [self.stem, self.classifier]
        for cell in self.cells:
            assert isinstance(cell, SuperCell)
            choices = architecture.reduce if cell.plan.reduction else architecture.normal
            used += [cell.preprocess0, cell.preprocess1]
            used += [
                edge.get_submodule(f"operations.{index}")
                for edge, index in zip(cell.edges, choices, strict=True)
            ]
        return [parameter for module in used for parameter in module.parameters()]
