"""The tabular benchmark of a small space: train every architecture, ask for the best, rank a network of one's own.

python -m pipelines.benchmark run                  train what is missing (goes on where it was stopped)
python -m pipelines.benchmark show --best 10       the best Children, with their Parents
python -m pipelines.benchmark show --rank FILE     the place of a genotype
python -m pipelines.benchmark show --progress      how much is done
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from pipelines import stage
from search.benchmark.names import describe, parse
from search.benchmark.plan import Job, Journal, jobs
from search.benchmark.table import FOLDER, PRECISIONS, Benchmark, Entry, Run
from search.errors import InputError, nearest
from search.files import read_json, write_json
from search.space import Space

RECIPES = Path(__file__).parent / "benchmarks"
DATA = Path("data/cifar10")
CARD = "card.json"


def main() -> None:
    """Run or show."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train what is missing")
    show = commands.add_parser("show", help="read the table")
    report = commands.add_parser("report", help="write what the table says into results/")
    report.add_argument("--results", type=Path, default=Path("results"), help="the folder")
    for command in (run, show, report):
        command.add_argument(
            "--recipe", default="small", help="a file of pipelines/benchmarks, without .yaml"
        )
        command.add_argument("--folder", type=Path, help="where the table is (default: inside the suite)")
    run.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="trainings side by side")
    run.add_argument("--limit", type=int, help="stop after this many trainings")
    run.add_argument("--data", type=Path, default=DATA, help="prepared CIFAR-10")
    run.add_argument("--only", nargs="+", metavar="ARCHITECTURE", help="these instead of the whole space")
    show.add_argument("--best", type=int, metavar="N", help="the N best Children")
    show.add_argument("--rank", type=Path, metavar="GENOTYPE", help="the place of this genotype file")
    show.add_argument("--progress", action="store_true", help="how many trainings are done")
    arguments = parser.parse_args()
    folder = arguments.folder or FOLDER / arguments.recipe
    if arguments.command == "run":
        if arguments.jobs < 1:
            raise InputError(f"{arguments.jobs} jobs", where="--jobs", allowed="1 or more")
        train_missing(
            arguments.recipe, folder, arguments.data, arguments.jobs, arguments.limit, arguments.only
        )
    elif arguments.command == "report":
        from pipelines.agreement import write_report

        for path in write_report(Benchmark.load(folder), arguments.results):
            print(path)
    elif arguments.progress:
        print(progress(arguments.recipe, folder))
    else:
        print("\n".join(shown(Benchmark.load(folder), arguments.best, arguments.rank)))


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        InputError: If there is none of this name.
    """
    known = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if name not in known:
        hint = nearest(name, known)
        raise InputError(
            f"no recipe {name!r}" + (f", did you mean {hint!r}?" if hint else ""), allowed=", ".join(known)
        )
    return RECIPES / f"{name}.yaml"


def train_missing(
    name: str,
    folder: Path,
    data: Path,
    workers: int,
    limit: int | None = None,
    only: list[str] | None = None,
    pool: Executor | None = None,
) -> None:
    """Do all trainings of a recipe that its table does not have, each appended as it finishes.

    Args:
        name: The recipe.
        folder: The table.
        data: Prepared CIFAR-10.
        workers: Processes, each with one thread.
        limit: Stop after this many.
        only: Architectures instead of the whole space.
        pool: Where trainings run instead of on this machine's cores: any ``concurrent.futures`` executor.

    Raises:
        InputError: If the table was begun with another recipe or other data, or its rows come out differently now.
    """
    from search.benchmark.recipe import load_recipe

    recipe = load_recipe(recipe_path(name))
    space = recipe.searched
    _write_card(folder, name, data)
    journal = Journal(folder / "runs.csv")
    done, total = 0, limit if limit is not None else sys.maxsize
    executor = pool or ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    with executor:
        _check(executor, name, data, journal, space)
        while done < total and (waiting := jobs(recipe, journal.read(), only)):
            for job, result in _results(executor, name, data, waiting[: total - done]):
                journal.append(describe(job.choices, space), job.precision, result)
                done += 1
                _say(done, len(waiting), job, describe(job.choices, space), result)
    journal.sort(space)
    _write_costs(folder, name, data)


def _check(executor: Executor, name: str, data: Path, journal: Journal, space: Space) -> None:
    """Train one row of each precision again: a table goes on only with code and a machine that make the same rows."""
    known = [(key, run) for key, runs in journal.read().items() for run in runs if run.seed == 0]
    for precision in PRECISIONS:
        found = next(((key, run) for key, run in known if key[1] == precision), None)
        if found is None:
            continue
        (architecture, _), old = found
        job = Job(parse(architecture, space), precision, old.seed, every_epoch=False)
        new = executor.submit(_train, name, str(data), job).result()
        if (new.loss, f"{new.test:.6g}") != (old.loss, f"{old.test:.6g}"):
            raise InputError(
                f"{architecture} as {precision}, trained again, has loss {new.loss!r} and test accuracy "
                f"{new.test:.4f}, not {old.loss!r} and {old.test:.4f}",
                where=journal.path,
                mend="go on with the code and settings of its card, or begin a new table with --folder",
            )


def _results(executor: Executor, name: str, data: Path, waiting: list[Job]) -> Iterator[tuple[Job, Run]]:
    futures = {executor.submit(_train, name, str(data), job): job for job in waiting}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


_loaded: dict[tuple[str, str], Any] = {}


def _train(name: str, data: str, job: Job) -> Run:
    """In a worker: one training; the images are read once a process."""
    import torch

    from search.benchmark.recipe import load_recipe, prepare_images
    from search.benchmark.train import train
    from search.data import load_cifar10
    from search.memory import keep_freed_memory

    if (name, data) not in _loaded:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        keep_freed_memory()
        recipe = load_recipe(recipe_path(name))
        images = prepare_images(recipe, load_cifar10(data, "train"), load_cifar10(data, "test"))
        _loaded[name, data] = (recipe, images)
    recipe, images = _loaded[name, data]
    return train(
        recipe,
        images,
        job.choices,
        binary=job.precision == "child",
        seed=job.seed,
        every_epoch=job.every_epoch,
    )


def _say(done: int, waiting: int, job: Job, architecture: str, run: Run) -> None:
    print(
        f"{done}/{waiting}  {architecture} {job.precision} s{job.seed}  validation {run.validation:.3f}  "
        f"{run.seconds:.1f} s",
        file=sys.stderr,
        flush=True,
    )


def _identity(name: str, data: Path) -> dict[str, Any]:
    """All that decides a row of the table."""
    from search.benchmark.recipe import load_recipe
    from search.manifest import read_manifest

    recipe = load_recipe(recipe_path(name))
    return {
        "recipe": recipe.model_dump(),
        "space": recipe.searched.to_dict(),
        "data": read_manifest(data)["sha256"],
    }


def _write_card(folder: Path, name: str, data: Path) -> None:
    """Begin a table, or see that it is the same; note the machine and versions that go on with it."""
    from pipelines.machine import cpu_name
    from pipelines.provenance import versions

    path, identity = folder / CARD, _identity(name, data)
    old = read_json(path) if path.exists() else None
    if old is not None:
        for key, value in identity.items():
            if old[key] != value:
                raise InputError(
                    f"the table was made with another {key}",
                    where=path,
                    mend="give --folder a new place, or delete the table",
                )
    machines = dict(old["machines"]) if old is not None else {}
    machines[cpu_name()] = versions()
    write_json(path, {**identity, "machines": machines, "licence": "Apache-2.0"})


def _write_costs(folder: Path, name: str, data: Path) -> None:
    """``cost.csv``: what each architecture costs as Child and as Parent, at the recipe's size."""
    from search.benchmark.names import genotype_of
    from search.benchmark.recipe import load_recipe
    from search.cost import count
    from search.files import write_csv
    from search.network import Network

    if (folder / "cost.csv").exists():
        return
    recipe = load_recipe(recipe_path(name))
    rows = []
    for choices in recipe.searched.choices():
        row: dict[str, Any] = {"architecture": describe(choices, recipe.searched)}
        for precision in ("child", "parent"):
            network = Network(genotype_of(choices, recipe.searched), recipe.config(precision == "child", 10))
            cost = count(network, (3, recipe.size, recipe.size))
            row |= {
                f"{precision}_parameters": cost.parameters,
                f"{precision}_bops": cost.bops,
                f"{precision}_flops": cost.flops,
                f"{precision}_ops_strict": cost.ops_strict,
                f"{precision}_mbit": cost.mbit,
            }
        rows.append(row)
    write_csv(folder / "cost.csv", rows)


def progress(name: str, folder: Path) -> str:
    """How many trainings of a recipe are done, in one line."""
    from search.benchmark.recipe import load_recipe

    recipe = load_recipe(recipe_path(name))
    done = Journal(folder / "runs.csv").read()
    seeds = [run.seed for runs in done.values() for run in runs]
    first = 2 * recipe.searched.size
    further = 2 * (recipe.seeds - 1) * min(recipe.best + recipe.drawn, recipe.searched.size)
    zero = seeds.count(0)
    return f"{name}: {zero} of {first} with seed 0, {len(seeds) - zero} of {further} with further seeds"


def shown(table: Benchmark, best: int | None, genotype: Path | None) -> Iterator[str]:
    """The lines of ``show``: the best Children, or one network's place."""
    yield f"{len(table)} architectures of the space {table.space.name!r}; test accuracy in %, mean over seeds"
    yield f"{'rank':>5}  {'Child':>6}  {'Parent':>6}  {'seeds':>5}  architecture"
    if genotype is not None:
        from search.genotype import Genotype

        yield _line(table, table.query(Genotype.load(genotype)))
    else:
        for entry in table.best(best or 10):
            yield _line(table, entry)


def _line(table: Benchmark, entry: Entry) -> str:
    child, parent = 100 * entry.child.test, 100 * entry.parent.test
    seeds = len(entry.child.runs)
    return f"{table.rank(entry):>5}  {child:>6.2f}  {parent:>6.2f}  {seeds:>5}  {entry.architecture}"


if __name__ == "__main__":
    stage.run(main)
