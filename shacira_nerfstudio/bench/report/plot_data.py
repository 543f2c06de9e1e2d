"""What a rate-distortion plot shows, whatever it is drawn with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from shacira_nerfstudio.bench.report.published import published_for
from shacira_nerfstudio.bench.report.rows import Curve

COLORS = ("#0b6e99", "#c2410c", "#3f7d20", "#7c3aed", "#b45309", "#be185d", "#0f766e", "#475569")
"""Dark enough for thin lines on white."""


@dataclass(frozen=True)
class Series:
    """One line of a plot."""

    name: str
    kind: Literal["measured", "paper", "published"]
    """Measured bytes of files; the same by the paper's accounting; figures of others."""
    points: tuple[tuple[float, float, str], ...]
    """(bytes, PSNR, what this point is), smallest first."""
    color: str


@dataclass(frozen=True)
class Plot:
    """All series of one scene at one resolution."""

    title: str
    name: str
    """For file names."""
    series: tuple[Series, ...]

    def ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of bytes and of PSNR, with a margin."""
        points = [point for series in self.series for point in series.points]
        sizes, psnrs = [p[0] for p in points], [p[1] for p in points]
        margin = 0.06 * max(max(psnrs) - min(psnrs), 1.0)
        factor = max(max(sizes) / min(sizes), 2.0) ** 0.06
        return (min(sizes) / factor, max(sizes) * factor), (
            min(psnrs) - margin,
            max(psnrs) + margin,
        )


def plots(curves: list[Curve]) -> list[Plot]:
    """A plot for each scene and resolution, with what others report on that scene."""
    groups: dict[tuple[str, tuple[int, int]], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.scene, curve.resolution), []).append(curve)
    result = []
    for (scene, resolution), members in groups.items():
        width, height = resolution
        series = _measured(members) + _published(scene, resolution, len(members))
        title = f"{scene}, {width}x{height}, held-out views"
        result.append(Plot(title, f"rd-{file_name(scene)}-{width}x{height}", tuple(series)))
    return result


def file_name(text: str) -> str:
    """A text as part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)


def _measured(curves: list[Curve]) -> list[Series]:
    result = []
    for index, curve in enumerate(curves):
        color = COLORS[index % len(COLORS)]
        points = tuple((p.bytes, p.psnr, p.label) for p in curve.points)
        result.append(Series(curve.name, "measured", points, color))
        paper = sorted((p.paper_bytes, p.psnr, p.label) for p in curve.points)
        result.append(Series(f"{curve.name}, paper's accounting", "paper", tuple(paper), color))
    return result


def _published(scene: str, resolution: tuple[int, int], used: int) -> list[Series]:
    result = []
    for entry in published_for(scene):
        points = [
            (size, psnr, entry.source) for size, psnr in sorted(entry.points) if psnr is not None
        ]
        if not points:
            continue
        size = entry.resolution
        differs = "" if size == resolution else ", resolution not stated"
        if size is not None and size != resolution:
            differs = f", {size[0]}x{size[1]}"
        color = COLORS[(used + len(result)) % len(COLORS)]
        result.append(
            Series(f"{entry.system} (published{differs})", "published", tuple(points), color)
        )
    return result


def byte_ticks(low: float, high: float) -> list[float]:
    """Round multiples of powers of ten within a range, fewer the wider it is."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ratio = high / low
    steps = (1,) if ratio > 300 else (1, 2, 5) if ratio > 6 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    return [s * 10**p for p in powers for s in steps if low <= s * 10**p <= high]


def byte_text(size: float) -> str:
    """In kB or MB of 10^3 and 10^6 bytes."""
    return f"{size / 1e6:g} MB" if size >= 1e6 else f"{size / 1e3:g} kB"
