"""The driver of a search: settings, the methods by name, steps with progress and resume, what a run leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pydantic import Field

from search.data import Images, split
from search.errors import InputError, nearest
from search.settings import Settings
from search.strategies.base import Budget, Context, SearchResult, SearchSpaceSettings, Strategy
from search.strategies.bnas import Bnas, BnasSettings
from search.strategies.cp_nas import CpNas, CpNasSettings
from search.strategies.darts import Darts, DartsSettings
from search.strategies.dcp_nas import DcpNas, DcpNasSettings
from search.strategies.pc_darts import PcDarts, PcDartsSettings
from search.strategies.random import RandomSearch, RandomSettings
from search.training import Progress, Resume, peak_memory_mib, rng_state, seed_all, set_rng_state


class MethodSettings(Settings):
    """The settings of every method, under its name."""

    random: RandomSettings
    cp_nas: CpNasSettings
    bnas: BnasSettings
    darts: DartsSettings
    pc_darts: PcDartsSettings
    dcp_nas: DcpNasSettings


METHODS: dict[str, Callable[[Context, Any], Strategy]] = {
    "random": RandomSearch,
    "cp_nas": CpNas,
    "bnas": Bnas,
    "darts": Darts,
    "pc_darts": PcDarts,
    "dcp_nas": DcpNas,
}
"""Search methods by name; a new method is a class here, its settings in :class:`MethodSettings`, and nothing else."""


class SearchSettings(Settings):
    """The section ``search`` of params.yaml.

    Attributes:
        methods: Names of the methods to run.
        seeds: One run of every method for each seed.
        space: What all methods share.
        method: Settings of the methods.
        checkpoint_seconds: At least this many seconds between two saved states (0: after every step).
    """

    methods: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    space: SearchSpaceSettings
    method: MethodSettings
    checkpoint_seconds: float = Field(ge=0)


@dataclass(frozen=True)
class SearchRun:
    """A finished search: the result, the history (repeats bit for bit), times, and the budget used.

    ``resume`` holds the last saved state; remove it once the run's files are in place.
    """

    result: SearchResult
    history: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    budget: Budget
    seconds: float
    peak_memory_mib: float
    resumed: bool
    resume: Resume


def run_search(
    fabric: Fabric,
    method: str,
    settings: SearchSettings,
    seed: int,
    images: Images,
    *,
    resume_root: str | Path,
    data_hash: str,
    quiet: bool = False,
) -> SearchRun:
    """Search with one method and one seed.

    Args:
        fabric: From :func:`search.training.set_up`.
        method: A name of :data:`METHODS`.
        settings: The section ``search``.
        seed: Decides initial weights, draws and the order of images.
        images: The training set; the two halves are drawn from it.
        resume_root: Where the state of an unfinished run is kept.
        data_hash: Content hash of the data, part of the state's identity.
        quiet: No progress lines.
    """
    if method not in METHODS:
        hint = nearest(method, METHODS)
        raise InputError(
            f"no search method {method!r}" + (f", did you mean {hint!r}?" if hint else ""),
            allowed=", ".join(METHODS),
        )
    space = settings.space
    train, validation = split(images, (space.train_images, space.validation_images), space.split_seed)
    seed_all(seed)
    context = Context(fabric, train, validation, space, seed)
    own = getattr(settings.method, method)
    strategy = METHODS[method](context, own)
    identity = {
        "kind": "search",
        "method": method,
        "seed": seed,
        "space": space.model_dump(),
        "settings": own.model_dump(),
        "data": data_hash,
        "device": fabric.device.type,
        "world": fabric.world_size,
    }
    return _drive(fabric, strategy, settings, Resume(resume_root, identity), quiet)


def _drive(
    fabric: Fabric, strategy: Strategy, settings: SearchSettings, resume: Resume, quiet: bool
) -> SearchRun:
    context = strategy.context
    history: list[dict[str, Any]] = []
    timing: list[dict[str, Any]] = []
    state = resume.load(fabric.device)
    if state is not None:
        strategy.load_state_dict(state["strategy"])
        context.budget = Budget(**state["budget"])
        history, timing = state["history"], state["timing"]
        set_rng_state(state["rng"])
    before = timing[-1]["seconds"] if timing else 0.0
    started = saved = time.monotonic()
    progress = Progress(
        f"{strategy.name} s{context.seed}",
        strategy.total_steps,
        len(timing),
        quiet or not fabric.is_global_zero,
    )
    for index in range(len(timing), strategy.total_steps):
        rows = strategy.step(index)
        history += rows
        timing.append({"step": index, "seconds": before + time.monotonic() - started})
        last = index + 1 == strategy.total_steps
        if not last and time.monotonic() - saved >= settings.checkpoint_seconds and fabric.is_global_zero:
            resume.save(
                {
                    "strategy": strategy.state_dict(),
                    "budget": vars(context.budget),
                    "history": history,
                    "timing": timing,
                    "rng": rng_state(),
                }
            )
            saved = time.monotonic()
        accuracy = rows[-1].get("accuracy_child") if rows else None
        progress.update(index + 1, f"validation accuracy {accuracy:.3f}" if accuracy is not None else "")
    progress.close()
    return SearchRun(
        result=strategy.result(),
        history=history,
        timing=timing,
        budget=context.budget,
        seconds=timing[-1]["seconds"],
        peak_memory_mib=peak_memory_mib(fabric),
        resumed=state is not None,
        resume=resume,
    )
