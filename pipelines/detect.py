"""Train a detector on a retrained network and evaluate it: COCO mAP, mAP@0.5 and VOC's 11-point mAP@0.5.

Two ways to use it. As the pipeline's stage, `--network NAME --precision 1bit|real --seed N` reads
params.yaml, data/detection, runs/networks/NAME and, where `detection.pretrained` is on, the weights of the
ImageNet-style retraining, and writes runs/detect/NAME-PRECISION-sN/. Directly, `--config FILE --weights FILE`
trains with any MMDetection config whose backbone is a GenotypeBackbone. An interrupted training goes on from
its last finished epoch when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import code
from pipelines.stage import output_folder, run
from search.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from downstream.detection.compose import BackboneSpec
    from downstream.detection.settings import DetectionSettings
    from pipelines.networks import Entry

DATA = Path("data/detection")
RUNS = Path("runs/detect")
RETRAINED = Path("runs/retrain/imagenet")
RESUME = Path("runs/.resume")
FREE_SETTINGS = {"workers", "pictures", "test_batch_size"}
"""Settings that do not change the training: an interrupted run may go on with other values."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m pipelines.detect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stage = made.add_argument_group("as the pipeline's stage")
    stage.add_argument("--network", help="name of a network in runs/networks")
    stage.add_argument(
        "--precision", choices=("1bit", "real"), help="the 1-bit Child or its real-valued twin"
    )
    stage.add_argument(
        "--seed", type=int, default=0, help="seed of initialisation, order and flips (default 0)"
    )
    direct = made.add_argument_group("directly, with an MMDetection config")
    direct.add_argument(
        "--config", type=Path, help="config file, such as downstream/detection/configs/ssd.py"
    )
    direct.add_argument(
        "--weights",
        type=Path,
        help="of the retrain stage, or (--evaluate) of a whole detector: safetensors or .pth",
    )
    direct.add_argument(
        "--evaluate", action="store_true", help="no training: --weights are a whole detector's"
    )
    direct.add_argument(
        "--output", type=Path, default=Path("runs/detect/direct"), help="folder of the results"
    )
    direct.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the config: train_cfg.max_epochs=1"
    )
    return made


def main() -> None:
    """Read the command line and run the stage or the config."""
    options = parser().parse_args()
    if options.config is not None:
        if options.network is not None:
            raise InputError("--config and --network together", mend="give one of them")
        print(json.dumps(run_config(options), indent=2))
        return
    if options.network is None or options.precision is None:
        raise InputError("nothing to do", mend="give --network and --precision, or --config; see --help")
    print(run_stage(options.network, options.precision, options.seed))


def run_stage(network: str, precision: str, seed: int) -> Path:
    """One run of the stage; returns its folder."""
    import torch

    from downstream.detection import operators
    from downstream.detection.data import read_manifest
    from downstream.detection.pictures import save_pictures
    from downstream.detection.train import CONFIG, DETECTIONS, save_detector, train_and_evaluate
    from pipelines.networks import load_entry
    from pipelines.params import load
    from pipelines.pretrained import describe
    from pipelines.record import write_record
    from search.files import sha256_file, write_text
    from search.gradients import require_right_gradients
    from search.training import Resume

    code.check("detect")
    started = time.time()
    params, entry, data = load(), load_entry(network), read_manifest(DATA)
    settings = params.detection
    key = f"{network}-{precision}-s{seed}"
    spec = backbone_spec(entry, precision, settings, RETRAINED / key / "model.safetensors")
    identity = {
        "stage": "detect",
        "key": key,
        "settings": settings.model_dump(mode="json", exclude=FREE_SETTINGS),
        "compute": params.compute.model_dump(mode="json"),
        "data": data.sha256,
        "genotype": entry.genotype_hash,
        "weights": sha256_file(spec.weights) if spec.weights else None,
    }
    resume = Resume(RESUME, identity, code.of_stage("detect"))
    resume.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(params.compute.threads)
    require_right_gradients(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    outcome = train_and_evaluate(
        settings, spec, data, seed=seed, folder=resume.folder, threads=params.compute.threads
    )
    model: Any = outcome.model
    with output_folder(RUNS / key) as folder:
        save_pictures(folder / "pictures", model, outcome.test_set, settings.pictures)
        save_detector(folder / "model.safetensors", model, {"key": key, "detector": settings.detector})
        outcome.config.dump(folder / CONFIG)
        write_text(folder / DETECTIONS, (resume.folder / DETECTIONS).read_text(encoding="utf-8"))
        write_record(
            folder,
            run={
                "stage": "detect",
                "key": key,
                "network": network,
                "method": entry.method,
                "precision": precision,
                "form": settings.form if entry.kind != "handmade" else None,
                "seed": seed,
                "task": "detection",
                "dataset": {
                    "name": data.name,
                    "stand_in": data.stand_in,
                    "note": data.note,
                    "sha256": data.sha256,
                    **outcome.counts,
                },
                "paper_scale": params.paper_scale,
                "operators": operators.source(),
                "weights": describe(spec.weights, model.backbone.load_report),
                "architecture_hash": model.backbone.network.architecture_hash,
                "genotype_hash": entry.genotype_hash,
            },
            metrics=outcome.metrics,
            params={"detection": settings.model_dump(mode="json")},
            started=started,
            seeds=[seed],
            data={data.name: data.sha256},
            history=outcome.history,
            cost=detection_cost(model, settings),
            genotype=entry.genotype,
        )
    resume.remove()
    return RUNS / key


def backbone_spec(entry: Entry, precision: str, settings: DetectionSettings, weights: Path) -> BackboneSpec:
    """The backbone of a derived network, with the style its weights were trained in.

    Args:
        entry: The network.
        precision: ``1bit`` or ``real``.
        settings: Size, form, and whether ``weights`` are used.
        weights: Where the retrain stage put them.
    """
    from downstream.detection.compose import BackboneSpec
    from search.style import require_block
    from search.weights import read_header

    handmade = entry.kind == "handmade"
    style: Mapping[str, Any] | None = None
    if not handmade:
        require_block(settings.pretrained, settings.block, entry.name)
    if settings.pretrained and not handmade:
        style = read_header(weights)["architecture"]["config"]["style"]
    elif settings.block is not None:
        style = settings.block.untrained(settings.form, precision == "1bit").describe()
    return BackboneSpec(
        network=entry.network if isinstance(entry.network, str) else entry.network.to_dict(),
        precision=precision,
        form=settings.form,
        channels=settings.handmade_channels if handmade else settings.channels,
        cells=None if handmade else settings.cells,
        style=style,
        weights=str(weights) if settings.pretrained else None,
    )


def detection_cost(detector: nn.Module, settings: DetectionSettings) -> dict[str, Any]:
    """``cost.json``: the backbone's cost at the test size, and under ``detector`` that of the whole."""
    from downstream.cost import cost_object
    from downstream.detection.cost import count_detector

    width, height = settings.test_scale
    backbone: Any = detector.backbone
    return {
        **cost_object(backbone.network, (height, width)),
        "detector": count_detector(detector, (height, width)).to_dict(),
    }


def run_config(options: argparse.Namespace) -> dict[str, float]:
    """Train (or only evaluate) with a config file; returns and writes the metrics."""
    if not options.config.is_file():
        raise InputError("no such config file", where=options.config)
    if options.weights is not None and not options.weights.is_file():
        raise InputError("no such weights file", where=options.weights)
    if options.evaluate and options.weights is None:
        raise InputError("--evaluate needs --weights")

    # Not before the checks: MMDetection takes seconds to load and announces its operators.
    from downstream.detection.direct import evaluate_config, train_config

    if options.evaluate:
        return evaluate_config(options.config, options.weights, options.output, options.set)
    return train_config(options.config, options.weights, options.output, options.set, options.seed)


if __name__ == "__main__":
    run(main)
