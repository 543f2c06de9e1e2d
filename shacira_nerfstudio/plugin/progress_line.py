"""How far a long command is, on the error stream: results belong to the other one."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class ProgressLine:
    """A bar with the name of the stage on a terminal; elsewhere a line for each stage.

    Args:
        command: What is being done.
    """

    def __init__(self, command: str) -> None:
        # Looked up now, for somebody may have put another stream there.
        self._console = Console(file=sys.stderr)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._command, self._stage, self._begin = command, "", time.perf_counter()
        self._task = None

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, stage: str, done: float = 0.0) -> None:
        """Says that so much of a stage is done, from 0 to 1."""
        is_new, self._stage = stage != self._stage, stage
        if not self._console.is_terminal:
            if is_new:
                seconds = time.perf_counter() - self._begin
                print(f"{self._command}, {seconds:.0f} s: {stage}", file=sys.stderr, flush=True)
            return
        if is_new and self._task is not None:
            self._bar.remove_task(self._task)
        if is_new:
            self._task = self._bar.add_task(f"{self._command}: {stage}", total=1.0)
        assert self._task is not None
        # Stages that do not know how far they are pulse.
        self._bar.update(self._task, completed=done, total=1.0 if done else None)
