"""Rate-distortion plots as one HTML page that needs nothing else: SVG, a tooltip on each point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from shacira_nerfstudio.bench.report.plot_data import Plot, Series, byte_text, byte_ticks

_WIDTH, _HEIGHT = 860, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 46
_DASHES = {"measured": "", "paper": "6 4", "published": "2 4"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff;
       max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
svg { width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; fill: #374151; }
.grid { stroke: #e5e7eb; } .line { fill: none; } circle:hover { stroke: #111; stroke-width: 2; }
ul { list-style: none; padding: 0; columns: 2; font-size: 14px; }
.key { display: inline-block; width: 2em; margin-right: .5em; vertical-align: middle;
       border-top: 3px solid; }
.paper { border-top-style: dashed; opacity: .6; } .published { border-top-style: dotted; }
"""
Scale = Callable[[float], float]


def render_page(plots: Sequence[Plot], notes: str) -> str:
    """The whole page; ``notes`` is plain text that stands below the heading."""
    parts = [_section(plot) for plot in plots]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Rate and distortion</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Rate and distortion</h1>\n<p>{escape(notes)}</p>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(plot: Plot) -> str:
    keys = "".join(
        f'<li><span class="key {series.kind}" style="border-color: {series.color}"></span>'
        f"{escape(series.name)}</li>"
        for series in plot.series
    )
    return f"<h2>{escape(plot.title)}</h2>\n{_svg(plot)}\n<ul>{keys}</ul>"


def _svg(plot: Plot) -> str:
    (low, high), (bottom, top) = plot.ranges()
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    span = math.log(high / low)

    def x_of(size: float) -> float:
        return _LEFT + across * math.log(size / low) / span

    def y_of(psnr: float) -> float:
        return _TOP + up * (top - psnr) / (top - bottom)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(plot.title)}">',
        *_axes(byte_ticks(low, high), _psnr_ticks(bottom, top), x_of, y_of),
        *(_line(series, x_of, y_of) for series in plot.series),
        "</svg>",
    ]
    return "\n".join(parts)


def _psnr_ticks(bottom: float, top: float) -> list[float]:
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if (top - bottom) / s <= 10)
    first, last = math.ceil(bottom / step), math.floor(top / step)
    return [round(index * step, 6) for index in range(first, last + 1)]


def _axes(sizes: list[float], psnrs: list[float], x_of: Scale, y_of: Scale) -> list[str]:
    end = _HEIGHT - _BOTTOM
    parts = []
    for size in sizes:
        x = f"{x_of(size):.1f}"
        parts.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{end}"/>')
        parts.append(f'<text x="{x}" y="{end + 18}" text-anchor="middle">{byte_text(size)}</text>')
    for psnr in psnrs:
        y = y_of(psnr)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{psnr:g}</text>')
    middle = (_TOP + end) / 2
    parts.append(
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        "size of the file</text>"
    )
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        "PSNR, dB</text>"
    )
    return parts


def _line(series: Series, x_of: Scale, y_of: Scale) -> str:
    places = [(x_of(size), y_of(psnr)) for size, psnr, _ in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    width, opacity = (2.2, 1) if series.kind == "measured" else (1.3, 0.75)
    parts = [
        f'<polyline class="line" points="{path}" stroke="{series.color}" stroke-width="{width}" '
        f'stroke-dasharray="{_DASHES[series.kind]}" opacity="{opacity}"/>'
    ]
    for (x, y), (size, psnr, label) in zip(places, series.points, strict=True):
        text = f"{series.name}\n{label}\n{psnr:.2f} dB, {size:,.0f} bytes"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if series.kind == "measured" else 3}" '
            f'fill="{series.color}"><title>{escape(text)}</title></circle>'
        )
    return "\n".join(parts)
