"""Backbones for re-identification: ours by genotype or name, retrained or not, and OSNets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from downstream import models
from downstream.reid.compat import quiet, torchreid
from search.backbone import BackboneModule
from search.errors import InputError
from search.genotype import Genotype
from search.style import Form, OperationStyle
from search.weights import HEAD_SETTINGS, LoadReport, load_backbone, require_architecture

ZOO_PREFIX = "osnet_"


class ZooBackbone(nn.Module):
    """An OSNet of Torchreid's zoo, untrained, as a backbone beside ours. It ends at stride 16 by design."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            with quiet():
                self.body = torchreid().models.build_model(
                    name, 1, loss="triplet", pretrained=False, use_gpu=False
                )
        except KeyError:
            raise InputError(f"Torchreid has no model {name!r}") from None
        self.body.classifier = nn.Identity()
        self.classifier: nn.Module = nn.Identity()
        self.num_features = int(self.body.feature_dim)
        self.architecture = {"kind": "torchreid", "name": name}

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, num_features)."""
        out = self.body(x)
        return out[1] if isinstance(out, tuple) else out


ReidBackbone = BackboneModule | ZooBackbone
"""What re-identification stands on; all of it is a :class:`search.backbone.Embedding`."""


@dataclass(frozen=True)
class BackboneSpec:
    """Which backbone, how large.

    Attributes:
        network: A genotype, the name of a published or hand-made network, or an OSNet of Torchreid's zoo.
        precision: ``1bit`` or ``real``.
        form, channels, cells, last_stride, style: As in :func:`downstream.models.build`.
    """

    network: str | Genotype
    precision: models.Precision = "1bit"
    form: Form = "paper"
    channels: int = 36
    cells: int = 10
    last_stride: int = 2
    style: OperationStyle | None = None

    @property
    def zoo(self) -> bool:
        """Whether it is Torchreid's own."""
        return is_zoo(self.network)


def is_zoo(network: str | Genotype) -> bool:
    """Whether this names a network of Torchreid's zoo that can be trained beside ours."""
    return isinstance(network, str) and network.startswith(ZOO_PREFIX)


def build_backbone(spec: BackboneSpec) -> ReidBackbone:
    """An untrained backbone with the ImageNet stem.

    Raises:
        InputError: Unknown network; ``last_stride: 1`` where the last stride is fixed; a 1-bit zoo network.
    """
    if spec.zoo:
        if spec.precision != "real":
            raise InputError(f"{spec.network} is real-valued", allowed="--precision real")
        return ZooBackbone(str(spec.network))
    backbone = models.build(
        spec.network,
        precision=spec.precision,
        form=spec.form,
        channels=spec.channels,
        cells=spec.cells,
        classes=1,
        stem="imagenet",
        last_stride=spec.last_stride,
        style=spec.style,
    )
    return _check_stride(backbone, spec)


def _check_stride(backbone: BackboneModule, spec: BackboneSpec) -> BackboneModule:
    """Refuse a network that was asked to end at stride 16 and ends elsewhere."""
    if spec.last_stride == 1 and max(backbone.feature_channels) != 16:
        raise InputError("this network's last stride is fixed", where="reid.last_stride", allowed="2")
    return backbone


def pretrained_backbone(spec: BackboneSpec, weights: str | Path) -> tuple[BackboneModule, LoadReport]:
    """The backbone of a weight file, with its weights.

    The network is built from the file's own header, so that every detail of how it was trained holds; what
    ``spec`` says must agree. Only ``last_stride`` is free: it changes no weight.

    Raises:
        InputError: The file is of another network, precision or size.
    """
    if spec.zoo:
        raise InputError(f"{spec.network} has no weights of ours", allowed="reid.pretrained: false")
    wanted: dict[str, Any] = build_backbone(replace(spec, last_stride=2)).architecture
    found = require_architecture(weights, wanted, _free)
    changes = {"classes": 1, "last_stride": spec.last_stride}
    if found["kind"] == "genotype":
        found = {**found, "config": {**found["config"], **changes, "auxiliary": False}}
    else:
        found = {**found, **changes}
    backbone = _check_stride(models.rebuild(found), spec)
    return backbone, load_backbone(weights, backbone)


def _free(key: str) -> bool:
    """What the header decides alone: heads differ from task to task, the style is a matter of the training."""
    *above, last = key.split(".")
    if above[-1:] == ["style"]:
        return last not in ("form", "binary")
    return last in (*HEAD_SETTINGS, "last_stride")
