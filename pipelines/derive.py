"""Stages ``derive`` and ``adopt``: make a search's genotype, or a published or hand-made network, one of the chain."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from pipelines import code, stage
from pipelines.networks import FOLDER, Entry, save_entry
from search.drawing import to_dot, to_svg, to_text
from search.files import read_json, write_json, write_text
from search.genotype import Genotype, collapse, published


def main() -> None:
    """Write ``runs/networks/<name>/``, from ``runs/search/<method>-s<seed>/`` or by a known name."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.derive", description=__doc__)
    parser.add_argument("--method", help="the method or variant that was searched, with --seed")
    parser.add_argument("--seed", type=int, help="the search's seed")
    parser.add_argument("--name", "--network", help="a published genotype or a hand-made network instead")
    arguments = parser.parse_args()
    if arguments.name is not None:
        entry = adopted(arguments.name)
    elif arguments.method is not None and arguments.seed is not None:
        entry = found(arguments.method, arguments.seed)
    else:
        parser.error("give --method and --seed, or --name")
    code.check("derive" if arguments.name is None else "adopt")
    with stage.output_folder(FOLDER / entry.name) as folder:
        save_entry(folder, entry)
        if entry.genotype is not None:
            describe(entry.genotype, folder)


def found(variant: str, seed: int) -> Entry:
    """The network that a search of this chain found, under its variant's name."""
    name = f"{variant}-s{seed}"
    source = Path("runs/search") / name
    method = read_json(source / "run.json")["method"]
    genotype = Genotype.load(source / "genotype.json")
    return Entry(name, method, seed, "genotype", genotype, genotype.hash)


def adopted(name: str) -> Entry:
    """A published or hand-made network under its own name, with that of a variant behind it, if any."""
    from downstream import handmade
    from downstream.classification.settings import VARIANT

    known = name.partition(VARIANT)[0]
    if known in handmade.NAMES:
        return Entry(name, None, None, "handmade", known, None)
    genotype = published(known)
    return Entry(name, None, None, "published", genotype, genotype.hash)


def describe(genotype: Genotype, folder: Path) -> None:
    """Write the collapse diagnosis and the drawings, and print the cells."""
    write_json(folder / "collapse.json", asdict(collapse(genotype)))
    write_text(folder / "cells.svg", to_svg(genotype))
    write_text(folder / "cells.dot", to_dot(genotype))
    print(to_text(genotype))


if __name__ == "__main__":
    stage.run(main)
