"""Losses for training a found network: the Child-Parent loss (4.17, 4.18) and distillation (method.md, 3 and 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from search import exact
from search.binary import QuantConv2d, SignWeight, quant_convs, sign


def kernel_loss(model: nn.Module) -> Tensor:
    """First term of L_H: sum over layers l and filters c of MSE(H_c^l, Hhat_c^l), a scalar.

    H is the full-precision filter, Hhat = beta o sign(H) its reconstruction; the MSE is the mean over the
    filter's elements. Convolutions whose weights are real have nothing to reconstruct.
    """
    total = torch.zeros((), device=next(model.parameters()).device)
    for _, conv in quant_convs(model):
        quantiser = conv.weight_quantiser
        if isinstance(quantiser, SignWeight) and quantiser.precision == 1:
            target = sign(conv.weight.detach()) * quantiser.beta(conv.weight)
            total = total + (conv.weight - target).square().mean(dim=(1, 2, 3)).sum()
    return total


def tie_loss(pairs: Sequence[tuple[QuantConv2d, Tensor]]) -> Tensor:
    """Mean over filters of MSE(H, Hhat), H the Parent's filter, Hhat = beta o sign(w) the Child's, a scalar.

    The Parent's filters are constants: the Child follows. Gradients pass sign by its estimator.

    Args:
        pairs: A Child's convolution and its Parent's weights, of one shape.
    """
    errors = [
        (conv.weight_quantiser(conv.weight) - weight.detach()).square().mean(dim=(1, 2, 3))
        for conv, weight in pairs
    ]
    return torch.cat(errors).mean()


class ClassMeanLoss(nn.Module):
    """Second term of L_H: 1/2 mean over samples s and features of (f_C,s - fbar_C)^2, without its weight lambda.

    f is the last convolution's feature map, fbar the mean over the samples of the same class. A mean, where (4.18)
    prints a sum: as a sum over a batch of 96 the term was 18 to 40 times the cross entropy [choice]. The class means
    run: with every update of the weights a class's mean moves by ``rate`` towards the mean of its samples since the
    last one, as in centre loss; its first value is the first such mean, and until then its samples count nothing: a
    start at 0 would pull all features to 0.

    Parts of a batch have means of their own, whose mean is that of the batch, and :meth:`follow` moves the class
    means once, by all of them.

    Args:
        classes: Number of classes.
        rate: How fast the class means follow.

    Attributes:
        means: (classes, features); NaN for a class that was not seen yet.
    """

    def __init__(self, classes: int, rate: float) -> None:
        super().__init__()
        self.classes, self.rate = classes, rate
        self.means: Tensor
        self.sums: Tensor
        self.counts: Tensor
        for name in ("means", "sums", "counts"):
            self.register_buffer(name, torch.zeros(classes, 0))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Maps (B, C, H, W) and labels (B,) to a scalar; the means are constants for the gradient."""
        flat = features.flatten(1)
        if self.means.shape[1] != flat.shape[1]:
            self.means = flat.new_full((self.classes, flat.shape[1]), math.nan)
        if self.sums.shape[1] != flat.shape[1]:
            self.sums, self.counts = (
                flat.new_zeros(self.classes, flat.shape[1]),
                flat.new_zeros(self.classes, 1),
            )
        means = self.means[labels]
        loss = 0.5 * torch.where(means.isnan(), torch.zeros_like(flat), flat - means).square().mean()
        with torch.no_grad():
            self.sums.index_add_(0, labels, flat.detach())
            self.counts += torch.bincount(labels, minlength=self.classes)[:, None].to(self.counts.dtype)
        return loss

    @torch.no_grad()
    def follow(self, total: Callable[[Tensor], Tensor] = lambda value: value) -> None:
        """Move the means towards the samples seen since the last call.

        Args:
            total: Sum of a tensor over all processes; the tensor itself where there is one process.
        """
        sums, counts = total(self.sums), total(self.counts)
        target = sums / counts.clamp(min=1)
        moved = torch.where(self.means.isnan(), target, self.means + self.rate * (target - self.means))
        self.means = torch.where(counts > 0, moved, self.means)
        self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)


def distillation(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Soft cross entropy - sum_n p_n log q_n, mean over the batch, times T^2.

    p = softmax(teacher / T), q = softmax(logits / T). At T = 1 it is the released recipe's only loss.
    """
    targets = exact.softmax(teacher / temperature, dim=1)
    return -(targets * exact.log_softmax(logits / temperature, dim=1)).sum(dim=1).mean() * temperature**2
