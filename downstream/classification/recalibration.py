"""Batch norm's statistics estimated anew from training images, with the weights that training ended with."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn


@torch.no_grad()
def recalibrate(
    fabric: Fabric, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], count: int
) -> None:
    """Replace every running mean and variance by the plain average over ``count`` batches.

    Training leaves an exponential average over weights that still moved; of averaged weights (EMA) it is no
    statistic at all. Nothing else of the network is in training mode meanwhile, drop path in particular.

    Args:
        fabric: Precision; with several processes the norms are over the global batch (search.processes).
        model: On the device; its mode is kept.
        batches: Normalised images (B, 3, H, W) and labels.
        count: How many batches are used; at least 1.
    """
    # the auxiliary head does not run in evaluation mode: its statistics would stay empty
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not name.startswith("auxiliary.")
    ]
    modes, momenta = [module.training for module in model.modules()], [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for x, _ in islice(batches, count):
        with fabric.autocast():
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
