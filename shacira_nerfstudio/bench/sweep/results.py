"""The file of results: JSON lines that only grow, each job once, whoever is killed and when.

One process at a time holds the file. A line is written by one call and reaches the disk before
anybody hears of it; half a line, which a killed process may leave at the end, is cut off by the
next one, whose job it still has to do.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench.report.rows import load_rows
from shacira_nerfstudio.bench.sweep.locks import LockedError, locked

_BEGIN = b'{"key": '
"""Of every line."""


class Results:
    """An open file of results; see :func:`open_results`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = keys_of(path)

    def append(self, row: dict[str, Any]) -> bool:
        """Adds a row; False if its job has one."""
        if row["key"] in self.keys:
            return False
        line = (json.dumps(row) + "\n").encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            before = os.fstat(handle).st_size
            if os.write(handle, line) != len(line):
                os.ftruncate(handle, before)
                raise OSError(f"expected room for a line in {self.path}, found none")
            os.fsync(handle)
        finally:
            os.close(handle)
        self.keys.add(row["key"])
        return True


def keys_of(path: Path) -> set[str]:
    """Jobs whose results are there."""
    return {row["key"] for row in load_rows([path])} if path.exists() else set()


@contextlib.contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """The file to append to, for this process alone.

    Raises:
        OSError: another process appends to it.
        ValueError: naming the line that is no row.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    try:
        with locked(lock):
            _cut_half_line(path)
            yield Results(path)
    except LockedError:
        raise OSError(
            f"expected to be alone with {path}, found another sweep that appends to it"
        ) from None


def _cut_half_line(path: Path) -> None:
    """A line without its end is one that a killed process was writing."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if not rest or rest[: len(_BEGIN)] != _BEGIN[: len(rest)]:
            return  # nothing, or nothing of ours: reading it will say so
        with contextlib.suppress(ValueError):
            if isinstance(json.loads(rest), dict):  # whole: somebody's editor ate its end
                file.write(b"\n")
                return
        file.truncate(end)
