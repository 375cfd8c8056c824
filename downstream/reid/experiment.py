"""One re-identification run: build, measure the floors, train, evaluate."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from downstream import models
from downstream.handmade import NAMES
from downstream.reid import backbone, loaders, model, train
from downstream.reid.backbone import BackboneSpec
from downstream.reid.evaluate import Evaluation, Pixels, evaluate
from downstream.reid.loaders import Loaders, Source
from downstream.reid.model import ReidNetwork
from downstream.reid.settings import ReidSettings
from search.fingerprint import fingerprint
from search.genotype import Genotype
from search.style import require_block
from search.training import Resume
from search.weights import LoadReport, hash_state

# The "epoch" whose seed draws the initial weights: before all others.
INITIAL = 2**31 - 1
# Settings that do not change the training: an interrupted run may go on with other values.
FREE_SETTINGS = {"workers", "pictures", "test_batch", "distance", "rerank"}


@dataclass(frozen=True)
class Outcome:
    """What a run gives.

    Attributes:
        model: The trained network.
        metrics: Flat numbers for the record; shares in [0, 1].
        history: One row an epoch; with ``evaluate_every``, some have rank-1 and mAP, the last one always.
        evaluation: The final evaluation, for pictures.
        loaded: What of the pretrained weights was used; None without.
        loaders: The data, for counts.
    """

    model: ReidNetwork
    metrics: dict[str, float]
    history: list[train.Row]
    evaluation: Evaluation
    loaded: LoadReport | None
    loaders: Loaders


def spec_of(network: str | Genotype, precision: models.Precision, settings: ReidSettings) -> BackboneSpec:
    """The backbone that ``settings`` ask for.

    Args:
        network: A genotype or a name.
        precision: ``1bit`` or ``real``.
        settings: Form, size and last stride.
    """
    handmade = isinstance(network, str) and network in NAMES
    channels = settings.handmade_channels if handmade else settings.channels
    block = settings.block
    if not handmade:
        require_block(settings.pretrained, block, network if isinstance(network, str) else network.name)
    return BackboneSpec(
        network,
        precision,
        settings.form,
        channels,
        settings.cells,
        settings.last_stride,
        None if block is None else block.untrained(settings.form, precision == "1bit"),
    )


def run(
    spec: BackboneSpec,
    source: Source,
    target: Source | None,
    settings: ReidSettings,
    *,
    seed: int,
    weights: Path | None = None,
    device: torch.device | None = None,
    resume_root: Path | None = None,
    report: Callable[[train.Row], None] = lambda row: None,
) -> Outcome:
    """Train and evaluate one network.

    Args:
        spec: The backbone.
        source: Trained on.
        target: Tested on; None: ``source``.
        settings: The recipe.
        seed: Of initial weights, batches and augmentation.
        weights: Pretrained backbone; None: start from random weights.
        device: CPU or GPU; None: the GPU where there is one. Torchreid's engines compute in float32.
        resume_root: Where the state of an unfinished run is kept; removed on success.
        report: Called with every row of the history.

    Raises:
        InputError: Data, weights or settings are not as they should be; before any training.
    """
    started = time.perf_counter()
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = loaders.build(source, target, settings, use_gpu=device.type == "cuda")
    train.seed_everything(seed, INITIAL)
    network = model.build(spec, data.identities, loss=settings.loss, bnneck=settings.bnneck).to(device)

    def measure(candidate: nn.Module) -> Evaluation:
        test = data.manager.test_loader[data.target]
        return evaluate(candidate, test, device, metric=settings.distance, rerank=settings.rerank)

    pixels, untrained = measure(Pixels()).retrieval, measure(network).retrieval
    loaded = None
    if weights is not None:
        network, loaded = _pretrained(spec, weights, network, seed)
        network.to(device)
    resume = (
        Resume(resume_root, identity(network, data, settings, seed, device), fingerprint(__name__))
        if resume_root is not None
        else None
    )
    prepared = time.perf_counter() - started
    history = train.train(
        network,
        data,
        settings,
        seed=seed,
        device=device,
        resume=resume,
        report=report,
        measure=lambda: _shares(measure(network)),
    )
    trained = time.perf_counter()
    final = measure(network)
    if settings.evaluate_every:
        history[-1].update(_shares(final))
    if resume is not None:
        resume.remove()
    images, seconds = sum(row["images"] for row in history), sum(row["seconds"] for row in history)
    metrics: dict[str, float] = {
        **{f"rank{k}": final.retrieval.rank(k) for k in (1, 5, 10)},
        "map": final.retrieval.map,
        "untrained_rank1": untrained.rank(1),
        "untrained_map": untrained.map,
        "pixels_rank1": pixels.rank(1),
        "pixels_map": pixels.map,
        "queries": final.retrieval.queries,
        "epochs": len(history),
        "images_seen": images,
        "images_per_second": images / seconds,
        "training_seconds": seconds,
        "peak_memory_mib": peak_memory_mib(device),
    }
    metrics["seconds"] = prepared + seconds + time.perf_counter() - trained
    return Outcome(network, metrics, history, final, loaded, data)


def _shares(evaluation: Evaluation) -> dict[str, float]:
    """What a row of the history says of a test."""
    return {"rank1": evaluation.retrieval.rank(1), "map": evaluation.retrieval.map}


def _pretrained(
    spec: BackboneSpec, weights: Path, untrained: ReidNetwork, seed: int
) -> tuple[ReidNetwork, LoadReport]:
    train.seed_everything(seed, INITIAL)
    body, loaded = backbone.pretrained_backbone(spec, weights)
    network = ReidNetwork(body, untrained.identities, loss=untrained.loss, bnneck=untrained.bnneck)
    return network, loaded


def identity(
    network: ReidNetwork, data: Loaders, settings: ReidSettings, seed: int, device: torch.device
) -> dict[str, Any]:
    """What an unfinished run is known by: settings, seed, device, pictures by name, initial weights."""
    splits = (data.train.train, data.test.query, data.test.gallery)
    return {
        "kind": "reid",
        "settings": settings.model_dump(mode="json", exclude=FREE_SETTINGS),
        "seed": seed,
        "device": device.type,
        "data": [[[picture.path.name, picture.pid, picture.camera] for picture in split] for split in splits],
        "weights": hash_state(network),
    }


def peak_memory_mib(device: torch.device) -> float:
    """The most memory held so far, in MiB: allocated on the GPU, or the resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
