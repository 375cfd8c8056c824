"""The driver of a search: steps with progress and resume, and what a run leaves behind."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from search.data import Images, split
from search.errors import InputError, nearest
from search.fingerprint import fingerprint
from search.methods import METHODS, SearchSettings
from search.strategies.base import Budget, Context, SearchResult, Strategy
from search.training import (
    Progress,
    Resume,
    load_precision_state,
    peak_memory_mib,
    precision_name,
    precision_state,
    rng_state,
    seed_all,
    set_rng_state,
)


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
    name: str,
    settings: SearchSettings,
    seed: int,
    images: Images,
    *,
    resume_root: str | Path,
    data_hash: str,
    quiet: bool = False,
) -> SearchRun:
    """Search with one variant of a method and one seed.

    Args:
        fabric: From :func:`search.training.set_up`.
        name: A variant of ``settings.method``; it names the genotype too.
        settings: The section ``search``.
        seed: Decides initial weights, draws and the order of images.
        images: The training set; the two halves are drawn from it.
        resume_root: Where the state of an unfinished run is kept.
        data_hash: Content hash of the data, part of the state's identity.
        quiet: No progress lines.

    Raises:
        InputError: If there is no such variant.
    """
    if name not in settings.method:
        hint = nearest(name, settings.method)
        raise InputError(
            f"no search method {name!r}" + (f", did you mean {hint!r}?" if hint else ""),
            where="search.method",
            allowed=", ".join(settings.method),
        )
    variant, space = settings.method[name], settings.space_of(name)
    train, validation = split(images, (space.train_images, space.validation_images), space.split_seed)
    seed_all(seed)
    context = Context(fabric, train, validation, space, seed)
    strategy = METHODS[variant.method].strategy(context, variant.settings)
    identity = {
        "kind": "search",
        "method": variant.method,
        "variant": name,
        "seed": seed,
        "space": space.model_dump(),
        "settings": variant.settings.model_dump(),
        "data": data_hash,
        "device": fabric.device.type,
        "precision": precision_name(fabric),
        "world": fabric.world_size,
        "threads": torch.get_num_threads(),
    }
    resume = Resume(resume_root, identity, fingerprint(__name__, only=variant.method))
    return _drive(fabric, strategy, name, settings, resume, quiet)


def refuse_divergence(rows: list[dict[str, Any]]) -> None:
    """End a search whose losses are no numbers any more: what it goes on to choose would mean nothing."""
    for row in rows:
        for key, value in row.items():
            if key.startswith("loss") and value is not None and not math.isfinite(value):
                raise InputError(
                    f"the search diverged in step {row['step']}: {key} is {value}",
                    where="search.space.optimiser",
                    mend="lower learning_rate, or set clip",
                )


def _drive(
    fabric: Fabric, strategy: Strategy, name: str, settings: SearchSettings, resume: Resume, quiet: bool
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
        load_precision_state(fabric, state["precision"])
    before = timing[-1]["seconds"] if timing else 0.0
    started = saved = time.monotonic()
    progress = Progress(
        f"{name} s{context.seed}",
        strategy.total_steps,
        len(timing),
        quiet or not fabric.is_global_zero,
    )
    for index in range(len(timing), strategy.total_steps):
        rows = strategy.step(index)
        refuse_divergence(rows)
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
                    "precision": precision_state(fabric),
                }
            )
            saved = time.monotonic()
        last_row = rows[-1] if rows else {}
        accuracy = last_row.get("accuracy_child", last_row.get("accuracy"))
        progress.update(index + 1, f"validation accuracy {accuracy:.3f}" if accuracy is not None else "")
    progress.close()
    result = strategy.result()
    if name != strategy.name:
        genotype = replace(result.genotype, name=f"{name}-s{context.seed}")
        result = replace(result, genotype=genotype)
    return SearchRun(
        result=result,
        history=history,
        timing=timing,
        budget=context.budget,
        seconds=timing[-1]["seconds"],
        peak_memory_mib=peak_memory_mib(fabric),
        resumed=state is not None,
        resume=resume,
    )
