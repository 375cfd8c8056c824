"""Training steps and short searches as hashes: what :mod:`tests.search.test_isa` runs under forced instruction sets."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from search import exact, optimisers
from search.kernels import native
from search.network import NetworkConfig
from search.run import run_search
from search.style import OperationStyle
from search.supernet import Mixture, Supernet
from search.training import place, set_up
from tests.search import tiny


def digest(values: Iterable[Tensor]) -> str:
    """Hash of the bytes of all values."""
    whole = hashlib.sha256()
    for value in values:
        whole.update(value.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def steps(binary: bool) -> str:
    """Initial weights, logits and the weights after two steps of a mixed supernet with every operation."""
    set_up(tiny.COMPUTE, 0)
    network = Supernet(NetworkConfig(8, 3, 10, "cifar", OperationStyle("paper", binary=binary)))
    network = place(network, torch.device("cpu"))
    found = [digest(network.parameters())]
    weights = exact.softmax(exact.normal(2, 14, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    choice = Mixture(*weights.requires_grad_().unbind())
    x = exact.normal(16, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    optimiser = optimisers.Adam(network.parameters(), 0.01)
    for _ in range(2):
        logits = network(x, choice)
        loss = exact.cross_entropy(logits, torch.arange(16) % 10)
        (in_weights,) = torch.autograd.grad(loss, weights, retain_graph=True)
        optimiser.zero_grad()
        loss.backward()
        optimisers.clip_gradients(list(network.parameters()), 1.0)
        optimiser.step()
        found += [digest([logits, in_weights]), digest(network.parameters())]
    return " ".join(found)


def searched(method: str) -> str:
    """The whole history of a tiny search and the network that it finds."""
    fabric = set_up(tiny.COMPUTE, 0)
    root = Path(tempfile.mkdtemp())
    run = run_search(
        fabric, method, tiny.settings(), 0, tiny.images(), resume_root=root, data_hash="tiny", quiet=True
    )
    history = hashlib.sha256(repr(run.history).encode()).hexdigest()[:16]
    return f"{history} {run.result.genotype.hash[:16]}"


if __name__ == "__main__":
    print("runs", native.running(), file=sys.stderr)
    for name in sys.argv[1:]:
        print(name, steps(name == "child") if name in ("child", "parent") else searched(name))
