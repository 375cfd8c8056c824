"""Stage ``check``: before anything else of the graph runs, params.yaml is known to hold names and numbers.

dvc.yaml makes paths of names in params.yaml, and DVC deletes a stage's outputs before it runs the stage. All stages
are built on this one, so that a name such as ``../data`` ends here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import code, params, stage
from search.files import write_text

CHECKED = Path("data/checked")


def main() -> None:
    """Check params.yaml and write ``data/checked``, always the same, so that nothing is built anew."""
    argparse.ArgumentParser(prog="python -m pipelines.check", description=__doc__).parse_args()
    code.check("check")
    params.load()
    write_text(CHECKED, "params.yaml was checked\n")


if __name__ == "__main__":
    stage.run(main)
