"""What a person moves a robot with: a keyboard, a gamepad, a window that also shows the robot, or a script."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robotrl.types import RobotRLError

KEEP, DISCARD, QUIT = "enter", "backspace", "escape"
"""Keys that end an episode: it is saved, it is dropped, and the recording stops."""

View = Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Command:
    """What is held down, and how far each stick is from its middle, in [-1, 1]."""

    held: frozenset[str] = frozenset()
    axes: dict[int, float] = field(default_factory=dict)


class Device(Protocol):
    """Where commands come from."""

    paced: bool
    """Whether steps take as long as on the robot."""

    def poll(self) -> Command:
        """What the person does now."""
        ...

    def show(self, view: View, text: str) -> None:
        """Let them see the robot, as far as the device can; `view` draws it, `text` says what it is about."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


class Script:
    """Plays a list of keys from a text: a line `20 w e` holds w and e for 20 steps, `5` waits, `#` begins a remark.

    Raises:
        RobotRLError: a line cannot be read.
    """

    paced = False

    def __init__(self, text: str) -> None:
        self._steps: list[frozenset[str]] = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if not words[0].isdigit():
                raise RobotRLError(f"Line {number} of the script is '{line.strip()}'. Write steps and keys: 20 w e")
            self._steps += [frozenset(words[1:])] * int(words[0])
        self._steps.reverse()

    def poll(self) -> Command:
        """The next step's keys; `escape` when the script is over."""
        return Command(self._steps.pop() if self._steps else frozenset({QUIT}))

    def show(self, view: View, text: str) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Nothing to give back."""


class Terminal:
    """The keyboard of the terminal that the program runs in, which needs no display.

    A terminal does not say when a key is let go, only that it came again; a key counts as held for a moment.

    Raises:
        RobotRLError: there is no terminal.
    """

    paced = True
    HELD_S = 0.12
    """How long a key counts as held: longer than the usual pause between repeats, shorter than a mishap."""
    _NAMES = {"\r": KEEP, "\n": KEEP, "\x7f": DISCARD, "\b": DISCARD, "\x1b": QUIT, " ": "space"}  # noqa: RUF012

    def __init__(self, file: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file or sys.stdin, clock
        if not self._file.isatty():
            raise RobotRLError("There is no terminal to read keys from. Use device=window, device=gamepad or script=.")
        self._number = self._file.fileno()
        self._before = termios.tcgetattr(self._number)
        tty.setcbreak(self._number)
        self._until: dict[str, float] = {}
        self._text = ""

    def poll(self) -> Command:
        """Keys that came within the last moment."""
        now = self._clock()
        while select.select([self._number], [], [], 0)[0]:
            for key in os.read(self._number, 64).decode(errors="ignore"):
                self._until[self._NAMES.get(key, key.lower())] = now + self.HELD_S
        self._until = {key: until for key, until in self._until.items() if until > now}
        return Command(frozenset(self._until))

    def show(self, view: View, text: str) -> None:
        """The text, once, when it changes."""
        if text != self._text:
            self._text = text
            sys.stderr.write(f"\r{text}\n")

    def close(self) -> None:
        """Put the terminal back as it was."""
        termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)


class Gamepad:
    """A gamepad as Linux offers it (`/dev/input/js0`); button n is the key `button<n>`.

    Raises:
        RobotRLError: there is none.
    """

    paced = True
    DEAD = 0.08
    """Sticks rest this far from their middle."""
    _EVENT = struct.Struct("IhBB")
    _KEYS = {0: KEEP, 1: DISCARD, 7: QUIT}  # noqa: RUF012

    def __init__(self, path: str | Path = "/dev/input/js0") -> None:
        try:
            self._number: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise RobotRLError(
                f"There is no gamepad at {path}: {error.strerror}. Plug one in, or use device=keyboard."
            ) from error
        self._axes: dict[int, float] = {}
        self._held: set[str] = set()

    def poll(self) -> Command:
        """Sticks and buttons as they are.

        Raises:
            RobotRLError: it was unplugged.
        """
        with contextlib.suppress(BlockingIOError):
            while self._number is not None and (data := os.read(self._number, self._EVENT.size)):
                if len(data) < self._EVENT.size:
                    raise RobotRLError("The gamepad sent half an event; is it still plugged in?")
                _, value, kind, number = self._EVENT.unpack(data)
                if kind & 0x7F == 1:
                    key = self._KEYS.get(number, f"button{number}")
                    (self._held.add if value else self._held.discard)(key)
                elif kind & 0x7F == 2:
                    share = max(-1.0, value / 32767)
                    self._axes[number] = 0.0 if abs(share) < self.DEAD else share
        return Command(frozenset(self._held), dict(self._axes))

    def show(self, view: View, text: str) -> None:
        """The text."""
        sys.stderr.write(f"\r{text}\x1b[K")

    def close(self) -> None:
        """Close the device."""
        if self._number is not None:
            os.close(self._number)
            self._number = None


class Window:
    """A window that shows the robot and takes keys, by Matplotlib; it needs a display.

    Raises:
        RobotRLError: there is no display.
    """

    paced = True

    def __init__(self) -> None:
        import matplotlib.pyplot as plt

        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
            raise RobotRLError("There is no display for a window. Use device=keyboard, device=gamepad or script=.")
        for keys in [key for key in plt.rcParams if key.startswith("keymap.")]:
            plt.rcParams[keys] = []  # they are the robot's now
        self._plt, self._held = plt, set[str]()
        self._figure = plt.figure(figsize=(6.4, 5.2))
        self._axes = self._figure.add_axes((0, 0, 1, 0.92))
        self._axes.set_axis_off()
        self._image: Any = None
        self._closed = False
        connect = self._figure.canvas.mpl_connect
        connect("key_press_event", lambda event: self._held.add(str(event.key)))
        connect("key_release_event", lambda event: self._held.discard(str(event.key)))
        connect("close_event", lambda _: setattr(self, "_closed", True))
        plt.show(block=False)

    def poll(self) -> Command:
        """Keys that are down; closing the window stops the recording."""
        self._figure.canvas.flush_events()
        return Command(frozenset({QUIT} if self._closed else self._held))

    def show(self, view: View, text: str) -> None:
        """A picture of the robot under the text."""
        picture = view()
        if self._image is None:
            self._image = self._axes.imshow(picture)
        self._image.set_data(picture)
        self._figure.suptitle(text, fontsize=9)
        self._figure.canvas.draw_idle()

    def close(self) -> None:
        """Close the window."""
        self._plt.close(self._figure)


def open_device(kind: str, script: str | Path | None = None, gamepad: str = "/dev/input/js0") -> Device:
    """The device named `keyboard` (a window where there is a display), `window`, `terminal`, `gamepad`, or a script.

    Raises:
        RobotRLError: an unknown name, or it is not there.
    """
    if script is not None:
        try:
            return Script(Path(script).read_text(encoding="utf-8"))
        except OSError as error:
            raise RobotRLError(f"The script {script} cannot be read: {error.strerror}.") from error
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    makers: dict[str, Callable[[], Device]] = {
        "window": Window,
        "terminal": Terminal,
        "gamepad": lambda: Gamepad(gamepad),
        "keyboard": Window if shown else Terminal,
    }
    if kind not in makers:
        raise RobotRLError(f"Unknown device '{kind}'. There are: keyboard, window, terminal, gamepad; or give script=.")
    return makers[kind]()


__all__ = ["DISCARD", "KEEP", "QUIT", "Command", "Device", "Gamepad", "Script", "Terminal", "Window", "open_device"]
