"""How far a run is: a live bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from robotrl.logging import Row
from robotrl.runners.hooks import LoggingHook
from robotrl.types import Metrics, Progress

PLAIN_EVERY_S = 10.0
_WINDOW_S = 15.0


class ProgressHook:
    """Shows env steps, rate, return and the time left; counts what was not finite. Writes to stderr."""

    def __init__(self, progress: Progress, log: LoggingHook) -> None:
        # All of it here, before training: rich draws from Python's random stream when it is first imported.
        from rich import progress as rich_progress
        from rich.console import Console

        self._rich = rich_progress
        self._progress, self._log = progress, log
        self._console = Console(stderr=True)
        self._live: Any = None
        self._marks: deque[tuple[float, int]] = deque()
        self._said_at = time.perf_counter()
        self._returns: dict[str, float] = {}
        self._nonfinite = 0

    def start(self) -> None:
        """Show the bar, where there is a terminal."""
        self._marks.append((time.perf_counter(), self._progress.env_steps))
        if self._console.is_terminal or self._console.is_jupyter:
            self._live = self._bar()
            self._live.start()
            self._task = self._live.add_task("train", total=self._progress.total_env_steps, detail="starting")
            self._live.update(self._task, completed=self._progress.env_steps)

    def _bar(self) -> Any:
        rich = self._rich
        columns = (rich.TextColumn("train"), rich.BarColumn(bar_width=30), rich.TaskProgressColumn())
        return rich.Progress(
            *columns, rich.TextColumn("{task.fields[detail]}"), console=self._console, refresh_per_second=4
        )

    def stop(self) -> None:
        """Take the bar away, its last state stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, iteration: int, metrics: Metrics) -> None:
        """Take the newest row; drawing happens a few times a second at most."""
        row, now = self._log.row, time.perf_counter()
        self._take(row)
        self._marks.append((now, self._progress.env_steps))
        while len(self._marks) > 2 and now - self._marks[1][0] > _WINDOW_S:
            self._marks.popleft()
        if self._live is not None:
            self._live.update(self._task, completed=self._progress.env_steps, detail=self.detail())
        elif now - self._said_at >= PLAIN_EVERY_S or self._progress.fraction >= 1.0:
            self._said_at = now
            done = f"{self._progress.env_steps:,} of {self._progress.total_env_steps:,} env steps"
            self._console.print(
                f"{done} ({self._progress.fraction:.0%})  {self.detail()}", highlight=False, soft_wrap=True
            )

    def _take(self, row: Row) -> None:
        for name in ("train/return", "eval/return"):
            if name in row:
                self._returns[name] = row[name]
        self._nonfinite += int(sum(v for k, v in row.items() if k.endswith("/nonfinite") and v == v))

    def rate(self) -> float:
        """Env steps a second over the last quarter of a minute."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(end - start, 1e-9)

    def detail(self) -> str:
        """Rate, returns, time left, and trouble if there was any."""
        rate = self.rate()
        parts = [f"{rate:,.0f} env steps/s"]
        if "train/return" in self._returns:
            parts.append(f"return {self._returns['train/return']:.1f}")
        if "eval/return" in self._returns:
            parts.append(f"eval {self._returns['eval/return']:.1f}")
        left = (self._progress.total_env_steps - self._progress.env_steps) / rate if rate > 0 else 0.0
        parts.append(f"ETA {_clock(left)}")
        if self._nonfinite:
            parts.append(f"{self._nonfinite} non-finite gradients")
        return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(max(0.0, seconds) + 0.5), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}"


__all__ = ["PLAIN_EVERY_S", "ProgressHook"]
