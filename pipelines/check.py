"""Stage ``check``: before anything else of the graph runs, params.yaml is known to hold names and numbers.

dvc.yaml makes paths of names in params.yaml, and DVC deletes a stage's outputs before it runs the stage. All stages
are built on this one, so that a name such as ``../data`` ends here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import code, params, stage
from search.errors import InputError
from search.files import write_text

CHECKED = Path("data/checked")
PROGRAMS = {"detection": "pipelines.detect", "reid": "pipelines.reid"}


def main() -> None:
    """Check params.yaml and write ``data/checked``, always the same, so that nothing is built anew."""
    argparse.ArgumentParser(prog="python -m pipelines.check", description=__doc__).parse_args()
    check_graph(params.load())
    code.check("check")
    write_text(CHECKED, "params.yaml was checked\n")


def check_graph(settings: params.Params) -> None:
    """Refuse what is sound for single programs but not for the graph, whose stages always have the same inputs."""
    for task in params.TRANSFER:
        if missing := settings.untrained(task):
            raise InputError(
                f"runs.{task} has {missing[0]}, which runs.imagenet does not train: in the graph the stage is built on "
                "these weights, used or not",
                where=params.PARAMS,
                mend=f"add it to runs.imagenet, or run this one by itself: python -m {PROGRAMS[task]} --help",
            )


if __name__ == "__main__":
    stage.run(main)
