"""Bring the whole pipeline up to date, independent stages side by side. ``make reproduce JOBS=n`` runs this.

DVC decides what is stale and keeps the outputs: afterwards `dvc repro` has nothing to do. A stage that fails stops only
what is built on it. After Ctrl-C or a crash the same command goes on from where each stage was. A stage of dvc.yaml
with `meta: {alone: true}` runs beside no other.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import code, launch, settings_file, stage
from pipelines.display import Display, clock, last_line
from pipelines.schedule import Schedule
from search.errors import InputError
from search.files import read_json, write_json

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

LOGS = Path("runs/.logs")
SECONDS = LOGS / "seconds.json"
LOCK = Path("runs/.reproduce.lock")
ALONE = "alone"
PATIENCE = 30.0
"""Seconds to wait for the stages of a run that was killed: they stop when they notice."""


@dataclass(frozen=True)
class Place:
    """Where stages run.

    Attributes:
        executor: Runs their commands.
        jobs: How many at once.
        threads: Of each stage.
        gpus: Those of this machine that may be used, by name; each stage sees one.
        held: Open files that the stages hold until they end.
    """

    executor: Executor
    jobs: int
    threads: int
    gpus: list[str]
    held: tuple[int, ...]


class Reproduction:
    """One run over the graph.

    Args:
        repo: DVC's, of this folder.
        wanted: Stages by name, with all that they need.
        place: Where they run.
    """

    def __init__(self, repo: Repo, wanted: dict[str, PipelineStage], place: Place) -> None:
        self.repo, self.stages, self.place = repo, wanted, place
        graph = repo.index.graph  # an edge leads from a stage to one that it is built on
        names = {stage: name for name, stage in wanted.items()}
        self.schedule = Schedule(
            {name: [names[s] for s in graph.successors(stage)] for name, stage in wanted.items()},
            place.jobs,
            frozenset(name for name, stage in wanted.items() if (stage.meta or {}).get(ALONE)),
            read_json(SECONDS) if SECONDS.exists() else {},
        )
        self.started: dict[str, float] = {}
        self.seen: dict[str, str] = {}  # the GPU of each running stage
        self.futures: dict[Future[int], str] = {}
        self.ran: list[str] = []
        self.display = Display(self.schedule, LOGS, self.started)

    def run(self) -> None:
        """Until every stage is done, failed or left out."""
        try:
            while True:
                while (name := self.schedule.next()) is not None:
                    self._begin(name)
                if not self.futures:
                    return
                finished, _ = wait(self.futures, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._end(self.futures.pop(future), future)
                self.display.refresh()
        finally:
            self.display.close()

    def _begin(self, name: str) -> None:
        """Start a stage, unless DVC finds nothing changed, or its outputs in the cache of earlier runs."""
        from dvc.stage.cache import RunCacheNotFoundError

        item = self.stages[name]
        with self.repo.lock, self.repo.scm_context():
            if not item.changed():
                self.schedule.done.add(name)
                return
            item.remove_outs()
            try:
                self.repo.stage_cache.restore(item)
            except RunCacheNotFoundError:
                item.save_deps()
            else:
                self._keep(item)
                self.schedule.done.add(name)
                self.display.say(f"{name}: found in the cache of earlier runs")
                return
        self.schedule.running.add(name)
        self.started[name] = time.monotonic()
        log, gpu = str(launch.log_of(LOGS, name)), self._gpu(name)
        arguments = (item.cmd, os.getcwd(), log, self.place.threads, gpu, self.place.held)
        self.futures[self.place.executor.submit(launch.run_command, *arguments)] = name
        self.display.say(f"{name}: started")

    def _gpu(self, name: str) -> str | None:
        """The GPU that a stage sees: the one with the fewest stages."""
        if not self.place.gpus:
            return None
        taken = list(self.seen.values())
        self.seen[name] = min(self.place.gpus, key=taken.count)
        return self.seen[name]

    def _end(self, name: str, future: Future[int]) -> None:
        """Keep the outputs of a stage that succeeded; name the log of one that did not."""
        seconds = time.monotonic() - self.started.pop(name)
        self.schedule.running.remove(name)
        self.seen.pop(name, None)
        why = self._why_failed(name, future)
        if why is None:
            self.schedule.done.add(name)
            self.schedule.seconds[name] = round(seconds, 1)
            write_json(SECONDS, self.schedule.seconds)
            self.ran.append(name)
            self.display.say(f"{name}: done in {clock(seconds)}  ({self.display.count()})")
        else:
            self.schedule.failed.add(name)
            self.display.say(f"{name}: FAILED, {why}; see {launch.log_of(LOGS, name)}")

    def _why_failed(self, name: str, future: Future[int]) -> str | None:
        from dvc.exceptions import DvcException

        if (error := future.exception()) is not None:
            return f"it could not be run: {error}"
        if exit_code := future.result():
            return last_line(launch.log_of(LOGS, name)) or f"exit code {exit_code}"
        try:
            with self.repo.lock, self.repo.scm_context():
                self._keep(self.stages[name])
        except DvcException as error:
            return f"exit code 0, but {error}"
        return None

    def _keep(self, item: PipelineStage) -> None:
        """Record a stage as done: its outputs go to DVC's cache, their hashes to dvc.lock."""
        item.save(run_cache=all(out.use_cache or out.is_metric or out.is_plot for out in item.outs))
        item.commit()
        item.dump(update_pipeline=False)


def chosen(repo: Repo, targets: Iterable[str]) -> dict[str, PipelineStage]:
    """The stages of dvc.yaml in its order, or the named ones (``search`` means all of them) with all they need."""
    import networkx

    graph = repo.index.graph
    everything = {stage.addressing: stage for stage in repo.index.stages}
    wanted: set[Any] = set()
    for target in targets:
        found = [s for name, s in everything.items() if target in (name, name.partition("@")[0])]
        if not found:
            raise InputError(f"no stage {target!r}", allowed="see dvc.yaml, or: dvc stage list")
        wanted |= set(found).union(*(networkx.descendants(graph, s) for s in found))
    return {name: s for name, s in everything.items() if not wanted or s in wanted}


@contextmanager
def exclusive(patience: float = PATIENCE) -> Iterator[int]:
    """Hold the folder: one reproduction at a time. The stages hold the file too, so that it is free when all ended.

    Raises:
        InputError: If another holds it.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    raise InputError(
                        "another reproduction runs here, or stages of one still do",
                        where=LOCK,
                        mend="wait for it",
                    ) from None
                time.sleep(0.2)
        yield descriptor
    finally:
        os.close(descriptor)


def default_jobs(threads: int, gpus: int) -> int:
    """As many stages as there is room for: one a GPU where GPUs are used, else one for every ``threads`` cores."""
    return gpus or max(1, len(os.sched_getaffinity(0)) // threads)


def main() -> None:
    """Read the command line and run what is stale."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.reproduce", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="only these stages and what they need")
    parser.add_argument("--jobs", type=_positive, help="stages at once (default: all cores, or one a GPU)")
    parser.add_argument(
        "--executor", default="local", help="local, slurm, or MODULE:FUNCTION, which takes the number of jobs"
    )
    options = parser.parse_args()
    compute = settings_file.read(code.PARAMS)["compute"]
    here = options.executor == "local"
    gpus = launch.gpus(str(compute["device"])) if here else []
    threads = int(compute["threads"])
    jobs = options.jobs or default_jobs(threads, len(gpus))
    if code.NAME.exists() and code.write():
        print(f"{code.NAME} is up to date again")
    LOGS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with exclusive() as lock, launch.executor_of(options.executor, jobs) as executor:
        place = Place(executor, jobs, threads, gpus, (lock,) if here else ())
        done = _reproduce(options.targets, place)
    failed, left_out = sorted(done.schedule.failed), sorted(done.schedule.left_out)
    print(f"{len(done.ran)} stages run in {clock(time.monotonic() - begun)}, {jobs} at once; logs in {LOGS}")
    if failed:
        if left_out:
            print(f"left out, being built on what failed: {', '.join(left_out)}", file=sys.stderr)
        logs = ", ".join(str(launch.log_of(LOGS, name)) for name in failed)
        print(f"error: {len(failed)} stages failed; see {logs}", file=sys.stderr, flush=True)
        sys.exit(1)


def _reproduce(targets: list[str], place: Place) -> Reproduction:
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    with Repo() as repo:
        run = Reproduction(repo, chosen(repo, targets), place)
        try:
            run.run()
        except BaseException:
            launch.stop_all()
            place.executor.shutdown(
                wait=False
            )  # a cluster cancels its jobs, which the stages take as a Ctrl-C
            raise
        return run


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


if __name__ == "__main__":
    stage.run(main)
