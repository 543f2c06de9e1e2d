"""Nothing is waited for without end: what takes too long is ended, with a name.

Calls into a browser cannot be given up, and a browser that hangs does not answer. So whoever waits
for one is set free by the end of all processes that were started.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Ends the processes that this one has started, and theirs, if a block takes longer.

    Raises:
        RuntimeError: it did; says what was waited for.
    """
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        end_children()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if is_late.is_set():
            raise RuntimeError(
                f"expected {what} within {seconds:.0f} s, it did not come"
            ) from error
        raise
    finally:
        timer.cancel()
    if is_late.is_set():
        raise RuntimeError(f"expected {what} within {seconds:.0f} s, it came too late")


def end_children() -> None:
    """Kills all processes below this one."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
