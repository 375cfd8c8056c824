"""One process of several: ``torchrun --nproc-per-node 2 -m tests.search.processes_worker FOLDER``.

Runs in float64 what the test also runs in one process, and writes what it saw to ``FOLDER/<rank>.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_pre_hook

from search.binary import SignActivation, value_of
from search.data import split
from search.errors import InputError
from search.methods import METHODS, SearchSettings
from search.network import drop
from search.operations import Pool
from search.processes import gather_rows, mean_over_processes, with_global_norms
from search.strategies.base import Context
from search.supernet import SuperEdge
from search.training import Resume, seed_all, set_up
from tests.search import tiny

ALPHAS = {"epochs": 1, "alpha_optimiser": "descent", "alpha_learning_rate": 1.0, "alpha_weight_decay": 0.001}
"""Plain descent: unlike Adam's, its steps show a gradient that is wrong by a factor."""
REAL = {"space": {"form": "darts", "binary": False}}
"""Half the batch norms of the 1-bit form, so half the time."""
CLIPPED = {"space": {"optimiser": {"clip": 0.05}, "validation_images": 9}}
"""Clipping that acts; a last batch of one image, of which one process has none."""
DARTS = ALPHAS | REAL | {"method": "darts"}
DCP_NAS = tiny.METHODS["dcp_nas"] | {"method": "dcp_nas", "rounds": 1, "tangent_weight": 1.0}
EXACT = {"curvature": "exact", "tangent_point": "path", "distance": "cosine"}
STEPS: dict[str, tuple[dict[str, Any], int]] = {
    "cp_nas": (tiny.METHODS["cp_nas"] | CLIPPED, 3),
    "bnas": (tiny.METHODS["bnas"] | CLIPPED, 1),
    "random": ({"architectures": 2, "epochs": 1} | CLIPPED, 2),
    "darts": (DARTS | {"order": 1}, 1),
    "darts_difference": (DARTS | {"order": 2}, 1),
    "darts_exact": (DARTS | {"order": 2, "second_order": "exact"}, 1),
    "pc_darts": (ALPHAS | REAL | {"warm_up": 0, "partial": 2}, 1),
    "dcp_nas": (DCP_NAS, 2),
    "dcp_exact": (DCP_NAS | REAL | EXACT, 2),
}
"""Every method, with every way to differentiate: settings and number of steps."""


def settings() -> SearchSettings:
    """Batches of 8, one an epoch; weights by SGD without clipping where a variant does not clip."""
    chosen = tiny.settings(**{name: entry for name, (entry, _) in STEPS.items()})
    optimiser = chosen.space.optimiser.model_copy(update={"name": "sgd", "clip": 0.0})
    sizes = {"train_images": 8, "validation_images": 8, "batch_size": 8}
    space = chosen.space.model_copy(update={"optimiser": optimiser, **sizes})
    return chosen.model_copy(update={"space": space})


def above_ties(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Before signs add 1e-7, before pools that much more at every next position: above rounding, below the rest.

    1-bit convolutions give few different values, so that after batch norm many are 0, or a window's largest ones
    equal, but for rounding: which sign they get, or which of them the gradient, says nothing and would hide what
    the test compares.
    """
    if isinstance(module, SignActivation):
        return (inputs[0] + 1e-7,)
    if isinstance(module, (Pool, SuperEdge)):
        x = value_of(inputs[0])
        positions = torch.arange(x.shape[2] * x.shape[3], dtype=x.dtype).view(x.shape[2:])
        return (x + 1e-7 * positions, *inputs[1:])
    return None


def search(fabric: Fabric, name: str) -> dict[str, Any]:
    """The first steps of a search: history, state with all weights and alphas, and the genotype if finished."""
    handle = register_module_forward_pre_hook(above_ties)  # type: ignore[arg-type]
    try:
        return _search(fabric, name)
    finally:
        handle.remove()


def _search(fabric: Fabric, name: str) -> dict[str, Any]:
    chosen = settings()
    variant, space = chosen.method[name], chosen.space_of(name)
    sizes = (space.train_images, space.validation_images)
    train, validation = split(tiny.images(count=24, size=8), sizes, seed=0)
    seed_all(0)
    context = Context(fabric, train, validation, space, seed=0)
    strategy = METHODS[variant.method].strategy(context, variant.settings)
    history = [row for index in range(STEPS[name][1]) for row in strategy.step(index)]
    finished = STEPS[name][1] == strategy.total_steps
    genotype = strategy.result().genotype.to_dict() if finished else None
    return {"history": history, "state": strategy.state_dict(), "genotype": genotype}


SLICES = {"equal": (3, 3), "uneven": (4, 1), "empty": (0, 4)}
"""Images of each of two processes."""
PLAIN, WHOLE = {"affine": False, "track_running_stats": False}, {"momentum": 0.3}
NORMS = {"weights": WHOLE, "plain": PLAIN, "average": {"momentum": None}}
"""Arguments of the batch norms: with weights and running statistics, as in a supernet's operations, and others."""


def draw(count: int, seed: int) -> Tensor:
    """(count, 3, 4, 2) normal numbers away from mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(seed)
    return 2 + 3 * torch.randn(count, 3, 4, 2, generator=generator, dtype=torch.float64)


def norm_derivatives(norm: nn.Module, images: range, total: int) -> dict[str, Tensor]:
    """Forward, backward, backward twice, forward mode and evaluation on some images of a batch of ``total``.

    The losses are sums over images and over entries of gradients, so that those of all parts add up.
    """
    x, first, second, direction = (draw(total, seed)[images.start : images.stop] for seed in range(4))
    leaves = [x.requires_grad_(), *norm.parameters()]
    y = norm(x)
    gradients = torch.autograd.grad((y.sin() * first).sum(), leaves, create_graph=True)
    constants = [second, *(torch.arange(3, dtype=torch.float64) for _ in gradients[1:])]
    products = [(gradient * constant).sum() for gradient, constant in zip(gradients, constants, strict=True)]
    twice = torch.autograd.grad(torch.stack(products).sum(), leaves)
    with torch.no_grad(), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(norm(forward_ad.make_dual(x.detach(), direction))).tangent
    assert tangent is not None
    names = ["x", *(name for name, _ in norm.named_parameters())]
    found = {"y": y.detach(), "tangent": tangent, "evaluated": norm.eval()(x).detach()}
    found |= {f"gradient_{name}": value.detach() for name, value in zip(names, gradients, strict=True)}
    found |= {f"twice_{name}": value for name, value in zip(names, twice, strict=True)}
    return found | {name: value.clone() for name, value in norm.named_buffers()}


def norms(rank: int) -> dict[str, dict[str, Tensor]]:
    """:func:`norm_derivatives` of this process for every kind of norm and slices."""
    found = {}
    for kind, arguments in NORMS.items():
        for name, sizes in SLICES.items():
            first = sum(sizes[:rank])
            norm = with_global_norms(nn.Sequential(nn.BatchNorm2d(3, **arguments))).double()[0]  # type: ignore[arg-type]
            found[f"{kind} {name}"] = norm_derivatives(norm, range(first, first + sizes[rank]), sum(sizes))
    return found


def resume(folder: Path, rank: int) -> dict[str, Any]:
    """What every process loads of a state that one saved; what it is told where only one sees the file."""
    shared, own = Resume(folder / "shared", {}, "code"), Resume(folder / f"own{rank}", {}, "code")
    before = shared.load()
    if rank == 0:
        shared.save({"value": 7})
        own.save({"value": 7})
    mean_over_processes(torch.zeros(()))  # as training does between two loads, this waits for the others
    try:
        told = str(own.load())
    except InputError as error:
        told = str(error)
    return {"before": before, "after": shared.load(), "told": told}


def main() -> None:
    """Do all of it and write ``FOLDER/<rank>.pt``."""
    folder = Path(sys.argv[1])
    torch.set_default_dtype(torch.float64)
    fabric = set_up(tiny.COMPUTE, 0)
    rank = fabric.global_rank
    found = {
        "world": fabric.world_size,
        "norms": norms(rank),
        "rows": gather_rows(torch.full((2,), float(rank + 1))),
        "resume": resume(folder, rank),
        "searches": {name: search(fabric, name) for name in STEPS},
    }
    torch.manual_seed(0)
    found["drop"] = drop(torch.ones(8, 1, 1, 1), 0.5)
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main()
