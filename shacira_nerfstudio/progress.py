"""How far a long piece of work is, on standard error, so that results can be piped.

On a terminal one line is rewritten: the stage, a bar, how many, how fast, the time left. Elsewhere,
in a log or behind a pipe, whole lines come now and then, and none for what is done soon.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")
REDRAW_S, LINE_S = 0.1, 10.0
"""Least time between two states that are shown: on a terminal, and elsewhere."""
_BAR = 24


class Progress:
    """One stage of so many steps; a context manager.

    Args:
        stage: What is being done, in a word or three.
        total: Number of steps.
        unit: What a step is, in the plural.
        stream: Standard error by default.
    """

    def __init__(
        self, stage: str, total: int, *, unit: str = "", stream: TextIO | None = None
    ) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.stream = sys.stderr if stream is None else stream
        self.done = 0
        self._begin = self._shown = time.monotonic()
        # The first step also loads and compiles, so that the pace is that of the others.
        self._first: tuple[float, int] | None = None
        self._is_terminal = self.stream.isatty()

    def __enter__(self) -> Progress:
        if self._is_terminal:
            self._show(time.monotonic())
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_terminal:
            self.stream.write("\r\x1b[K")  # what was the result is said by whoever has it
            self.stream.flush()

    def advance(self, count: int = 1) -> None:
        """Counts steps that are done."""
        self.done += count
        now = time.monotonic()
        if self._first is None:
            self._first = now, self.done
        if now - self._shown >= (REDRAW_S if self._is_terminal else LINE_S):
            self._show(now)

    def seconds_left(self, now: float) -> float | None:
        """By the pace since the first step; None before there is one."""
        if self._first is None or self.done <= self._first[1]:
            return None
        since, count = self._first
        return (now - since) / (self.done - count) * (self.total - self.done)

    def text(self, now: float) -> str:
        """One line without its end."""
        left = self.seconds_left(now)
        time_left = "" if left is None else f", {duration(left)} left"
        filled = _BAR * self.done // max(self.total, 1)
        bar = f" [{'#' * filled}{'.' * (_BAR - filled)}]" if self._is_terminal else ""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.stage}{bar} {self.done} of {self.total}{unit}{time_left}"

    def _show(self, now: float) -> None:
        self._shown = now
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write(f"\r\x1b[K{self.text(now)[:width]}")
        else:
            self.stream.write(f"{self.text(now)}\n")
        self.stream.flush()


def tracked(
    items: Iterable[Item], stage: str, *, total: int, unit: str = "", stream: TextIO | None = None
) -> Iterator[Item]:
    """The same items, each counted once it has been dealt with."""
    with Progress(stage, total, unit=unit, stream=stream) as progress:
        for item in items:
            yield item
            progress.advance()


def duration(seconds: float) -> str:
    """For people: ``8 s``, ``2 min 05 s``, ``1 h 02 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
