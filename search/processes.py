"""What several processes compute together: sums, batch norm and draws over the global batch.

Each process holds the whole model and takes its slice of every global batch. What one process would compute of
the whole batch is put together here, by sums over all processes that autograd passes in every direction the
methods need: backward, backward twice (exact curvature, second-order DARTS) and forward (Gauss-Newton).

torch's SyncBatchNorm runs on GPUs alone and goes through autograd once, so it cannot be used.

Every process differentiates its own loss L_r. The gradient of a sum over processes is the sum of the gradients, so
that ``backward`` on process r gives d(L_1 + ... + L_W) / d(its own copy of a parameter); the mean of these over
all processes is the gradient of the mean loss, which is that of the global batch where slices are equal.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

ModuleType = TypeVar("ModuleType", bound=nn.Module)
CHANNEL_WISE = (0, 2, 3)
"""The dimensions of (N, C, H, W) over which a channel's statistics run."""


def world() -> int:
    """Number of processes that compute together; 1 where no process group was made."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world() > 1 else 0


class _Sum(torch.autograd.Function):
    """Sum over all processes; linear and its own transpose, so that every derivative is a sum again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Sum.apply(tangents[0])


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum of ``x`` over all processes, differentiable to any order and in forward mode; ``x`` where there is one.

    All processes must call it in the same order with the same shape.
    """
    return x if world() == 1 else _Sum.apply(x)


def mean_over_processes(x: Tensor) -> Tensor:
    """Mean of ``x`` over all processes, differentiable as :func:`sum_over_processes`."""
    return x if world() == 1 else sum_over_processes(x) / world()


def gather_rows(row: Tensor) -> Tensor:
    """The rows (C,) of all processes as a table (processes, C); differentiable as :func:`sum_over_processes`."""
    return sum_over_processes(_own_row(world(), rank(), row.dtype, row.device) * row)


@cache
def _own_row(count: int, own: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A column (count, 1) with 1 in row ``own``."""
    column = torch.zeros(count, 1, dtype=dtype, device=device)
    column[own] = 1
    return column


def uniform_slice(count: int, like: Tensor) -> Tensor:
    """This process's ``count`` of the uniform numbers that one process would draw for the whole batch, (count,).

    All processes hold ``count`` samples and the same state of torch's generator, which all advance alike.
    """
    drawn = torch.rand(count * world(), device=like.device, dtype=like.dtype)
    return drawn[rank() * count : (rank() + 1) * count]


def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of values a channel of (N, C, H, W), over all processes.

    Combined from each process's own two by the formula of Chan, Golub and LeVeque (1983), which does not cancel.
    Slices may differ in size; an empty one takes part. Differentiable as :func:`sum_over_processes`.
    """
    channels, count = x.shape[1], x.numel() // x.shape[1]
    if count:
        variance, mean = torch.var_mean(x, CHANNEL_WISE, correction=0)
    else:
        # Zeros that keep the graph: backward must meet the others' sums here too.
        variance = mean = x.sum(CHANNEL_WISE)
    rows = gather_rows(torch.cat([mean, variance, x.new_full((1,), count)]))
    means, variances, counts = rows.split([channels, channels, 1], dim=1)
    total = counts.sum()
    share = counts / total
    whole = (share * means).sum(0)
    return whole, (share * (variances + (means - whole).square())).sum(0), total


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) with the global batch's statistics, which are given too, without gradient.

    The Jacobian J = (1 - 11^T/n - y y^T/n) / sqrt(variance + eps), y the result, is symmetric, so that one rule
    serves backward and forward mode; backward twice goes through the rule and the statistics in it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = _wide(x)
        mean, variance, count = statistics(wide)
        scale = torch.rsqrt(variance + eps)
        ctx.eps = eps
        ctx.save_for_backward(x, mean, scale, count)
        ctx.save_for_forward(x, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.set_materialize_grads(False)
        return _normalised(wide, mean, scale).to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        if gradients[0] is None:
            return None, None
        x, mean, scale, count = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are wanted: the statistics depend on x
            mean, variance, count = statistics(_wide(x))
            scale = torch.rsqrt(variance + ctx.eps)
        return _jacobian_product(gradients[0], x, mean, scale, count), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if tangents[0] is None:
            return None, None, None, None
        return _jacobian_product(tangents[0], *ctx.saved_tensors), None, None, None


def _jacobian_product(vector: Tensor, x: Tensor, mean: Tensor, scale: Tensor, count: Tensor) -> Tensor:
    """J v of :class:`_Normalise` at ``x``, in the type of ``x``."""
    v, y = _wide(vector), _normalised(_wide(x), mean, scale)
    sums = torch.cat([v.sum(CHANNEL_WISE), (v * y).sum(CHANNEL_WISE)])
    along_one, along_y = (sum_over_processes(sums) / count).view(2, 1, -1, 1, 1).unbind()
    return ((v - along_one - y * along_y) * scale.view(-1, 1, 1)).to(x.dtype)


def _normalised(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1)


def _wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm by the statistics of all processes' batches together, in training and wherever a batch's own count.

    The same numbers, up to rounding, as ``nn.BatchNorm2d`` gives for the concatenated batch, and the same
    derivatives to any order; one sum over processes forward, one backward.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of this process to the same shape and type."""
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(x, self.eps)
        if self.training and self.track_running_stats and self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1).clamp(min=1)))
        if self.weight is None:
            return y
        return (y * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics towards the batch's; without a momentum they are plain averages."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore[arg-type]
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            assert running is not None
            running.lerp_(value.to(running.dtype), momentum)


def with_global_norms(module: ModuleType) -> ModuleType:
    """The network with every batch norm over the global batch, its parameters and buffers the very same tensors.

    Where one process computes alone the network stays as it is, bit for bit and as fast.
    """
    if world() == 1:
        return module
    return _converted(module)  # type: ignore[return-value]


def _converted(module: nn.Module) -> nn.Module:
    if type(module) is nn.BatchNorm2d:
        return _globalised(module)
    for name, child in module.named_children():
        setattr(module, name, _converted(child))
    return module


def _globalised(norm: nn.BatchNorm2d) -> GlobalBatchNorm2d:
    made = GlobalBatchNorm2d(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
    )
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)
