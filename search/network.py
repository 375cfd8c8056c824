"""Networks of a genotype: CIFAR and ImageNet stems, stacked cells, feature maps by stride (method.md, 2 and 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from search import exact
from search.backbone import BackboneModule, Precision
from search.binary import Shared, value_of
from search.convolution import Conv2d
from search.errors import InputError
from search.files import sha256_json
from search.genotype import Cell, Genotype
from search.kernels import modules
from search.operations import FactorisedReduce, Map, Project, build_operation
from search.processes import uniform_slice
from search.space import INPUTS, PAPER
from search.style import OperationStyle

Stem = Literal["cifar", "imagenet"]
STEM_MULTIPLIER = 3
"""The CIFAR stem has 3 C channels (DARTS)."""
MINIMUM_CELLS = 3


class ImageNetStem(nn.Module):
    """Three real 3x3 stride-2 convolutions, 3 -> C/2 -> C -> C; gives the maps at strides 4 and 8."""

    strides = (4, 8)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem0 = nn.Sequential(
            Conv2d(3, channels // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(inplace=True),
            Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.stem1 = nn.Sequential(
            nn.ReLU(),
            Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) to the maps (N, C, H/4, W/4) and (N, C, H/8, W/8), sizes rounded up."""
        first = modules.sequence(x, self.stem0)
        return first, modules.sequence(first, self.stem1)


class CifarStem(nn.Module):
    """One real 3x3 convolution, 3 -> 3 C, at full resolution; both cell inputs are its output."""

    strides = (1, 1)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv2d(3, STEM_MULTIPLIER * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(STEM_MULTIPLIER * channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) to (N, 3 C, H, W), twice."""
        y = modules.sequence(x, self.stem)
        return y, y


def shared_pair(s0: Tensor, s1: Tensor) -> tuple[Shared, Shared]:
    """A stem's two maps for all cells that read them; one map where both are the same."""
    first = Shared(s0)
    return first, first if s1 is s0 else Shared(s1)


@dataclass(frozen=True)
class CellPlan:
    """Where a cell stands.

    Attributes:
        inputs: Channels of the outputs of the two cells before.
        channels: C of this cell.
        reduction: Whether it is a reduction cell.
        stride: Of the edges from its inputs.
        stride_before: Stride of the reduction cell (or stem) just before; None after a normal cell. Its first
            input, which is one cell older, is reduced by it.
        nodes: Nodes of the cell.
    """

    inputs: tuple[int, int]
    channels: int
    reduction: bool
    stride: int
    stride_before: int | None
    nodes: int

    @property
    def outputs(self) -> int:
        """Channels of the concatenation of the nodes."""
        return self.nodes * self.channels


def plan_cells(
    channels: int, cells: int, stem: Stem, last_stride: int = 2, nodes: int = PAPER.nodes
) -> list[CellPlan]:
    """The stack of cells: reductions at 1/3 and 2/3 of the depth double the channels and halve the resolution.

    With the ImageNet stem the first cell's inputs are the maps at strides 4 and 8, so it starts with a
    factorised reduction. ``last_stride=1`` keeps the resolution in the second reduction cell (re-ID practice).
    """
    if cells < MINIMUM_CELLS:
        raise InputError(f"{cells} cells", allowed=f"{MINIMUM_CELLS} or more")
    imagenet = stem == "imagenet"
    width = channels if imagenet else STEM_MULTIPLIER * channels
    before = 2 if imagenet else None
    inputs, current, plans = (width, width), channels, []
    for index in range(cells):
        reduction = index in (cells // 3, 2 * cells // 3)
        current = 2 * current if reduction else current
        stride = (last_stride if index == 2 * cells // 3 else 2) if reduction else 1
        plans.append(CellPlan(inputs, current, reduction, stride, before, nodes))
        inputs, before = (inputs[1], plans[-1].outputs), stride if reduction else None
    return plans


def build_preprocessing(plan: CellPlan, style: OperationStyle) -> tuple[nn.Module, nn.Module]:
    """The 1x1 convolutions that bring a cell's two inputs to its channels and size."""
    second = Project(plan.inputs[1], plan.channels, style)
    if plan.stride_before is None:
        return Project(plan.inputs[0], plan.channels, style), second
    return FactorisedReduce(plan.inputs[0], plan.channels, style, plan.stride_before), second


class GenotypeCell(nn.Module):
    """A cell of a found architecture: its nodes, each the sum of its edges, concatenated."""

    def __init__(self, cell: Cell, plan: CellPlan, style: OperationStyle) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = build_preprocessing(plan, style)
        self.sources = [[edge.source for edge in node] for node in cell]
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                build_operation(
                    edge.operation,
                    plan.channels,
                    plan.stride if edge.source < INPUTS else 1,
                    style,
                    reduction=plan.reduction and edge.source < INPUTS,
                )
                for edge in node
            )
            for node in cell
        )
        self.node_norms = nn.ModuleList(style.node(plan.channels) for _ in cell)

    def quantise(self, s0: Shared, s1: Shared) -> None:
        """Quantise both inputs now, the way :meth:`forward` will read them."""
        for preprocess, state in ((self.preprocess0, s0), (self.preprocess1, s1)):
            preprocess.quantise(state)  # type: ignore[operator]

    def forward(self, s0: Map, s1: Map, drop_path: float = 0.0) -> Tensor:
        """Two cell inputs to (N, nodes C, H / stride, W / stride); ``drop_path`` is the probability in training."""
        states = [Shared(self.preprocess0(s0)), Shared(self.preprocess1(s1))]
        for operations, sources, norm in zip(self.nodes, self.sources, self.node_norms, strict=True):
            terms = []
            for operation, source in zip(operations, sources, strict=True):  # type: ignore[call-overload]
                term = value_of(operation(states[source]))
                if drop_path > 0 and self.training and not isinstance(operation, nn.Identity):
                    term = drop(term, drop_path)
                terms.append(term)
            states.append(Shared(norm(sum(terms[1:], start=terms[0]))))
        return torch.cat([state.value for state in states[INPUTS:]], dim=1)


def drop(x: Tensor, probability: float) -> Tensor:
    """Drop path: zero a sample's whole map with ``probability``, scale the others by 1 / (1 - probability)."""
    keep = uniform_slice(x.shape[0], x).view(-1, 1, 1, 1) >= probability
    return x * (keep.to(x.dtype) / (1 - probability))


class AuxiliaryHead(nn.Module):
    """DARTS's auxiliary classifier on the map after 2/3 of the depth; used in training only.

    Its pool gives 2x2 positions: as in DARTS (window 5, stride 3 on 8x8, stride 2 on 7x7) where the map has that
    size, adaptive otherwise. DARTS's ImageNet head has no second batch norm, its CIFAR head does.
    """

    def __init__(self, channels: int, classes: int, stem: Stem) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(inplace=True)
        )
        second_norm = [nn.BatchNorm2d(768)] if stem == "cifar" else []
        self.combine = nn.Sequential(Conv2d(128, 768, 2, bias=False), *second_norm, nn.ReLU(inplace=True))
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, classes)."""
        x = _pool_to_2x2(F.relu(x))
        return self.classifier(self.combine(self.reduce(x)).flatten(1))


def _pool_to_2x2(x: Tensor) -> Tensor:
    """DARTS's windows where the map has its sizes, else those of ``adaptive_avg_pool2d``, whose gradient on a GPU
    has no deterministic form."""
    sizes = tuple(x.shape[2:])
    if sizes in ((8, 8), (7, 7)):
        return F.avg_pool2d(x, 5, stride=sizes[0] - 5, count_include_pad=False)
    height, width = (max(size, 2) for size in sizes)
    x = x.expand(-1, -1, height if sizes[0] == 1 else -1, width if sizes[1] == 1 else -1)
    return F.avg_pool2d(x, ((height + 1) // 2, (width + 1) // 2), stride=(height // 2, width // 2))


@dataclass(frozen=True)
class NetworkConfig:
    """Everything but the genotype that decides a network.

    Attributes:
        channels: C, the channels of a node in the first cells; even.
        cells: Number of cells L; reductions at L // 3 and 2 L // 3.
        classes: Outputs of the classifier.
        stem: ``cifar`` (stride 1) or ``imagenet`` (stride 8).
        style: Form and precision of the operations.
        auxiliary: Whether the auxiliary head exists (it never runs in evaluation).
        last_stride: Stride of the second reduction cell; 1 keeps the resolution.
    """

    channels: int
    cells: int
    classes: int
    stem: Stem = "cifar"
    style: OperationStyle = field(default_factory=OperationStyle)
    auxiliary: bool = False
    last_stride: int = 2

    def __post_init__(self) -> None:
        if self.stem not in ("cifar", "imagenet"):
            raise InputError(f"{self.stem!r} is no stem", allowed="cifar, imagenet")
        if self.channels < 2 or self.channels % 2:
            raise InputError(f"{self.channels} channels", allowed="an even number from 2 up")
        if self.classes < 1:
            raise InputError(f"{self.classes} classes", allowed="1 or more")
        if self.last_stride not in (1, 2):
            raise InputError(f"last_stride {self.last_stride}", allowed="1, 2")

    def describe(self) -> dict[str, Any]:
        """JSON values for a header; the style as :meth:`search.style.OperationStyle.describe` has it."""
        return asdict(self) | {"style": self.style.describe()}

    @classmethod
    def read(cls, description: Mapping[str, Any]) -> NetworkConfig:
        """The configuration of a description."""
        return cls(**{**description, "style": OperationStyle.read(description["style"])})


class Network(BackboneModule):
    """The network of a genotype.

    Args:
        genotype: The architecture of the cells.
        config: Size, stem, form and precision.
        drop_path: Probability of dropping a path in training; a trainer may change the attribute each epoch.
        checkpointing: Recompute each cell in the backward pass instead of keeping its activations.

    Input (N, 3, H, W) with H, W >= 32, odd sizes too (halves are rounded up).
    """

    @exact.drawn_in_float64
    def __init__(
        self, genotype: Genotype, config: NetworkConfig, drop_path: float = 0.0, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.genotype = genotype
        self.config = config
        self.drop_path = drop_path
        self.checkpointing = checkpointing
        style = config.style.published
        nodes = genotype.space.nodes
        plans = plan_cells(config.channels, config.cells, config.stem, config.last_stride, nodes)
        self.stem = ImageNetStem(config.channels) if config.stem == "imagenet" else CifarStem(config.channels)
        self.cells = nn.ModuleList(
            GenotypeCell(genotype.reduce if plan.reduction else genotype.normal, plan, style)
            for plan in plans
        )
        self.auxiliary_index = 2 * config.cells // 3
        self.auxiliary = (
            AuxiliaryHead(plans[self.auxiliary_index].outputs, config.classes, config.stem)
            if config.auxiliary
            else None
        )
        self.num_features = plans[-1].outputs
        self.classifier = nn.Linear(self.num_features, config.classes)
        stride = self.stem.strides[1]
        self.strides = [stride := stride * plan.stride for plan in plans]
        self.feature_channels = {}
        if config.stem == "imagenet":
            self.feature_channels[self.stem.strides[0]] = config.channels
        for plan, at in zip(plans, self.strides, strict=True):
            self.feature_channels[at] = plan.outputs

    @property
    def architecture(self) -> dict[str, Any]:
        """What must be known to build this network again, as JSON values."""
        return {"kind": "genotype", "genotype": self.genotype.to_dict(), "config": self.config.describe()}

    @property
    def architecture_hash(self) -> str:
        """Hash (sha256, hex) of the genotype's content and the configuration; names do not enter."""
        return sha256_json({"genotype": self.genotype.hash, "config": self.config.describe()})

    @property
    def genotype_hash(self) -> str:
        """Content hash of the genotype."""
        return self.genotype.hash

    @property
    def precision(self) -> Precision:
        """``1bit`` or ``real``."""
        return "1bit" if self.config.style.binary else "real"

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        s0, s1 = shared_pair(*self.stem(x))
        yield s0.value
        for cell in self.cells:
            s0, s1 = s1, Shared(self._run(cell, s0, s1))
            yield s1.value

    def _run(self, cell: nn.Module, s0: Shared, s1: Shared) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return cell(s0, s1, self.drop_path)
        # Outside the part that is recomputed: the next cell reads the same quantised map.
        cell.quantise(s0, s1)  # type: ignore[operator]
        return checkpoint(
            cell,
            s0,
            s1,
            self.drop_path,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _statistics_kept(cell)),
        )

    def forward_features(self, x: Tensor) -> dict[int, Tensor]:
        """The last map of every stride: 4, 8, 16, 32 with the ImageNet stem, 1, 2, 4 with the CIFAR stem."""
        maps = list(self._maps(x))
        features = {self.stem.strides[0]: maps[0]} if self.config.stem == "imagenet" else {}
        features.update(zip(self.strides, maps[1:], strict=True))
        return features

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the pooled vector before the classifier, (N, num_features)."""
        return self._pool(list(self._maps(x))[-1])

    @staticmethod
    def _pool(x: Tensor) -> Tensor:
        return exact.spatial_mean(x)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, classes); in training with an auxiliary head the pair (logits, auxiliary logits)."""
        auxiliary = None
        for index, value in enumerate(self._maps(x), start=-1):
            last = value
            if index == self.auxiliary_index and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(value)
        logits = exact.linear(self._pool(last), self.classifier)
        return logits if auxiliary is None else (logits, auxiliary)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms still normalise by the batch but do not count it again (the recomputation of checkpointing)."""
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d) and child.training]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        )
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
