"""Mean curves of rows, and how they compare: a table, and Bjøntegaard's rates."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from shacira_nerfstudio.bench.report.bd_rate import bd_rate

Row = dict[str, Any]
Curve = list[tuple[float, float]]
"""(bits per pixel, PSNR) by rising rate."""
ANCHOR = "SHACIRA (published)"
PLAIN = "Instant-NGP, half floats"
_MEANS = ("bpp", "psnr", "ssim", "ms_ssim", "train_seconds", "decode_seconds")


@lru_cache(maxsize=1)
def published_curves() -> dict[str, Curve]:
    """Means over Kodak that others report."""
    text = Path(__file__).with_name("published_kodak.csv").read_text(encoding="utf-8")
    curves: dict[str, Curve] = {}
    for line in csv.DictReader(text.splitlines()):
        curves.setdefault(line["system"], []).append((float(line["bpp"]), float(line["psnr"])))
    return curves


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Means over the pictures of each method and setting, by method and rate.

    Raises:
        ValueError: settings were measured on different pictures.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["setting"]), []).append(row)
    images: dict[str, set[str]] = {}
    for row in rows:
        images.setdefault(row["method"], set()).add(row["image"])
    means = []
    for (method, setting), group in groups.items():
        found = {row["image"] for row in group}
        if found != images[method]:
            raise ValueError(
                f"expected {method} at {setting} on {len(images[method])} pictures, got "
                f"{len(found)}"
            )
        mean = {name: float(np.mean([row[name] for row in group])) for name in _MEANS}
        means.append({"method": method, "setting": setting, "images": len(found), **mean})
    return sorted(means, key=lambda row: (row["method"], row["bpp"]))


def curves_of(means: Sequence[Row]) -> dict[str, Curve]:
    """Measured curves by method."""
    curves: dict[str, Curve] = {}
    for row in means:
        curves.setdefault(row["method"], []).append((row["bpp"], row["psnr"]))
    return curves


def summary_text(rows: Sequence[Row]) -> str:
    """A table of means, and the rate of each curve over the published one at equal PSNR."""
    means = mean_rows(rows)
    lines = _table(means, "images")
    lines.append(f"BD-rate against {ANCHOR}, a mean over all 24 images of Kodak:")
    for name, curve in {**curves_of(means), **published_curves()}.items():
        if name != ANCHOR:
            lines.append(f"  {name:<28}{_bd_text(published_curves()[ANCHOR], curve)}")
    return "\n".join(lines)


def video_text(rows: Sequence[Row]) -> str:
    """A table of a video's rows, and how many times the bytes a plain grid takes at equal PSNR."""
    means = mean_rows(rows)
    lines, curves = _table(means, "videos"), curves_of(means)
    for name, curve in curves.items():
        if name == PLAIN or PLAIN not in curves:
            continue
        lines.append(f"{PLAIN}, times the rate of {name} at equal PSNR:")
        for rate, psnr in curve:
            found = rate_at(curves[PLAIN], psnr)
            text = "outside of its curve" if found is None else f"{found / rate:.1f}"
            lines.append(f"  {psnr:6.2f} dB  {text}")
    return "\n".join(lines)


def rate_at(curve: Curve, psnr: float) -> float | None:
    """Bits per pixel at a quality, between the points of a curve in the logarithm of the rate; None
    outside of it."""
    points = sorted((quality, rate) for rate, quality in curve)
    if not points[0][0] <= psnr <= points[-1][0]:
        return None
    qualities, rates = zip(*points, strict=True)
    return float(np.exp(np.interp(psnr, qualities, np.log(rates))))


def _table(means: Sequence[Row], counted: str) -> list[str]:
    lines = [
        f"{'method':<26}{'setting':>10}{counted:>7}{'bpp':>8}{'PSNR':>8}{'SSIM':>8}{'MS-SSIM':>9}"
        f"{'train s':>9}{'decode s':>9}"
    ]
    for row in means:
        lines.append(
            f"{row['method']:<26}{row['setting']:>10}{row['images']:>7}{row['bpp']:>8.3f}"
            f"{row['psnr']:>8.2f}{row['ssim']:>8.4f}{row['ms_ssim']:>9.4f}"
            f"{row['train_seconds']:>9.2f}{row['decode_seconds']:>9.3f}"
        )
    return lines


def _bd_text(anchor: Curve, curve: Curve) -> str:
    try:
        return f"{bd_rate(anchor, curve):+.1f} %"
    except ValueError as error:
        return f"not comparable: {error}"
