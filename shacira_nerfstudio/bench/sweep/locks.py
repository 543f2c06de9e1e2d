"""Locks that end with the processes that hold them, however those end.

They are locks of files, known to all machines that share the file system if it keeps them (NFS from
version 4 on). Windows has none of the kind, nobody is kept out there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.1


class LockedError(OSError):
    """Somebody else holds the lock."""


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float = 0.0) -> Iterator[int]:
    """Holds the lock of a file, which is made and stays.

    Args:
        wait_s: How long to wait for it.

    Yields:
        The file's handle: processes that inherit it hold the lock, too, until the last has ended.

    Raises:
        LockedError: it was not free in time.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        end = time.monotonic() + wait_s
        while not _try(handle):
            if time.monotonic() >= end:
                raise LockedError(
                    f"expected {path} to be free, found another process that holds it"
                )
            time.sleep(_POLL_S)
        yield handle
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock of a file now."""
    if not path.exists():
        return False
    try:
        with locked(path):
            return False
    except LockedError:
        return True


def _try(handle: int) -> bool:
    if os.name == "nt":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
