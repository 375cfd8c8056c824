"""The network of a classification run, by the task's recipe."""

from __future__ import annotations

from downstream import handmade
from downstream.classification.settings import RetrainSettings
from downstream.models import build
from search.backbone import BackboneModule
from search.genotype import Genotype


def build_network(
    network: str | Genotype, precision: str, classes: int, settings: RetrainSettings
) -> BackboneModule:
    """The network of a run: a genotype at the task's size, or a hand-made network at its stem width."""
    chosen = settings.network
    is_handmade = isinstance(network, str) and network in handmade.NAMES
    return build(
        network,
        precision=precision,  # type: ignore[arg-type]
        form=chosen.form,
        channels=chosen.handmade_channels if is_handmade else chosen.channels,
        cells=None if is_handmade else chosen.cells,
        classes=classes,
        stem=chosen.stem,
        style=chosen.block.style(chosen.form, chosen.form != "darts", chosen.estimator),
        auxiliary=chosen.auxiliary_weight > 0 and not is_handmade,
        checkpointing=chosen.checkpointing,
    )
