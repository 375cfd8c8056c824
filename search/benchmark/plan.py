"""Which trainings a benchmark consists of, and the file to which they are appended as they finish."""

from __future__ import annotations

import csv
import io
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from search.benchmark.names import describe, parse
from search.benchmark.recipe import Recipe
from search.benchmark.table import COLUMNS, PRECISIONS, Precision, Run, read_runs
from search.errors import InputError
from search.files import write_csv
from search.space import Space

Done = Mapping[tuple[str, str], list[Run]]


@dataclass(frozen=True)
class Job:
    """A training that is to be done."""

    choices: tuple[int, ...]
    precision: Precision
    seed: int
    every_epoch: bool


def jobs(recipe: Recipe, done: Done, only: list[str] | None = None) -> list[Job]:
    """All trainings of the recipe that are not done.

    First seed 0 of every architecture, or of those in ``only``. They come in an order drawn by ``draw_seed``, so that
    a table that is not complete yet holds a uniform sample. The further seeds follow when seed 0 is complete,
    since the best are named by it: by validation accuracy, so that the test set names nobody.
    """
    space = recipe.searched
    every = [parse(text, space) for text in only] if only is not None else drawn_order(recipe)
    first = [Job(choices, precision, 0, False) for choices in every for precision in PRECISIONS]
    open_jobs = [job for job in first if not _has(done, job, space)]
    if open_jobs:
        return open_jobs
    further = [
        Job(choices, precision, seed, True)
        for seed in range(1, recipe.seeds)
        for choices in repeated(recipe, done, every)
        for precision in PRECISIONS
    ]
    return [job for job in further if not _has(done, job, space)]


def drawn_order(recipe: Recipe) -> list[tuple[int, ...]]:
    """Every architecture once, in the order in which they are trained."""
    every = list(recipe.searched.choices())
    random.Random(f"benchmark order {recipe.draw_seed}").shuffle(every)
    return every


def repeated(recipe: Recipe, done: Done, every: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The architectures with further seeds: the best Children of seed 0, then those that were drawn."""
    space = recipe.searched

    def reached(choices: tuple[int, ...]) -> float:
        return next(run.validation for run in done[describe(choices, space), "child"] if run.seed == 0)

    best = sorted(sorted(every), key=lambda choices: -reached(choices))[: recipe.best]
    drawn = [choices for choices in every if choices not in set(best)][: recipe.drawn]
    return best + drawn


def _has(done: Done, job: Job, space: Space) -> bool:
    runs = done.get((describe(job.choices, space), job.precision), [])
    return any(run.seed == job.seed for run in runs)


class Journal:
    """``runs.csv``: a line a training, appended and synced when it is finished, so that nothing computed is lost.

    Args:
        path: The file; made where it is missing. A last line that was cut off is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if not text:
            write_csv(path, [], COLUMNS)
        elif not text.endswith("\n"):
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")

    def read(self) -> Done:
        """All trainings."""
        return read_runs(self.path)

    def append(self, architecture: str, precision: str, run: Run) -> None:
        """Add a training."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(_row(architecture, precision, run).values())
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(buffer.getvalue())
            stream.flush()
            os.fsync(stream.fileno())

    def sort(self, space: Space) -> None:
        """Put the lines into the order of the space, so that the file does not depend on who finished first."""
        done = self.read()
        for architecture, _ in done:
            parse(architecture, space)
        write_csv(self.path, list(_rows(done, space)), COLUMNS)


def _rows(done: Done, space: Space) -> Iterator[dict[str, str | int]]:
    for choices in space.choices():
        architecture = describe(choices, space)
        for precision in PRECISIONS:
            seeds: set[int] = set()
            for run in done.get((architecture, precision), []):
                if run.seed in seeds:
                    raise InputError(f"{architecture} as {precision} has seed {run.seed} twice")
                seeds.add(run.seed)
                yield _row(architecture, precision, run)


def _row(architecture: str, precision: str, run: Run) -> dict[str, str | int]:
    """Accuracies are counts over at most 50,000 images: six digits hold them exactly enough to read back the count."""
    return {
        "architecture": architecture,
        "precision": precision,
        "seed": run.seed,
        "validation": f"{run.validation:.6g}",
        "test": f"{run.test:.6g}",
        "loss": repr(run.loss),
        "seconds": f"{run.seconds:.2f}",
        "epochs": ";".join(f"{value:.6g}" for value in run.epochs),
    }
