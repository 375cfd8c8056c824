"""Which stage runs next: those whose inputs are there, the longest way to the end first, some of them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean


@dataclass
class Schedule:
    """The stages of a graph, and how far each is.

    Args:
        needs: For every stage, in the graph's order, the stages that must be done before it.
        jobs: How many may run at once.
        alone: Stages beside which nothing else may run, since they measure time.
        seconds: How long stages took when they last ran.
    """

    needs: Mapping[str, Sequence[str]]
    jobs: int
    alone: frozenset[str] = frozenset()
    seconds: dict[str, float] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def next(self) -> str | None:
        """The stage to start now, if there is one; a stage that runs alone waits until nothing else can run."""
        if len(self.running) >= self.jobs or self.running & self.alone:
            return None
        ready = [stage for stage in self.waiting if set(self.needs[stage]) <= self.done]
        together = [stage for stage in ready if stage not in self.alone]
        if together:
            return max(together, key=self.way)  # the first of equals: the graph's order
        return ready[0] if ready and not self.running else None

    @property
    def waiting(self) -> list[str]:
        """Stages that are to run still; none of those that a failed stage leaves without input."""
        lost = self.failed | self.left_out
        return [stage for stage in self.needs if stage not in self.running | self.done | lost]

    @property
    def left_out(self) -> set[str]:
        """All that is built on a failed stage."""
        lost: set[str] = set()
        for stage in self._in_order():
            if set(self.needs[stage]) & (self.failed | lost):
                lost.add(stage)
        return lost

    def estimate(self, stage: str) -> float:
        """Seconds that a stage will take: as last time, or as its like did, or as all did on average; 1 if unknown."""
        if stage in self.seconds:
            return self.seconds[stage]
        kind = stage.partition("@")[0]
        like = [taken for name, taken in self.seconds.items() if name.partition("@")[0] == kind]
        return fmean(like or self.seconds.values() or [1.0])

    def way(self, stage: str) -> float:
        """Seconds from the start of a stage to the end of the longest chain that is built on it."""
        return self._ways()[stage]

    def left(self, elapsed: Mapping[str, float]) -> float:
        """Seconds until all is done: the work spread over the jobs, but no less than the longest chain.

        Args:
            elapsed: Seconds that each running stage runs already.
        """
        ways = self._ways()
        rest = {s: max(self.estimate(s) - elapsed.get(s, 0.0), 0.0) for s in self.running}
        work = sum(rest.values()) + sum(self.estimate(stage) for stage in self.waiting)
        chains = [ways[s] - self.estimate(s) + rest[s] for s in self.running] + [
            ways[s] for s in self.waiting
        ]
        return max([work / self.jobs, *chains])

    def _ways(self) -> dict[str, float]:
        ways: dict[str, float] = {}
        behind: dict[str, float] = dict.fromkeys(self.needs, 0.0)
        for stage in reversed(self._in_order()):
            ways[stage] = behind[stage] + self.estimate(stage)
            for needed in self.needs[stage]:
                behind[needed] = max(behind[needed], ways[stage])
        return ways

    def _in_order(self) -> list[str]:
        """Every stage behind those that it needs."""
        order: dict[str, None] = {}

        def visit(stage: str) -> None:
            if stage not in order:
                for needed in self.needs[stage]:
                    visit(needed)
                order[stage] = None

        for stage in self.needs:
            visit(stage)
        return list(order)
