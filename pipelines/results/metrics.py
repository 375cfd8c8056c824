"""Every metric of a run record, declared once: name, unit, direction and text.

A stage program may write no other; tables, checks, claims and README take what they say of a metric from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    """What a metric is measured in; a share is recorded in [0, 1] and shown in percent."""

    SHARE = "share in [0, 1]"
    EXCESS = "at most 1; 0 and below: nothing but noise"
    COUNT = "count"
    SECONDS = "s"
    RATE = "1/s"
    MEMORY = "MiB"
    NUMBER = "number"


@dataclass(frozen=True)
class Metric:
    """A measured value.

    Attributes:
        key: Its name in metrics.json.
        unit: What it is measured in.
        better: ``up`` or ``down``, where one is better than the other.
        doc: What it is.
        head: Its heading in tables; empty where it is no value of a table.
        paper: The key of its counterpart in literature.yaml, or None.
        floor: The metric of the same network before training that is read beside it, or None.
        noise: The value from which on a run is called noise, in the direction that is worse; None: no such value.
        table: The result table that shows its mean in a column of its own; empty: none.
    """

    key: str
    unit: Unit
    better: str | None
    doc: str
    head: str = ""
    paper: str | None = None
    floor: str | None = None
    noise: float | None = None
    table: str = ""

    def is_noise(self, value: float) -> bool:
        """Whether a value says that the run measured nothing but noise."""
        if self.noise is None:
            return False
        return value >= self.noise if self.better == "down" else value <= self.noise


def _share(key: str, head: str, doc: str, paper: str | None = None, floor: str | None = None) -> Metric:
    return Metric(key, Unit.SHARE, "up", doc, head, paper, floor)


def _diagnosis(
    key: str, unit: Unit, better: str | None, head: str, doc: str, noise: float | None = None
) -> Metric:
    """Whether a search searches at all: a column of the table of that name."""
    return Metric(key, unit, better, doc, head, noise=noise, table="signal")


_UNTRAINED = "of the same detector before its first training step, percent"
_RANDOM = "of the same network with random weights, percent"
# fmt: off
_ALL = (
    _share("val_accuracy", "validation acc. %",
        "validation accuracy at the end of the search, percent; whose says val_accuracy_of"),
    _share("accuracy", "top-1 %", "test accuracy after the last epoch, percent", "accuracy"),
    _share("top5", "top-5 %", "test top-5 accuracy after the last epoch, percent", "top5"),
    _share("accuracy_before_recalibration", "", "accuracy before batch norm was recalibrated, percent"),
    _share("recorded_accuracy", "", "the accuracy that the retraining recorded, percent"),
    _share("voc_map50", "VOC07 11-point mAP@0.5 %",
        "mean average precision at IoU 0.5 by VOC2007's 11-point rule, percent", "map50",
        "untrained_voc_map50"),
    _share("untrained_voc_map50", "untrained VOC07 mAP@0.5 %", f"voc_map50 {_UNTRAINED}"),
    _share("coco_map", "COCO AP %", "COCO average precision (IoU 0.5 to 0.95), percent", "map"),
    _share("coco_map50", "COCO AP50 %", "COCO average precision at IoU 0.5, percent"),
    _share("untrained_coco_map", "", f"coco_map {_UNTRAINED}"),
    _share("untrained_coco_map50", "untrained AP50 %", f"coco_map50 {_UNTRAINED}"),
    _share("map", "mAP %", "mean average precision of the retrieval, percent", "map", "untrained_map"),
    _share("rank1", "rank-1 %", "queries whose first match is right, percent", "rank1"),
    _share("rank5", "rank-5 %", "queries with a right match among the first 5, percent"),
    _share("rank10", "rank-10 %", "queries with a right match among the first 10, percent"),
    _share("untrained_map", "untrained mAP %", f"mAP {_RANDOM}"),
    _share("untrained_rank1", "untrained rank-1 %", f"rank-1 {_RANDOM}"),
    _share("pixels_map", "pixels mAP %", "mAP of the raw pixels, without any network, percent"),
    _share("pixels_rank1", "pixels rank-1 %", "rank-1 of the raw pixels, without any network, percent"),
    Metric("loss", Unit.NUMBER, "down", "mean loss on the test images"),
    Metric("epochs", Unit.COUNT, None, "epochs"),
    Metric("images_seen", Unit.COUNT, "down", "images that were trained on, repetitions counted"),
    Metric("images_evaluated", Unit.COUNT, "down", "images that were evaluated, repetitions counted"),
    Metric("recalibrated_images", Unit.COUNT, None, "training images that batch norm was recalibrated with"),
    Metric("images", Unit.COUNT, None, "images that were evaluated"),
    Metric("queries", Unit.COUNT, None, "queries of the retrieval"),
    Metric("seconds", Unit.SECONDS, "down", "wall time of the run"),
    Metric("train_seconds", Unit.SECONDS, "down", "wall time of the training alone"),
    Metric("training_seconds", Unit.SECONDS, "down", "wall time of the training alone"),
    Metric("evaluation_seconds", Unit.SECONDS, "down", "wall time of the last evaluation"),
    Metric("images_per_second", Unit.RATE, "up", "images trained on in a second"),
    Metric("test_images_per_second", Unit.RATE, "up", "images evaluated in a second"),
    Metric("peak_memory_mib", Unit.MEMORY, "down", "peak memory"),
    _diagnosis("signal_share", Unit.EXCESS, "up", "signal",
        "1 - binomial noise of the validation half / observed variance of the operations' means", 0.0),
    _diagnosis("effect_share", Unit.EXCESS, "up", "effect",
        "1 - variance between draws of one operation / observed variance of the operations' means", 0.0),
    _diagnosis("sign_flip_share", Unit.SHARE, "up", "sign flips",
        "share of the trained 1-bit weights that changed sign in an epoch, mean over the epochs", 1e-4),
    _diagnosis("entropy_drop", Unit.NUMBER, "up", "entropy drop",
        "how far the mean entropy of an edge's mixing weights fell from that of equal weights, nats", 0.01),
    _diagnosis("tie_share", Unit.SHARE, "down", "ties",
        "share of the choices that make the genotype that equal scores left to a seeded draw", 0.05),
    _diagnosis("tangent_share", Unit.NUMBER, "up", "tangent",
        "norm of the tangent term over that of G in alphahat, mean over the Child's steps", 0.01),
    _diagnosis("reconstruction_share", Unit.NUMBER, None, "reconstruction",
        "norm of the reconstruction error's term over that of G in the 1-bit weights, mean over the Child's "
        "steps"),
    _diagnosis("backtrack_share", Unit.NUMBER, None, "backtracking",
        "norm of the backtracking over that of the descent in the alphas, mean over the steps"),
    _diagnosis("selection_change_share", Unit.SHARE, None, "selection changes",
        "share of an epoch's operations whose selection for backtracking differs from the epoch before"),
    _diagnosis("psi_smallest", Unit.NUMBER, None, "psi, smallest",
        "smallest psi of the decoupled optimisation"),
    _diagnosis("psi_largest", Unit.NUMBER, None, "psi, largest", "largest psi of the decoupled optimisation"),
    _diagnosis("curvature_cosine", Unit.NUMBER, "up", "curvature cosine",
        "cosine of the exact and the Gauss-Newton product of G's Hessian on the 1-bit Child, mean over the "
        "rounds"),
)
# fmt: on
METRICS = {metric.key: metric for metric in _ALL}
"""All metrics by name."""
