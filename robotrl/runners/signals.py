"""Ctrl-C asks a run to finish its iteration and save; a second one stops it at once. SIGTERM counts as the first."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """While entered, remembers that the user wants to stop; call it to ask: `train(..., stop=request)`.

    Outside the main thread, where Python takes no signals, it only answers and `request` may be called by others.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.requested

    def request(self) -> None:
        """Ask the run to stop after this iteration."""
        self.requested = True

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            said = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            sys.stderr.write(f"\n{said}: finishing this iteration and saving. Ctrl-C once more stops at once.\n")
        self.requested = True


__all__ = ["StopRequest"]
