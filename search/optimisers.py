"""SGD, Adam and AdamW in single multiplications, additions, divisions and roots, each rounded by itself.

PyTorch's own steps join a multiplication and an addition where the CPU can (fused multiply-add), and so give other
last bits on CPUs that cannot. These have torch's state, arguments and equations, for real gradients and without the
options that the suite does not use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def _used(optimiser: torch.optim.Optimizer) -> Iterator[tuple[dict[str, Any], list[Tensor], list[Tensor]]]:
    """Every group with its parameters that have gradients, and these, not to be changed."""
    for group in optimiser.param_groups:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if parameters:
            yield group, parameters, [parameter.grad for parameter in parameters]


def _closed(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class SGD(torch.optim.SGD):
    """``torch.optim.SGD`` with momentum and weight decay: b <- momentum b + (g + decay p), p <- p - rate b."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step."""
        loss = _closed(closure)
        for group, parameters, gradients in _used(self):
            if group["nesterov"] or group["maximize"] or group["dampening"]:
                raise ValueError("this SGD has neither Nesterov's momentum nor dampening, and minimises")
            if group["weight_decay"]:
                decay = torch._foreach_mul(parameters, group["weight_decay"])
                gradients = list(torch._foreach_add(decay, gradients))
            if group["momentum"]:
                gradients = [
                    self._moved(parameter, gradient, group["momentum"])
                    for parameter, gradient in zip(parameters, gradients, strict=True)
                ]
            torch._foreach_sub_(parameters, torch._foreach_mul(gradients, group["lr"]))
        return loss

    def _moved(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        buffer: Tensor | None = self.state[parameter].get("momentum_buffer")
        if buffer is None:
            buffer = self.state[parameter]["momentum_buffer"] = gradient.clone()
        else:
            buffer.mul_(momentum).add_(gradient)
        return buffer


class Adam(torch.optim.Adam):
    """``torch.optim.Adam``; its weight decay is added to the gradient, that of :class:`AdamW` is not."""

    decoupled = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step."""
        loss = _closed(closure)
        for group, parameters, gradients in _used(self):
            if group["amsgrad"] or group["maximize"]:
                raise ValueError("this Adam has no AMSGrad, and minimises")
            rate, decay = group["lr"], group["weight_decay"]
            if decay and self.decoupled:
                torch._foreach_mul_(parameters, 1 - rate * decay)
            elif decay:
                gradients = list(torch._foreach_add(torch._foreach_mul(parameters, decay), gradients))
            self._move(parameters, gradients, rate, group["betas"], group["eps"])
        return loss

    def _move(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        rate: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        b1, b2 = betas
        states = [self._state(parameter) for parameter in parameters]
        first, second = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_mul_(first, b1)
        torch._foreach_add_(first, torch._foreach_mul(gradients, 1 - b1))
        torch._foreach_mul_(second, b2)
        torch._foreach_add_(second, torch._foreach_mul(torch._foreach_mul(gradients, gradients), 1 - b2))
        roots = list(torch._foreach_sqrt(second))
        steps = [int(state["step"]) for state in states]
        torch._foreach_div_(roots, [math.sqrt(1 - b2**step) for step in steps])
        torch._foreach_add_(roots, eps)
        moves = list(torch._foreach_div(first, roots))
        torch._foreach_mul_(moves, [rate / (1 - b1**step) for step in steps])
        torch._foreach_sub_(parameters, moves)

    def _state(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
        state["step"] += 1
        return state


class AdamW(Adam):
    """``torch.optim.AdamW``: weights shrink by rate times decay, beside the step."""

    decoupled = True

    def __init__(self, parameters: Any, lr: float = 1e-3, weight_decay: float = 1e-2, **options: Any) -> None:
        super().__init__(parameters, lr, weight_decay=weight_decay, **options)


def clip_gradients(parameters: list[nn.Parameter], largest: float) -> None:
    """``nn.utils.clip_grad_norm_``: scale the gradients so that all together have at most this norm.

    The squares are added in float64.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    squares = [gradient.double().square().sum() for gradient in gradients]
    norm = torch.sqrt(torch.stack(squares).sum())
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
