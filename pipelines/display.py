"""What runs, how far it is and when the whole is done: redrawn on a terminal, a line an event in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.launch import log_of
from pipelines.schedule import Schedule

TAIL = 4096


def last_line(log: Path) -> str:
    """The last line of a log that says something, shortened to what fits."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - TAIL, 0))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except FileNotFoundError:
        return ""
    return next((line for line in reversed(lines) if line), "")


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display:
    """Shows a schedule.

    Args:
        schedule: What runs and what is done.
        logs: Folder of the stages' logs.
        started: ``time.monotonic()`` at the start of each running stage.
    """

    def __init__(self, schedule: Schedule, logs: Path, started: Mapping[str, float]) -> None:
        self.schedule, self.logs, self.started = schedule, logs, started
        self.live: Any = None
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(self._table(), refresh_per_second=2)
            self.live.start()

    def say(self, line: str) -> None:
        """An event; it stays on the screen above the table."""
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def refresh(self) -> None:
        """Redraw the table."""
        if self.live is not None:
            self.live.update(self._table())

    def close(self) -> None:
        """End the display."""
        if self.live is not None:
            self.live.stop()

    def count(self) -> str:
        """How many stages are done, and how long the others will take at least."""
        schedule = self.schedule
        left = schedule.left(self._elapsed())
        ahead = f", about {clock(left)} left" if schedule.seconds and left > 0 else ""
        return f"{len(schedule.done)}/{len(schedule.needs)}{ahead}"

    def _elapsed(self) -> dict[str, float]:
        now = time.monotonic()
        return {stage: now - begun for stage, begun in self.started.items()}

    def _table(self) -> Any:
        """A bar for the whole, then a line for each running stage: its name, its time, what it said last."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        schedule = self.schedule
        whole = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=len(schedule.needs), completed=len(schedule.done), width=30)
        whole.add_row(bar, Text(self.count()))
        stages = Table.grid(padding=(0, 2))
        stages.add_column(no_wrap=True)
        stages.add_column(justify="right", no_wrap=True)
        stages.add_column(no_wrap=True, overflow="ellipsis")
        for stage, seconds in self._elapsed().items():
            stages.add_row(Text(stage), clock(seconds), Text(last_line(log_of(self.logs, stage))))
        return Group(whole, stages)
