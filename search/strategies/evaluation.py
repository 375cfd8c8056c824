"""Accuracies of whole architectures: what random search, evolution and local search ask for, and who answers.

A method proposes a genotype, an :class:`Evaluator` says how accurate it is. Today's evaluator trains the network; one
that looks accuracies up in a tabular benchmark has the same three methods and makes a search cost nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, Protocol

from search.flips import Flips, SignWatch
from search.genotype import Genotype
from search.network import Network
from search.strategies.base import Context, SearchResult, Strategy
from search.strategies.diagnostics import mean_share
from search.strategies.ties import best_of
from search.training import rng_state, seed_all, set_rng_state


class Measured(NamedTuple):
    """What an evaluator knows after a step.

    Attributes:
        accuracy: On the validation half, in [0, 1].
        loss: Training loss of the step; None where nothing is trained.
        flips: Signs of 1-bit weights that changed in the step; None where nothing is trained.
    """

    accuracy: float
    loss: float | None
    flips: Flips | None


class Evaluator(Protocol):
    """Gives the validation accuracy of an architecture, in steps that a driver can save between.

    Attributes:
        steps: Steps of one evaluation; the accuracy after the last one counts.
    """

    steps: int

    def start(self, genotype: Genotype, index: int) -> None:
        """Begin the evaluation of a genotype, the ``index``-th of this search."""
        ...

    def advance(self, step: int, overall: int) -> Measured:
        """Do step ``step`` of this evaluation, which is step ``overall`` of the search."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the present evaluation depends on besides its genotype and index."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave, after :meth:`start`."""
        ...


class TrainedAccuracy:
    """Trains each architecture's network from its own initialisation; a step is an epoch.

    Args:
        context: Data, space, budget.
        epochs: Epochs of each network.
    """

    def __init__(self, context: Context, epochs: int) -> None:
        self.context, self.steps = context, epochs

    def start(self, genotype: Genotype, index: int) -> None:
        """A fresh network; its initialisation is the search seed's and the index's, whatever was trained before."""
        state = rng_state()
        seed_all(self.context.seed * 1000 + index)
        config = self.context.space.network_config(self.context.train.classes)
        self.network = self.context.place(Network(genotype, config))
        set_rng_state(state)
        self.optimiser = self.context.optimiser(self.network.parameters())

    def advance(self, step: int, overall: int) -> Measured:
        """One epoch over the train half, then the accuracy on the validation half."""
        watch = SignWatch(self.network)
        loss = self.context.train_epoch(
            self.network, list(self.network.parameters()), self.optimiser, overall, step / self.steps
        )
        return Measured(self.context.evaluate(self.network, self.network).accuracy, loss, watch.flips())

    def state_dict(self) -> dict[str, Any]:
        """The network and its optimiser."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])


class Found(NamedTuple):
    """An architecture whose accuracy is known."""

    genotype: Genotype
    accuracy: float


class ProposalSearch(Strategy):
    """Ask for the accuracies of n architectures one after the other; the best of them is the result.

    A method is what it proposes next, a function of the seed and of all answers so far and of nothing else: so a run
    that goes on from a saved state needs no state of the method.

    Args:
        context: What the method works with.
        architectures: n.
        evaluator: Who answers.
    """

    def __init__(self, context: Context, architectures: int, evaluator: Evaluator) -> None:
        super().__init__(context)
        self.architectures, self.evaluator = architectures, evaluator
        self.found: list[Found] = []
        self.flip_shares: list[float] = []
        self._start()

    @abstractmethod
    def propose(self, found: list[Found]) -> Genotype:
        """The genotype to evaluate after those that were found, in their order."""

    @property
    def total_steps(self) -> int:
        """n evaluations of the evaluator's steps."""
        return self.architectures * self.evaluator.steps

    def _start(self) -> None:
        self.present = self.propose(self.found)
        self.evaluator.start(self.present, len(self.found))
        self.started = True

    def step(self, index: int) -> list[dict[str, Any]]:
        """One step of the present evaluation; after its last one the accuracy counts."""
        which, step = divmod(index, self.evaluator.steps)
        if not self.started:
            self._start()
        measured = self.evaluator.advance(step, index)
        if step == self.evaluator.steps - 1:
            self.found.append(Found(self.present, measured.accuracy))
            self.started = False
        flips = measured.flips
        self.flip_shares += [] if flips is None or flips.share is None else [flips.share]
        return [
            {
                "step": index,
                "architecture": which,
                "epoch": self.context.budget.epochs,
                "accuracy": measured.accuracy,
                "loss": measured.loss,
                "images_seen": self.context.budget.images_seen,
                "sign_flips": None if flips is None else flips.changed,
                "sign_flip_share": None if flips is None else flips.share,
                "genotype": self.present.hash,
            }
        ]

    def state_dict(self) -> dict[str, Any]:
        """The answers so far and the open evaluation, if one is."""
        return {
            "found": [(found.genotype.to_dict(), found.accuracy) for found in self.found],
            "flip_shares": self.flip_shares,
            "started": self.started,
            "evaluator": self.evaluator.state_dict() if self.started else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back a state."""
        self.found = [Found(Genotype.from_dict(value), accuracy) for value, accuracy in state["found"]]
        self.flip_shares, self.started = state["flip_shares"], state["started"]
        if self.started:
            self._start()
            self.evaluator.load_state_dict(state["evaluator"])

    def result(self) -> SearchResult:
        """The genotype with the best validation accuracy; of equals a drawn one."""
        accuracies = [found.accuracy for found in self.found]
        best, equals = best_of(accuracies, self.context.seed, "best architecture")
        table = [
            {"architecture": index, "accuracy": found.accuracy, "genotype": found.genotype.hash}
            for index, found in enumerate(self.found)
        ]
        metrics = {"tie_share": float(equals > 1), "sign_flip_share": mean_share(self.flip_shares)}
        return SearchResult(
            self.found[best].genotype, accuracies[best], {"architectures.csv": table}, metrics
        )
