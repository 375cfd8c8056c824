"""``GenotypeBackbone``: any network of this suite as an MMDetection backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from downstream.models import build
from search.errors import InputError
from search.genotype import Genotype
from search.style import OperationStyle
from search.weights import LoadReport, load_backbone, require_architecture

PROBE_SIZE = 64


@MODELS.register_module(force=True)
class GenotypeBackbone(BaseModule):
    """Feature maps of a found, published or hand-made network.

    Usable from any mmdet config with ``custom_imports=dict(imports=['downstream.detection.modules'])``.

    Args:
        network: Path of a genotype file (``*.json``), a genotype's content as a dict, or the name of a
            published or hand-made network.
        precision: ``1bit`` (the Child) or ``real`` (its full-precision twin).
        form: Form of the operations: ``paper``, ``released`` or ``darts``; hand-made networks have one form.
        channels: Width (hand-made networks: of the stem); None for a hand-made network's own.
        cells: Number of cells; ignored by hand-made networks.
        style: Further settings of a genotype's operations, as a weight file's header describes them
            (``search.style.OperationStyle.read``).
        stem: ``imagenet``: strides 4 to 32.
        out_strides: Which feature maps are returned, in this order.
        weights: safetensors of the retraining stage, loaded by name in ``init_weights``; the classifier is
            left out, anything else that does not match stops with the list.
        frozen_stages: The first so many of ``out_strides`` are not trained: every parameter that their maps
            depend on is frozen and its batch norms use running statistics. 0 trains all.
        norm_eval: All batch norms use running statistics in training too (small batches).
        init_cfg: As in every mmengine module.

    Attributes:
        out_channels: Channels of each returned map.
        load_report: What of ``weights`` was matched; None before ``init_weights`` or without weights.
    """

    def __init__(
        self,
        network: str | Mapping[str, Any],
        *,
        precision: str = "1bit",
        form: str = "paper",
        channels: int | None = None,
        cells: int | None = 14,
        style: Mapping[str, Any] | None = None,
        stem: str = "imagenet",
        out_strides: Sequence[int] = (4, 8, 16, 32),
        weights: str | None = None,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.network = build(
            _genotype_or_name(network),
            precision=precision,  # type: ignore[arg-type]
            form=form,  # type: ignore[arg-type]
            channels=channels,
            cells=cells,
            classes=1,
            stem=stem,  # type: ignore[arg-type]
            style=OperationStyle.read(style) if style else None,
        )
        # A detector has no use for the classifier: it would get no gradient and be saved for nothing.
        self.network.classifier = nn.Identity()
        known = dict(self.network.feature_channels)
        if unknown := [stride for stride in out_strides if stride not in known]:
            raise InputError(f"out_strides {unknown}", where="GenotypeBackbone", allowed=sorted(known))
        if not 0 <= frozen_stages <= len(out_strides):
            raise InputError(f"frozen_stages={frozen_stages}", allowed=f"0 to {len(out_strides)}")
        self.out_strides = tuple(out_strides)
        self.out_channels = [known[stride] for stride in self.out_strides]
        self.weights = weights
        self.norm_eval = norm_eval
        self.load_report: LoadReport | None = None
        self._frozen_norms: list[nn.Module] = []
        if frozen_stages:
            self._freeze(self.out_strides[:frozen_stages])
        self.train()

    def init_weights(self) -> None:
        """Load ``weights`` if given; otherwise the network keeps the initialisation of its constructor."""
        super().init_weights()
        if self.weights is None:
            return
        if not Path(self.weights).is_file():
            raise InputError("no such weights file", where=self.weights, mend="run the retrain stage first")
        architecture: dict[str, Any] = self.network.architecture  # type: ignore[assignment]
        require_architecture(self.weights, architecture)
        self.load_report = load_backbone(self.weights, self.network)
        print_log(f"{self.weights}: {len(self.load_report.matched)} tensors loaded", logger="current")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to one map (N, C, H / stride, W / stride) for each of ``out_strides``."""
        maps: dict[int, Tensor] = self.network.forward_features(x)
        return tuple(maps[stride] for stride in self.out_strides)

    def train(self, mode: bool = True) -> GenotypeBackbone:
        """Training mode, with frozen and ``norm_eval`` batch norms kept in evaluation mode."""
        super().train(mode)
        norms: Iterable[nn.Module] = self._frozen_norms
        if self.norm_eval:
            norms = (module for module in self.modules() if isinstance(module, _BatchNorm))
        for norm in norms:
            norm.eval()
        return self

    def _freeze(self, strides: Sequence[int]) -> None:
        """Freeze all that the maps at ``strides`` are computed from.

        Networks name their parts differently, so the graph is asked: a parameter (or a batch norm's output)
        belongs to a map if the map has a gradient in it.
        """
        outputs: dict[nn.Module, Tensor] = {}
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm)]
        handles = [norm.register_forward_hook(_remember(outputs)) for norm in norms]
        self.eval()
        with torch.enable_grad():
            probe = torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE)
            maps = self.network.forward_features(probe)
            target = sum(maps[stride].sum() for stride in strides)
        for handle in handles:
            handle.remove()
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        wanted: list[Tensor] = [*parameters, *outputs.values()]
        reached = torch.autograd.grad(target, wanted, allow_unused=True)  # type: ignore[arg-type]
        for parameter, gradient in zip(parameters, reached, strict=False):
            parameter.requires_grad_(gradient is None)
        norm_gradients = reached[len(parameters) :]
        self._frozen_norms = [norm for norm, g in zip(outputs, norm_gradients, strict=True) if g is not None]


def _remember(outputs: dict[nn.Module, Tensor]) -> Any:
    def hook(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[module] = output

    return hook


def _genotype_or_name(network: str | Mapping[str, Any]) -> str | Genotype:
    if isinstance(network, Mapping):
        return Genotype.from_dict(dict(network))
    return Genotype.load(network) if network.endswith(".json") else network
