"""What others report, from ``published.csv``: every number with where it was read.

Sizes are bytes; MB and MiB of the sources are 10^6 and 2^20. None of these figures was measured
here, and few systems count the same things: ``counted`` says what a size holds. ``source`` names
how a number was had: a table or file of the system's own repository, a figure of it (digitised,
within 1 % and 0.01 dB), a claim of its paper or page, or a third party.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Published:
    """A curve of another system on one scene, or on a mean of scenes."""

    system: str
    scene: str
    resolution: tuple[int, int] | None
    """Width and height of the views; None if the source does not say."""
    points: tuple[tuple[float, float | None], ...]
    """(bytes, PSNR); PSNR is None where none was given."""
    source: str
    counted: str


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All of it, in the order of the file."""
    lines = list(csv.DictReader(_FILE.read_text(encoding="utf-8").splitlines()))
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines:
        groups.setdefault((line["system"], line["scene"]), []).append(line)
    return tuple(_curve(group) for group in groups.values())


def _curve(lines: Iterable[dict[str, str]]) -> Published:
    first, *_ = lines = list(lines)
    return Published(
        first["system"],
        first["scene"],
        (int(first["width"]), int(first["height"])) if first["width"] else None,
        tuple((int(p["bytes"]), float(p["psnr"]) if p["psnr"] else None) for p in lines),
        first["source"],
        first["counted"],
    )


def published_for(scene: str) -> tuple[Published, ...]:
    """Curves on this scene; scenes of plans are called as in the papers."""
    return tuple(entry for entry in published() if entry.scene.lower() == scene.lower())
