"""What a network of the suite offers to whatever stands on it: classifiers, detectors, re-identification.

Found and hand-designed networks meet :class:`Backbone`; :class:`BackboneModule` is that and a module, and what
:func:`downstream.models.build` gives.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

Precision = Literal["1bit", "real"]


@runtime_checkable
class Embedding(Protocol):
    """A network whose images become vectors; all that re-identification needs.

    Attributes:
        num_features: Entries of the vector.
        classifier: What follows the vector, of any number of outputs.
    """

    num_features: int
    classifier: nn.Module

    @property
    def architecture(self) -> dict[str, Any]:
        """What must be known to build this network again, as JSON values."""
        ...

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the pooled vector before the classifier, (N, num_features)."""
        ...


@runtime_checkable
class Backbone(Embedding, Protocol):
    """A network with feature maps by stride.

    Attributes:
        strides: Of each cell or stage, in order.
        feature_channels: Channels of the maps of :meth:`forward_features` by stride.
    """

    strides: list[int]
    feature_channels: dict[int, int]

    @property
    def architecture_hash(self) -> str:
        """Hash (sha256, hex) of what makes the network another one; names do not enter."""
        ...

    @property
    def genotype_hash(self) -> str | None:
        """Content hash of the genotype; None for a hand-designed network."""
        ...

    @property
    def precision(self) -> Precision:
        """``1bit`` (the Child) or ``real`` (its full-precision Parent)."""
        ...

    def forward_features(self, x: Tensor) -> dict[int, Tensor]:
        """(N, 3, H, W) to the last map of every stride."""
        ...


class BackboneModule(nn.Module, Backbone):
    """A :class:`Backbone` that is a module."""
