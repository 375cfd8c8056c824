"""One training of one architecture for the benchmark: a function of recipe, architecture, precision and seed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search import exact, optimisers
from search.benchmark.names import genotype_of
from search.benchmark.recipe import Recipe
from search.benchmark.table import Run
from search.data import Batches, Images, mixed_seed
from search.network import Network
from search.training import cosine, place

TEST_BATCH = 500


def train(
    recipe: Recipe,
    images: tuple[Images, Images, Images],
    choices: Sequence[int],
    *,
    binary: bool,
    seed: int,
    every_epoch: bool,
) -> Run:
    """Train from scratch and measure.

    Child and Parent of one seed see the same images in the same order. Their initial weights come from the same
    generator and are the same where shapes are.

    Args:
        recipe: Sizes and optimiser.
        images: Training, validation and test part (:func:`search.benchmark.recipe.prepare_images`).
        choices: The architecture.
        binary: Child or Parent.
        seed: Decides initial weights, order and augmentation.
        every_epoch: Measure the validation accuracy after every epoch, not only after the last.
    """
    training, validation, test = images
    torch.manual_seed(mixed_seed(seed, 1))
    network = Network(genotype_of(choices, recipe.searched), recipe.config(binary, training.classes))
    network = place(network, torch.device("cpu"))
    optimiser = optimisers.Adam(network.parameters(), recipe.learning_rate)
    batches = Batches(training, recipe.batch_size, seed=seed, augmentation=recipe.augmentation)
    steps, step, seconds, loss, curve = recipe.epochs * len(batches), 0, 0.0, 0.0, []
    for epoch in range(recipe.epochs):
        started, total = time.perf_counter(), torch.zeros((), dtype=torch.float64)
        network.train()
        for x, y in batches.epoch(epoch):
            for group in optimiser.param_groups:
                group["lr"] = cosine(step / steps, recipe.learning_rate, recipe.final_learning_rate)
            optimiser.zero_grad(set_to_none=True)
            value: Tensor = exact.cross_entropy(network(x), y)
            value.backward()
            optimiser.step()
            total += value.detach()
            step += 1
        seconds += time.perf_counter() - started
        loss = float(total) / len(batches)
        if every_epoch:
            curve.append(accuracy(network, validation))
    last = curve[-1] if curve else accuracy(network, validation)
    return Run(seed, last, accuracy(network, test), loss, seconds, tuple(curve))


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Share of the images whose largest logit is their label's, in evaluation mode; of equals the first."""
    network.eval()
    right = sum(int((network(x).argmax(dim=1) == y).sum()) for x, y in Batches(images, TEST_BATCH).epoch(0))
    return right / len(images)
