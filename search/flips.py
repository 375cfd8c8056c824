"""How many 1-bit weights change their sign: where none does, the network is not trained, whatever its loss says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.binary import quant_convs


@dataclass(frozen=True)
class Flips:
    """Signs that changed.

    Attributes:
        changed: Number of 1-bit weights whose sign is another one now.
        total: Number of 1-bit weights that were looked at.
    """

    changed: int
    total: int

    @property
    def share(self) -> float | None:
        """Changed ones over all; None where there is no 1-bit weight."""
        return self.changed / self.total if self.total else None


class SignWatch:
    """The signs of a network's 1-bit weights at one moment, to be compared with later ones.

    Whether a weight is 1 bit is what its quantiser says, so that a stage of training with real weights, and a
    real-valued network, have none. One bit and a copy of a boolean a weight: nothing beside an epoch.

    Args:
        network: Any module with :class:`search.binary.QuantConv2d` in it.
        only: Looks at these parameters alone, such as those of a drawn architecture; default all.
    """

    def __init__(self, network: nn.Module, only: list[nn.Parameter] | None = None) -> None:
        chosen = None if only is None else {id(parameter) for parameter in only}
        self.weights = [
            conv.weight
            for _, conv in quant_convs(network)
            if conv.weight_quantiser.precision == 1 and (chosen is None or id(conv.weight) in chosen)
        ]
        self.signs = [_signs(weight) for weight in self.weights]

    def flips(self) -> Flips:
        """What has changed since then."""
        changed = [
            (_signs(weight) != before).sum() for weight, before in zip(self.weights, self.signs, strict=True)
        ]
        total = sum(before.numel() for before in self.signs)
        return Flips(int(torch.stack(changed).sum()) if changed else 0, total)


def _signs(weight: Tensor) -> Tensor:
    """True for +1; ``sign(0) = +1``, as in :func:`search.binary.sign`."""
    return weight.detach() >= 0
