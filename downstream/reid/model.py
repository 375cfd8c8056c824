"""Our networks as Torchreid models: backbone -> pooled feature -> BNNeck -> identity classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from downstream import models
from downstream.reid.backbone import (
    BackboneSpec,
    ReidBackbone,
    ZooBackbone,
    build_backbone,
    pretrained_backbone,
)
from downstream.reid.compat import torchreid
from search.errors import InputError
from search.files import sha256_json

Loss = Literal["softmax", "triplet"]
# Initialisation of the classifier behind a BNNeck, as in the strong baseline's code.
CLASSIFIER_STD = 0.001


class BNNeck(nn.BatchNorm1d):
    """Batch norm without shift between feature and classifier (Luo et al. 2019).

    The triplet loss sees the feature before it, softmax and retrieval the feature after it. The shift is
    absent rather than frozen, because Torchreid's engines unfreeze every parameter. (N, D) to (N, D).
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_parameter("bias", None)


class ReidNetwork(nn.Module):
    """A backbone as a Torchreid model.

    Args:
        backbone: Gives ``embed(x)``: (N, 3, H, W) to (N, num_features). Its own classifier is removed.
        identities: Training identities.
        loss: ``softmax``: training returns logits; ``triplet``: (logits, features); evaluation: features.
        bnneck: Whether a :class:`BNNeck` follows the backbone.
    """

    def __init__(
        self, backbone: ReidBackbone, identities: int, *, loss: Loss = "softmax", bnneck: bool = True
    ) -> None:
        super().__init__()
        if loss not in ("softmax", "triplet"):
            raise InputError(f"{loss!r} is no loss of a Torchreid model", allowed="softmax, triplet")
        self.loss = loss
        self.identities = identities
        self.bnneck = bnneck
        self._backbone_architecture: dict[str, Any] = backbone.architecture
        self.feature_dim = backbone.num_features
        backbone.classifier = nn.Identity()
        self.backbone = backbone
        self.neck: nn.Module = BNNeck(self.feature_dim) if bnneck else nn.Identity()
        self.classifier = nn.Linear(self.feature_dim, identities, bias=not bnneck)
        if bnneck:
            nn.init.normal_(self.classifier.weight, std=CLASSIFIER_STD)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, 3, H, W) to logits (N, identities) or (logits, features (N, D)); in evaluation features."""
        features: Tensor = self.backbone.embed(x)
        normed = self.neck(features)
        if not self.training:
            return normed
        logits = self.classifier(normed)
        return (logits, features) if self.loss == "triplet" else logits

    @property
    def architecture(self) -> dict[str, Any]:
        """What :func:`rebuild` needs to build this network again, as JSON values."""
        return {
            "kind": "reid",
            "backbone": self._backbone_architecture,
            "identities": self.identities,
            "loss": self.loss,
            "bnneck": self.bnneck,
        }

    @property
    def architecture_hash(self) -> str:
        """Hash (sha256, hex) of :attr:`architecture`."""
        return sha256_json(self.architecture)


def build(spec: BackboneSpec, identities: int, *, loss: Loss, bnneck: bool) -> ReidNetwork:
    """An untrained Torchreid model of ``spec``."""
    return ReidNetwork(build_backbone(spec), identities, loss=loss, bnneck=bnneck)


def rebuild(architecture: dict[str, Any]) -> ReidNetwork:
    """The network of an ``architecture`` description, from the header of a weight file of this stage.

    Raises:
        InputError: The description is of another task.
    """
    if architecture.get("kind") != "reid":
        raise InputError("these weights are not of a re-identification network")
    description = architecture["backbone"]
    zoo = description.get("kind") == "torchreid"
    backbone = ZooBackbone(description["name"]) if zoo else models.rebuild(description)
    return ReidNetwork(
        backbone, architecture["identities"], loss=architecture["loss"], bnneck=architecture["bnneck"]
    )


def register(name: str, spec: BackboneSpec, *, weights: str | Path | None = None, bnneck: bool = True) -> str:
    """Make ``torchreid.models.build_model(name, num_classes, loss, pretrained)`` give our network.

    Args:
        name: By custom ``genotype_...``; Torchreid's own names are taken.
        spec: What to build.
        weights: What ``pretrained=True`` loads; without it, that is an error (nothing is downloaded).
        bnneck: Whether the model has a BNNeck.

    Returns:
        The name.

    Raises:
        InputError: The name belongs to another model.
    """
    factory: dict[str, Any] = vars(torchreid().models)["__model_factory"]
    if name in factory and not isinstance(factory[name], _Factory):
        raise InputError(f"the model name {name!r} is Torchreid's own", mend="choose another name")
    factory[name] = _Factory(name, spec, weights, bnneck)
    return name


@dataclass(frozen=True)
class _Factory:
    """What Torchreid calls to build a registered model."""

    name: str
    spec: BackboneSpec
    weights: str | Path | None
    bnneck: bool

    def __call__(self, num_classes: int, loss: Loss, pretrained: bool, use_gpu: bool = False) -> ReidNetwork:
        """Torchreid's signature; the engine moves the model to its device, so ``use_gpu`` decides nothing."""
        if not pretrained:
            return build(self.spec, num_classes, loss=loss, bnneck=self.bnneck)
        if self.weights is None:
            raise InputError(
                f"{self.name} was registered without weights",
                mend="pass pretrained=False, or register(weights=...)",
            )
        backbone, _ = pretrained_backbone(self.spec, self.weights)
        return ReidNetwork(backbone, num_classes, loss=loss, bnneck=self.bnneck)
