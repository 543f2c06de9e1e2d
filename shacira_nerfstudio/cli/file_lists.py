"""Many files in one command: what is named, files and folders, and one table of what was found.

A file that fails is a row that says so, and stops no other.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from shacira_nerfstudio.progress import tracked

Files = Annotated[tuple[Path, ...], Positional, arg(metavar="FILE")]
Form = Literal["table", "csv", "jsonl"]
Row = dict[str, Any]
_LEFT = ("file", "kind", "error", "reason", "dataparser")
"""Columns of words."""


def is_list(paths: Sequence[Path]) -> bool:
    """Whether one row for each is wanted, and not all about one file.

    Raises:
        ValueError: nothing is named.
    """
    if not paths:
        raise ValueError("expected a .shacira file or a folder of such files, got none")
    return len(paths) > 1 or paths[0].is_dir()


def find_files(paths: Sequence[Path]) -> list[Path]:
    """All that is named, and all .shacira files in folders and what is below; each once.

    Raises:
        FileNotFoundError: a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*.shacira")) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(f"expected .shacira files in {path}, found none")
        found += inside
    return list(dict.fromkeys(found))


def rows_of(files: Sequence[Path], measure: Callable[[Path], Row], stage: str) -> list[Row]:
    """A row for each file, with an ``error`` instead of numbers where it failed."""
    rows = []
    for file in tracked(files, stage, total=len(files), unit="files"):
        try:
            rows.append({"file": str(file), **measure(file)})
        except (OSError, ValueError, RuntimeError) as error:
            rows.append({"file": str(file), "error": " ".join(str(error).split())})
    return rows


def list_text(rows: Sequence[Row], form: Form) -> str:
    """Rows in one of the forms: a table for people, CSV, or a JSON object a line."""
    if form == "jsonl":
        return "\n".join(json.dumps(row, sort_keys=True) for row in rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if any(row.get(name) is not None for row in rows)]
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    cells = [names, *([_shown(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(_line(line, names, widths) for line in cells)


def form_of(*, json: bool, csv: bool) -> Form:
    """By the flags that a command has."""
    if json and csv:
        raise ValueError("expected --json or --csv, got both")
    return "jsonl" if json else "csv" if csv else "table"


def num_failed(rows: Iterable[Row]) -> int:
    """How many rows are of files that failed."""
    return sum(row.get("error") is not None for row in rows)


def _line(cells: Sequence[str], names: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        cell.ljust(width) if name in _LEFT else cell.rjust(width)
        for cell, name, width in zip(cells, names, widths, strict=True)
    ]
    return "  ".join(parts).rstrip()


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def printable(text: str) -> str:
    """Without characters that move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
