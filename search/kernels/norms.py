"""The arguments of a batch norm as kernels and their plain twin take them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """A batch norm over channels, at one call.

    Attributes:
        mean, var: Running statistics, float32: read where ``evaluate``, else updated; None for none.
        eps, momentum: As in ``nn.BatchNorm2d``.
        evaluate: Normalise by the running statistics instead of the batch's.
    """

    mean: Tensor | None
    var: Tensor | None
    eps: float
    momentum: float
    evaluate: bool

    @property
    def again(self) -> Norm:
        """The same for computing a layer once more: running statistics are not updated a second time."""
        return self if self.evaluate else replace(self, mean=None, var=None)

    def arguments(self, gamma: Tensor | None, bias: Tensor | None) -> tuple:
        """What the operators take, in their order."""
        return gamma, bias, self.mean, self.var, self.eps, self.momentum, self.evaluate


def called(module: nn.BatchNorm2d) -> Norm:
    """The norm's present state, counting the call as ``module(x)`` would."""
    evaluate = not module.training and module.running_mean is not None
    updates = module.training and module.track_running_stats and module.running_mean is not None
    momentum = 0.0 if module.momentum is None else module.momentum
    if updates and module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if module.momentum is None:
            momentum = 1.0 / float(module.num_batches_tracked)
    kept = evaluate or updates
    return Norm(
        module.running_mean if kept else None,
        module.running_var if kept else None,
        module.eps,
        momentum,
        evaluate,
    )
