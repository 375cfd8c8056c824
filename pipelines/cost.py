"""``python -m pipelines.cost``: BOPs, W1A32 MACs, FLOPs, OPs, parameters and Mbit of a network.

With a genotype file or a name it prints the cost. ``--stage NETWORK`` is the pipeline's stage: it reads
``params.yaml`` and ``runs/networks/NETWORK`` and writes one record a size and precision below
``runs/cost/NETWORK``: at the sizes of the two retraining tasks and, for published and hand-made networks, at
the size that the literature counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from torch import nn

from downstream import handmade
from downstream.cost import cost_object, describe
from downstream.models import Precision, build
from pipelines import code
from pipelines.stage import output_folder, run
from search.errors import InputError
from search.genotype import Genotype, published, published_names
from search.network import Stem
from search.style import Form

if TYPE_CHECKING:
    from downstream.classification.settings import RetrainSettings
    from pipelines.networks import Entry
    from pipelines.params import Params
    from search.backbone import BackboneModule

MINIMUM_INPUT = 32
RUNS = Path("runs/cost")
CIFAR_SIDE = 32
CIFAR_CLASSES = 10
"""Of CIFAR-10, and of the class folders made from it that stand in for ImageNet."""
SIZE_KEYS = ("form", "stem", "channels", "cells", "classes", "input", "auxiliary")
"""What makes two counts of one network different."""


@dataclass(frozen=True)
class Defaults:
    """What is counted where the command line is silent: the sizes that the literature prints."""

    channels: int
    cells: int
    classes: int
    input: int


SIZES = {"cifar": Defaults(36, 20, 10, 32), "imagenet": Defaults(48, 14, 1000, 224)}
"""DARTS's two evaluation networks, by stem."""
RELEASED = "DDPNAS_MCN_2"
RELEASED_SIZE = Defaults(108, 10, 1000, 224)
"""The authors' released "DCP-NAS-Large": form ``released`` on the ImageNet stem."""

EPILOG = """\
defaults: a genotype is counted in the form 'paper' with the CIFAR stem (C = 36, 20 cells, 10 classes, 32 x
32); --stem imagenet makes that C = 48, 14 cells, 1000 classes, 224 x 224. The released DCP-NAS genotype
(DDPNAS_MCN_2) is counted as released: form 'released', ImageNet stem, C = 108, 10 cells. Hand-made networks
have the ImageNet stem, 1000 classes, 224 x 224, published width. The form 'darts' is always real-valued.
MACs are those of inference on one image: an auxiliary head adds parameters, but does not run.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = argparse.ArgumentParser(
        prog="python -m pipelines.cost",
        description="Count a network: 1-bit, weight-only 1-bit and real multiply-accumulates, OPs, memory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join((*published_names(), *handmade.NAMES))
    add = program.add_argument
    add("network", nargs="?", metavar="GENOTYPE.json|NAME", help=f"a genotype file, or one of: {names}")
    add("--form", choices=get_args(Form), help="form of a genotype's operations")
    add("--stem", choices=get_args(Stem), help="first layers of the network")
    add("--channels", type=int, metavar="C", help="channels of the first cells; stem width if hand-made")
    add("--cells", type=int, metavar="L", help="number of cells of a genotype")
    add("--classes", type=int, metavar="N", help="outputs of the classifier")
    add("--input", type=_size, metavar="S|HxW", help="input size in pixels, such as 224 or 256x128")
    add("--real", action="store_true", help="count the real-valued twin")
    add("--auxiliary", action="store_true", help="include the auxiliary head's parameters")
    add("--per-layer", action="store_true", help="list every convolution and linear layer")
    add("--json", action="store_true", help="print one JSON object")
    add("--stage", "--network", metavar="NETWORK", help="run as pipeline stage for runs/networks/NETWORK")
    return program


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no input size, write 224 or 256x128") from None


def main(arguments: list[str] | None = None) -> None:
    """Print the cost of one network, or run as a stage."""
    program = parser()
    options = program.parse_args(arguments)
    if options.stage is not None:
        print(count_stage(options.stage))
        return
    if options.network is None:
        program.error("name a genotype file or a network, or use --stage")
    model, size = _network(options)
    from search.cost import count

    report = count(model, (3, *size))
    if options.json:
        described: dict[str, Any] = {**describe(model, size), **report.to_dict()}
        print(json.dumps(described | ({"layers": report.rows()} if options.per_layer else {}), indent=2))
        return
    print(_title(describe(model, size)))
    print(report.to_text(per_layer=options.per_layer))


def _network(options: argparse.Namespace) -> tuple[nn.Module, tuple[int, int]]:
    """The network on the meta device, and its input size; wrong options are refused here."""
    network = _resolve(options.network)
    if isinstance(network, str) and network in handmade.NAMES:
        _refuse(options, ("form", "cells", "auxiliary"), f"{network} is hand-made")
    asked = {key: getattr(options, key) for key in ("form", "stem", "channels", "cells", "classes")}
    model, size = sized(network, real=options.real, auxiliary=options.auxiliary, size=options.input, **asked)
    if min(size) < MINIMUM_INPUT:
        raise InputError(f"{size[0]}x{size[1]} pixels", where="--input", allowed=f"{MINIMUM_INPUT} and more")
    return model, size


def sized(
    network: str | Genotype,
    *,
    real: bool = False,
    auxiliary: bool = False,
    form: Form | None = None,
    stem: Stem | None = None,
    channels: int | None = None,
    cells: int | None = None,
    classes: int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[BackboneModule, tuple[int, int]]:
    """A network on the meta device and its input size (height, width): as the literature counts it where not said."""
    import torch

    made = isinstance(network, str)
    released = isinstance(network, Genotype) and network.name.lower() == RELEASED.lower()
    stem = stem or ("imagenet" if made or released else "cifar")
    sizes = RELEASED_SIZE if released and stem == "imagenet" else SIZES[stem]
    form = form or ("released" if released else "paper")
    with torch.device("meta"):
        model = build(
            network,
            precision="real" if real or form == "darts" else "1bit",
            form=form,
            channels=channels if made or channels is not None else sizes.channels,
            cells=cells if cells is not None else sizes.cells,
            classes=classes if classes is not None else sizes.classes,
            stem=stem,
            auxiliary=auxiliary,
        )
    return model, size or (sizes.input, sizes.input)


def _resolve(text: str) -> str | Genotype:
    """A genotype by file or published name; any other text is left for ``build`` to know or to refuse."""
    if text.lower() in handmade.NAMES:
        return text.lower()
    if text.lower() in (name.lower() for name in published_names()):
        return published(text)
    if text.endswith(".json") or Path(text).exists():
        return Genotype.load(text)
    return text


def _refuse(options: argparse.Namespace, keys: tuple[str, ...], why: str) -> None:
    for key in keys:
        if getattr(options, key):
            raise InputError(f"{why} and has no such setting", where=f"--{key}", mend="leave it out")


def count_stage(name: str) -> Path:
    """Count a network of the chain and write its records; returns the folder ``runs/cost/<name>``."""
    from pipelines.networks import load_entry
    from pipelines.params import load
    from pipelines.record import write_record

    code.check("cost")
    started, params, entry = time.time(), load(), load_entry(name)
    with output_folder(RUNS / name) as folder:
        for counted in _counted(entry, params):
            cost = cost_object(counted.model, counted.size)
            key = f"{counted.task}-{cost['precision']}"
            write_record(
                folder / key,
                run={
                    "stage": "cost",
                    "key": f"{name}/{key}",
                    "network": name,
                    "method": entry.method,
                    "precision": cost["precision"],
                    "form": cost["form"],
                    "seed": entry.seed or 0,
                    "task": counted.task,
                    "dataset": None,
                    "paper_scale": params.paper_scale,
                    "architecture_hash": cost["architecture_hash"],
                    "genotype_hash": cost["genotype_hash"],
                },
                metrics={},
                params={"cost": {key: cost[key] for key in SIZE_KEYS}},
                started=started,
                seeds=[],
                data={},
                cost=cost,
                genotype=entry.genotype,
            )
    return RUNS / name


@dataclass(frozen=True)
class _Counted:
    """A network that the stage counts: for which task, and at which input size."""

    task: str
    model: nn.Module
    size: tuple[int, int]


def _counted(entry: Entry, params: Params) -> Iterator[_Counted]:
    import torch

    from downstream.classification.network import build_network

    recipes = params.retrain
    sides = {"cifar10": CIFAR_SIDE, "imagenet": recipes.imagenet.crop.size}
    classes = {"cifar10": CIFAR_CLASSES, "imagenet": params.data.imagenet.classes or CIFAR_CLASSES}
    for precision in get_args(Precision):
        for task, side in sides.items():
            recipe: RetrainSettings = getattr(recipes, task)
            if not recipe.knows(entry.name):
                continue
            with torch.device("meta"):
                model = build_network(entry.network, precision, classes[task], recipe.of(entry.name))
            yield _Counted(f"retrain-{task}", model, (side, side))
        if entry.kind != "genotype":
            model, size = sized(entry.network, real=precision == "real", stem="imagenet")
            yield _Counted("imagenet", model, size)


def _title(described: dict[str, Any]) -> str:
    size = described["input"]
    pixels = f"{size}x{size}" if isinstance(size, int) else "x".join(map(str, size))
    parts = [f"{described['name']}, {described['precision']}"]
    if described["form"] is not None:
        parts.append(f"form {described['form']}, {described['cells']} cells")
    parts.append(f"{described['stem']} stem, C = {described['channels']}")
    parts.append(f"{described['classes']} classes, {pixels}")
    return ", ".join(parts) + "\n"


if __name__ == "__main__":
    run(main)
