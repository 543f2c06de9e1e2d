"""How far a sweep is, redrawn in place on a terminal; elsewhere its lines say enough."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from shacira_nerfstudio.bench.sweep.engine import Progress, Say
from shacira_nerfstudio.bench.sweep.tasks import doing
from shacira_nerfstudio.progress import duration

_MAX_ROWS = 16
"""Runs that are shown; a cluster may have more."""


@contextlib.contextmanager
def shown() -> Iterator[tuple[Say, Callable[[Progress], None]]]:
    """What says lines, and what shows progress."""
    if not sys.stdout.isatty():
        yield lambda line: print(line, flush=True), lambda progress: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.markup import escape

    console, begin = Console(), time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield (
            lambda line: console.print(escape(line), highlight=False),
            lambda progress: live.update(_table(progress, begin), refresh=True),
        )


def _table(progress: Progress, begin: float):
    from rich.markup import escape
    from rich.table import Table

    now = time.monotonic()
    table = Table(title=summary_line(progress, now - begin), expand=True, title_justify="left")
    table.add_column("run", ratio=2, no_wrap=True)
    table.add_column("for", justify="right", no_wrap=True)
    table.add_column("does", ratio=3, no_wrap=True)
    for cells in rows_of(progress, now):
        table.add_row(*map(escape, cells))
    return table


def summary_line(progress: Progress, seconds: float) -> str:
    """Counts of jobs."""
    counts = [f"{progress.num_done} of {len(progress.jobs)} done", f"{len(progress.running)} run"]
    counts += [f"{len(progress.waiting)} wait", f"{len(progress.failures)} failed"]
    return ", ".join(counts) + f"; {duration(seconds)}"


def rows_of(progress: Progress, now: float) -> list[tuple[str, str, str]]:
    """Title, time and occupation of the runs that were started first."""
    titles = {job.key: job.title for job in progress.jobs}
    first = sorted(progress.running.items(), key=lambda item: item[1])
    rows = [
        (titles[key], duration(now - since), doing(progress.folder(key)))
        for key, since in first[:_MAX_ROWS]
    ]
    more = len(first) - len(rows)
    return [*rows, (f"and {more} more", "", "")] if more else rows
