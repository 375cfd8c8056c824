"""Signal against noise: whether the means by which operations are dropped differ by more than chance alone would do."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, variance
from typing import Any, NamedTuple

Draws = Sequence[dict[int, list[float]]]
"""For each edge, z of every draw of an operation, in the order of the rounds."""


class Signal(NamedTuple):
    """Variances of the operations' mean z on an edge, mean over edges.

    Attributes:
        observed: As found.
        binomial: Expected if accuracies differed by the binomial error of the validation half alone.
        repeated: Expected from how much z differs between the draws of one operation: binomial error, the other
            edges' operations, and the order in which a round's architectures are trained. None where every
            operation was drawn once.
    """

    observed: float
    binomial: float
    repeated: float | None

    @property
    def share(self) -> float | None:
        """1 - binomial / observed: 0 and below says that A_C and A_P are noise; None without any difference."""
        return _share(self.binomial, self.observed)

    @property
    def effect_share(self) -> float | None:
        """1 - repeated / observed: 0 and below says that *operations* explain nothing of what was observed."""
        return None if self.repeated is None else _share(self.repeated, self.observed)


def _share(noise: float, observed: float) -> float | None:
    return 1 - noise / observed if observed > 0 else None


def binomial_variance(
    accuracy_child: float, accuracy_parent: float | None, beta: float, images: int
) -> float:
    """Variance of z = beta A_P + (1 - beta) A_C (4.15), each accuracy a mean over ``images`` independent answers."""
    child = accuracy_child * (1 - accuracy_child) / images
    if accuracy_parent is None:
        return child
    return beta**2 * accuracy_parent * (1 - accuracy_parent) / images + (1 - beta) ** 2 * child


def measure(draws: Draws, variances: Sequence[float]) -> Signal:
    """Signal before one elimination, for which each of K operations was drawn once in each of T rounds.

    Every operation meets every round, so that what a round has in common (training goes on) leaves the operations'
    means comparable; the spread of one operation's draws is taken after the round's mean is subtracted.

    Args:
        draws: z by edge, operation and round.
        variances: :func:`binomial_variance` of every draw.
    """
    rounds = len(next(iter(draws[0].values())))
    observed = fmean(variance(fmean(values) for values in edge.values()) for edge in draws)
    repeated = None if rounds == 1 else fmean(_within(edge, rounds) for edge in draws) / rounds
    return Signal(observed, fmean(variances) / rounds, repeated)


def _within(edge: dict[int, list[float]], rounds: int) -> float:
    """Variance between the draws of one operation, rounds' means removed: (T - 1)(K - 1) degrees of freedom."""
    operations = list(edge.values())
    by_round = [fmean(values[t] for values in operations) for t in range(rounds)]
    whole = fmean(by_round)
    total = sum(
        (value - fmean(values) - by_round[t] + whole) ** 2
        for values in operations
        for t, value in enumerate(values)
    )
    return total / ((rounds - 1) * (len(operations) - 1))


def combined(signals: Sequence[Signal]) -> Signal:
    """The signal of a whole search: mean variances of its stages."""
    repeated = [signal.repeated for signal in signals if signal.repeated is not None]
    return Signal(
        fmean(signal.observed for signal in signals),
        fmean(signal.binomial for signal in signals),
        fmean(repeated) if repeated else None,
    )


def columns(signal: Signal) -> dict[str, Any]:
    """``signal_share`` and ``effect_share``, columns of rounds.csv and metrics of a search's record."""
    return {"signal_share": signal.share, "effect_share": signal.effect_share}
