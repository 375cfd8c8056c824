"""``cpnas COMMAND ...``: every program of the suite under one name, the same as ``python -m pipelines.COMMAND``.

Nothing heavy is imported before the command is known, so that ``cpnas --help`` and the light commands answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "profile": "settings: list profiles, show one, compare two, make one active, check params.yaml",
    "prepare": "fetch or check the data of a task",
    "search": "search an architecture: one method, one seed",
    "derive": "make a found, published or hand-made network one of the chain",
    "cost": "count a network: OPs, BOPs, MACs, memory",
    "retrain": "train a network for classification, 1-bit or real",
    "evaluate": "evaluate a trained network, or any weight file on any folder",
    "detect": "train and evaluate a detector on a network",
    "reid": "train and evaluate a network for person re-identification",
    "reproduce": "run all stages that are out of date, side by side",
    "collect": "collect or add run records",
    "tables": "make tables, figures and the report of results/",
    "benchmark": "the tabular benchmark: train it, ask it",
    "bench": "a table of measured times",
}
"""Commands, each a module of this package with a function ``main``."""
USAGE = "usage: cpnas [--quiet] [--version] COMMAND ..."


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end the process; exit codes are those of :func:`pipelines.stage.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    while words and words[0] in ("-q", "--quiet"):
        os.environ["CP_NAS_LOG"] = "warning"
        words.pop(0)
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        sys.exit(0)
    if words[0] == "--version":
        from search import __version__

        print(f"cpnas {__version__}")
        sys.exit(0)
    run(words[0], words[1:])


def help_text() -> str:
    """The commands with a line each."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return "\n".join(
        [USAGE, "", *lines, "", "cpnas COMMAND --help says more; --quiet leaves progress and notes out"]
    )


def run(command: str, arguments: Sequence[str]) -> NoReturn:
    """Hand the rest of the command line to a command's own program."""
    if command not in COMMANDS:
        from search.errors import nearest

        hint = nearest(command, COMMANDS)
        meant = f", did you mean {hint!r}?" if hint else ""
        print(f"error: no command {command!r}{meant}; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    from pipelines import stage

    sys.argv = [f"cpnas {command}", *arguments]
    stage.run(importlib.import_module(f"pipelines.{command}").main)


if __name__ == "__main__":
    main()
