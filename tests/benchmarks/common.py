"""What the benchmarks share: the set-up of a real run, and where the time of a step goes."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from search.binary import Quantiser
from search.training import ComputeSettings, set_up

PARTS = {
    "convolutions": ("aten::conv", "aten::_conv", "aten::mkldnn_convolution", "ConvolutionBackward", "_Same"),
    "batch norms": ("aten::native_batch_norm", "aten::_batch_norm", "NativeBatchNorm"),
    "quantisers": ("quantiser", "_Sign", "ReluBackward", "aten::threshold_backward"),
    "pools": ("aten::max_pool", "aten::avg_pool", "MaxPool", "AvgPool", "aten::adaptive_avg_pool"),
    "optimiser": ("Optimizer",),
    "sums, concatenations, slices": (
        "aten::add",
        "Add",
        "aten::cat",
        "Cat",
        "aten::slice",
        "Slice",
        "aten::sum",
    ),
}
"""Parts of a step, by how the names of their events begin; the outermost event that has a part decides."""
OTHER = "other"


@functools.cache
def as_in_a_run() -> None:
    """Deterministic algorithms and memory as every stage sets them, on the CPU, with the threads of this process."""
    set_up(ComputeSettings(device="cpu", threads=torch.get_num_threads()), seed=0)


@contextmanager
def _named_quantisers(network: nn.Module) -> Iterator[None]:
    """Within, the forward pass of every quantiser is an event of its own."""
    open_events: list[Any] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        open_events.append(record_function("quantiser"))
        open_events[-1].__enter__()

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        open_events.pop().__exit__(None, None, None)

    quantisers = [module for module in network.modules() if isinstance(module, Quantiser)]
    handles = [module.register_forward_pre_hook(enter) for module in quantisers]
    handles += [module.register_forward_hook(leave) for module in quantisers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def shares(network: nn.Module, step: Callable[[], None]) -> dict[str, float]:
    """Which share of a step's time each of :data:`PARTS` takes, by torch's profiler; they add up to 1."""
    with _named_quantisers(network), profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    times: defaultdict[str, float] = defaultdict(float)
    for event in profiler.events():
        times[_part(event)] += event.self_cpu_time_total
    total = sum(times.values())
    return {name: times[name] / total for name in (*PARTS, OTHER)}


def _part(event: Any) -> str:
    found = OTHER
    while event is not None:
        name = event.name.removeprefix("autograd::engine::evaluate_function: ")
        found = next((part for part, starts in PARTS.items() if name.startswith(starts)), found)
        event = event.cpu_parent
    return found
