"""All run records below ``results/records``, named, with the look-ups from one run to those it was built on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.results.checks import read_run
from pipelines.results.run import RUN_FILE, DetectRun, EvaluateRun, ReidRun, RetrainRun, Run, SearchRun
from pipelines.results.variants import METHOD_NAMES, changes
from search.errors import InputError

SAME = ("task", "network", "precision", "seed", "weights_hash")
"""What a retraining and the evaluation of its weights share."""


def read_records(root: str | Path) -> list[Run]:
    """Every record under ``results/records``, checked and named, in a fixed order: campaign, then path.

    Raises:
        InputError: If there is no record at all, or one is not whole.
    """
    top = Path(root)
    runs = [
        read_run(file.parent, campaign=campaign.name)
        for campaign in sorted(path for path in top.glob("*") if path.is_dir())
        for file in sorted(campaign.rglob(RUN_FILE))
    ]
    if not runs:
        raise InputError(
            "no run records here", where=top, mend="run `dvc repro`, or `python -m pipelines.collect`"
        )
    labels = labels_of(runs)
    return [run.model_copy(update={"label": labels[run.campaign, run.family]}) for run in runs]


def labels_of(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """What tables call each campaign's methods, variants and networks, by campaign and :attr:`Run.family`.

    A variant is called by its method and what it changes against the base form in the same campaign, such as
    ``CP-NAS, Child only``; without a base form there, by its own name.
    """
    searches = {(run.campaign, run.family): run for run in runs if run.stage == "search"}
    labels = {}
    for run in runs:
        key = (run.campaign, run.family)
        name = METHOD_NAMES.get(run.method or run.family, run.family)
        if run.method is not None and not run.is_base:
            search, base = searches.get(key), searches.get((run.campaign, run.method))
            words = changes(search.params, base.params) if search and base else ""
            name = f"{name}, {words or run.variant}"
        labels[key] = name
    return labels


@dataclass(frozen=True)
class Library:
    """All runs, in a fixed order."""

    runs: tuple[Run, ...]

    def of(self, stage: str) -> list[Any]:
        """The runs of a stage; each is of the subclass of :class:`Run` for that stage."""
        return [run for run in self.runs if run.stage == stage]

    def distinct(self, stage: str | None = None) -> list[tuple[Any, tuple[str, ...]]]:
        """The runs (of a stage), each once, with the campaigns that hold it, both in their fixed order.

        A campaign that builds on another one's search holds a copy of that record.
        """
        found: dict[str, list[Run]] = {}
        for run in self.runs if stage is None else self.of(stage):
            found.setdefault(run.identity, []).append(run)
        return [(copies[0], tuple(copy.campaign for copy in copies)) for copies in found.values()]

    def search_of(self, run: Run) -> SearchRun | None:
        """The search that found the run's network, in the same campaign and with the same genotype."""
        wanted = (run.campaign, run.found_network, run.genotype_hash)
        return next(
            (s for s in self.of("search") if (s.campaign, s.network, s.genotype_hash) == wanted), None
        )

    def backbone_of(self, run: DetectRun | ReidRun) -> RetrainRun | None:
        """The ImageNet retraining whose weights a detection or re-identification run started from.

        Told by the hash of the weights, in whichever campaign; where an older record has none, by campaign, network,
        precision and seed.
        """
        wanted = run.weights.weights_hash if run.weights else None
        named = ("campaign", "network", "precision", "seed")
        for other in self.of("retrain"):
            same = all(getattr(other, key) == getattr(run, key) for key in named)
            if other.task == "imagenet" and (other.weights_hash == wanted if wanted else same):
                return other
        return None

    def evaluation_of(self, training: RetrainRun) -> EvaluateRun | None:
        """The evaluation of a retraining's own weights; records of older code do not say which weights they are."""
        wanted = [getattr(training, key) for key in SAME]
        if training.weights_hash is None:
            return None
        return next((e for e in self.of("evaluate") if [getattr(e, key) for key in SAME] == wanted), None)
