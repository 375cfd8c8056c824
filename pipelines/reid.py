"""Train a retrained network for person re-identification with Torchreid and evaluate it: CMC and mAP.

As the pipeline's stage, `--network NAME --precision 1bit|real --seed N` reads params.yaml, data/reid,
runs/networks/NAME and, where `reid.pretrained` is on, the weights of the ImageNet-style retraining, and
writes runs/reid/NAME-PRECISION-sN/. NAME may also be an OSNet of Torchreid's zoo (osnet_x1_0, osnet_x0_25,
...), which is trained from scratch. An interrupted training goes on from its last finished epoch when the
same command is given again.

`extract` writes the embeddings of a folder of pictures, for a tracker or a search index; `evaluate` tests
trained weights on another data set; `script` runs one of Torchreid's own scripts with our network registered.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import code
from pipelines.stage import output_folder, run
from search.errors import InputError

if TYPE_CHECKING:
    from downstream.reid.experiment import Outcome
    from downstream.reid.settings import ReidSettings
    from pipelines.networks import Entry

DATA = Path("data/reid")
RUNS = Path("runs/reid")
RETRAINED = Path("runs/retrain/imagenet")
RESUME = Path("runs/.resume/reid")
LAYOUTS = ("folder", "market1501", "cuhk03", "msmt17")
EXTRACT = """\
The output is a numpy .npz file without pickles: features (N, D) float32, one row a picture, not normalised;
paths (N,), relative to --images; metadata, one JSON text. metadata["distance"] names the distance by which
the features are meant to be compared, metadata["distance_definition"] defines it:
  cosine     1 - <a, b> / (|a| |b|), in [0, 2]
  euclidean  |a - b|^2, the squared Euclidean distance
In both, smaller is nearer. Read it with: numpy.load("embeddings.npz")["features"]
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="python -m pipelines.reid", description=__doc__, formatter_class=raw)
    made.add_argument("--network", help="name of a network in runs/networks, or an OSNet of Torchreid's zoo")
    made.add_argument("--precision", choices=("1bit", "real"), help="the 1-bit Child or its real-valued twin")
    made.add_argument(
        "--seed", type=int, default=0, help="seed of weights, batches and augmentation (default 0)"
    )
    commands = made.add_subparsers(dest="command", metavar="extract | evaluate | script")
    extract = commands.add_parser(
        "extract", help="write embeddings of pictures", description=EXTRACT, formatter_class=raw
    )
    extract.add_argument(
        "--weights", type=Path, required=True, help="model.safetensors of a run of this stage"
    )
    extract.add_argument("--images", type=Path, required=True, help="folder of pictures, searched below too")
    extract.add_argument("--output", type=Path, required=True, help="the .npz file to write")
    extract.add_argument("--batch", type=int, default=64, help="pictures at a time (default 64)")
    test = commands.add_parser(
        "evaluate", help="test trained weights on a data set (cross-dataset evaluation)"
    )
    test.add_argument("--weights", type=Path, required=True, help="model.safetensors of a run of this stage")
    test.add_argument("--data", type=Path, required=True, help="the data set's folder")
    test.add_argument(
        "--layout", choices=LAYOUTS, help="its layout (default: found by what lies in the folder)"
    )
    test.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking")
    test.add_argument("--batch", type=int, default=64, help="pictures at a time (default 64)")
    script = commands.add_parser(
        "script", help="run a Torchreid script with our network as genotype_NAME_PRECISION"
    )
    script.add_argument("--model", required=True, help="genotype file, published or hand-made network's name")
    script.add_argument("--model-precision", choices=("1bit", "real"), default="1bit", help="default 1bit")
    script.add_argument(
        "--form", choices=("paper", "released", "darts"), default="paper", help="default paper"
    )
    script.add_argument("--channels", type=int, default=48, help="C (default 48); stem width if hand-made")
    script.add_argument("--cells", type=int, default=14, help="cells (default 14)")
    script.add_argument("--weights", type=Path, help="what pretrained=True loads")
    script.add_argument(
        "--folder", action="append", default=[], metavar="NAME=PATH", help="register a data set"
    )
    script.add_argument("script", type=Path, help="the script, such as Torchreid's scripts/main.py")
    script.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own arguments")
    return made


def main() -> None:
    """Read the command line and run the stage or a command."""
    options = parser().parse_args()
    commands: dict[str | None, Callable[[argparse.Namespace], None]] = {
        None: _stage,
        "extract": _extract,
        "evaluate": _evaluate,
        "script": _script,
    }
    commands[options.command](options)


def _stage(options: argparse.Namespace) -> None:
    if options.network is None or options.precision is None:
        raise InputError("nothing to do", mend="give --network and --precision, or a command; see --help")
    print(run_stage(options.network, options.precision, options.seed))


def run_stage(network: str, precision: str, seed: int) -> Path:
    """One run of the stage; returns its folder."""
    import torch

    from downstream.reid import experiment, pictures
    from downstream.reid.loaders import Source
    from pipelines.params import load
    from pipelines.pretrained import describe
    from search.files import sha256_file
    from search.gradients import require_right_gradients
    from search.manifest import read_manifest
    from search.training import Progress
    from search.weights import save_weights

    code.check("reid")
    started = time.time()
    params = load()
    settings, entry, manifest = params.reid, network_entry(network), read_manifest(DATA)
    key = f"{network}-{precision}-s{seed}"
    weights = RETRAINED / key / "model.safetensors" if settings.pretrained and not is_zoo(entry) else None
    source = Source(manifest["name"], manifest["root"], manifest["layout"])
    other = settings.target
    target = Source(other.name, other.root, other.layout) if other is not None else None
    torch.set_num_threads(params.compute.threads)
    require_right_gradients(device(params.compute.device))
    progress = Progress(f"reid {key}", settings.epochs)
    outcome = experiment.run(
        experiment.spec_of(entry.network, precision, settings),  # type: ignore[arg-type]
        source,
        target,
        settings,
        seed=seed,
        weights=weights,
        device=device(params.compute.device),
        resume_root=RESUME,
        report=lambda row: progress.update(int(row["epoch"]), f"loss {row['loss']:.4f}"),
    )
    progress.close()
    with output_folder(RUNS / key) as folder:
        if settings.pictures:
            pictures.write(folder / "pictures", outcome.evaluation, settings.pictures)
        header = {
            "key": key,
            "dataset": manifest["name"],
            "height": str(settings.height),
            "width": str(settings.width),
            "distance": settings.distance,
            "pretrained": sha256_file(weights) if weights else "",
        }
        save_weights(folder / "model.safetensors", outcome.model, header)
        loaded = describe(weights, outcome.loaded)
        _write_record(folder, key, precision, seed, params, entry, manifest, outcome, started, loaded)
    return RUNS / key


def _write_record(
    folder: Path,
    key: str,
    precision: str,
    seed: int,
    params: Any,
    entry: Entry,
    manifest: dict[str, Any],
    outcome: Outcome,
    started: float,
    loaded: dict[str, Any] | None,
) -> None:
    from pipelines.record import write_record

    settings: ReidSettings = params.reid
    dataset = describe_data(manifest, settings, outcome)
    write_record(
        folder,
        run={
            "stage": "reid",
            "key": key,
            "network": entry.name,
            "method": entry.method,
            "precision": precision,
            "form": settings.form if entry.genotype_hash else None,
            "seed": seed,
            "task": "reid",
            "dataset": dataset,
            "paper_scale": params.paper_scale,
            "architecture_hash": outcome.model.architecture_hash,
            "genotype_hash": entry.genotype_hash,
            "weights": loaded,
        },
        metrics=outcome.metrics,
        params={"reid": settings.model_dump(mode="json") | {"pretrained": loaded is not None}},
        started=started,
        seeds=[seed],
        data={manifest["name"]: manifest["sha256"]},
        history=outcome.history,
        cost=reid_cost(outcome, settings),
        genotype=entry.genotype,
    )


def describe_data(manifest: dict[str, Any], settings: ReidSettings, outcome: Outcome) -> dict[str, Any]:
    """The ``dataset`` of run.json: what was trained on, and what was tested on where that is another set."""
    from pipelines.record import dataset_of

    loaders, target = outcome.loaders, settings.target
    counts = {
        "train_images": len(loaders.train.train),
        "train_identities": loaders.identities,
        "test_images": len(loaders.test.query) + len(loaders.test.gallery),
        "query_images": len(loaders.test.query),
        "gallery_images": len(loaders.test.gallery),
    }
    dataset = dataset_of(manifest, **counts)
    if target is None:
        return dataset
    return {
        **dataset,
        "name": f"{manifest['name']} -> {target.name}",
        "stand_in": manifest["stand_in"] or target.stand_in,
        "note": f"trained on {manifest['name']}, tested on {target.name}; {dataset['note']}",
    }


def reid_cost(outcome: Outcome, settings: ReidSettings) -> dict[str, Any]:
    """``cost.json``: of one embedding at the input size; the identity classifier is no part of it."""
    import copy

    from torch import nn

    from downstream.cost import describe
    from search.cost import count

    network = copy.deepcopy(outcome.model)
    network.classifier = nn.Identity()  # type: ignore[assignment]
    size = (settings.height, settings.width)
    backbone: Any = outcome.model.backbone
    if backbone.architecture["kind"] == "torchreid":
        described: dict[str, Any] = {
            "name": backbone.architecture["name"],
            "precision": "real",
            "input": list(size),
        }
    else:
        described = describe(backbone, size)
    return {
        **described,
        "classes": None,
        "architecture_hash": outcome.model.architecture_hash,
        **count(network, (3, *size)).to_dict(),
    }


def network_entry(name: str) -> Entry:
    """A network of runs/networks, or one of Torchreid's zoo.

    Raises:
        InputError: There is no such network.
    """
    from downstream.reid.backbone import is_zoo as named_like_zoo
    from pipelines.networks import Entry, load_entry

    if named_like_zoo(name):
        return Entry(name, None, None, "handmade", name, None)
    return load_entry(name)


def is_zoo(entry: Entry) -> bool:
    """Whether an entry is Torchreid's own network."""
    from downstream.reid.backbone import is_zoo as named_like_zoo

    return named_like_zoo(entry.network)


def device(name: str) -> Any:
    """The device of the section ``compute``: Torchreid's engines know the CPU and the first GPU.

    Raises:
        InputError: A GPU was asked for and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("this machine has no CUDA device", where="compute.device", allowed="auto, cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _extract(options: argparse.Namespace) -> None:
    from downstream.reid import export

    count = export.extract(options.weights, options.images, options.output, batch=options.batch)
    print(f"{options.output}: {count} embeddings")


def _evaluate(options: argparse.Namespace) -> None:
    from downstream.reid import export

    found = export.evaluate(
        options.weights, options.data, options.layout, rerank=options.rerank, batch=options.batch
    )
    print(json.dumps(found, indent=2))


def _script(options: argparse.Namespace) -> None:
    """Register the network and data sets, then run the script as if it had been called alone."""
    import runpy

    from downstream.reid import data, model
    from downstream.reid.backbone import BackboneSpec
    from pipelines.networks import resolve

    if not options.script.is_file():
        raise InputError("no such script", where=options.script)
    network = resolve(options.model)
    name = network if isinstance(network, str) else network.name
    spec = BackboneSpec(network, options.model_precision, options.form, options.channels, options.cells)
    registered = model.register(f"genotype_{name}_{options.model_precision}", spec, weights=options.weights)
    for item in options.folder:
        label, separator, folder = item.partition("=")
        if not separator:
            raise InputError(f"{item!r} is no data set", where="--folder", allowed="NAME=PATH")
        data.register_folder(label, folder)
    print(f"registered {registered}", file=sys.stderr)
    sys.argv = [str(options.script), *options.arguments]
    sys.path.insert(0, str(options.script.parent))
    runpy.run_path(str(options.script), run_name="__main__")


if __name__ == "__main__":
    run(main)
