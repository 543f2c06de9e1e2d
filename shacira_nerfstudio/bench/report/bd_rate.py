"""Bjøntegaard's delta rate between two rate-distortion curves.

Notation: x = PSNR in dB, y = ln(bytes), as a function of x through all points of a curve.

References:
    Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001.
    Fritsch and Butland, "A method for constructing local monotone piecewise cubic interpolants",
    SIAM J. Sci. Stat. Comput. 5, 1984: the slopes, as in JCT-VC's and VVC's reporting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Points = Sequence[tuple[float, float]]
"""(bytes, PSNR) of each point."""


def bd_rate(anchor: Points, test: Points) -> float:
    """Mean difference of bytes at equal PSNR, in percent; negative if ``test`` is smaller.

    ``100 · (exp(mean over x of y_test(x) − y_anchor(x)) − 1)`` over the PSNR both curves have.

    Example:
        >>> curve = [(100.0, 30.0), (200.0, 32.0), (400.0, 34.0)]
        >>> round(bd_rate(curve, [(size / 2, psnr) for size, psnr in curve]), 9)
        -50.0

    Raises:
        ValueError: a curve has fewer than two points, a PSNR twice, or no PSNR in common with the
            other one.
    """
    (xa, ya), (xt, yt) = _sorted(anchor), _sorted(test)
    low, high = max(xa[0], xt[0]), min(xa[-1], xt[-1])
    if high <= low:
        raise ValueError(
            f"expected curves with PSNR in common, got {xa[0]:.2f} to {xa[-1]:.2f} dB and "
            f"{xt[0]:.2f} to {xt[-1]:.2f} dB"
        )
    difference = _integral(xt, yt, low, high) - _integral(xa, ya, low, high)
    return float(100 * np.expm1(difference / (high - low)))


def bytes_at(curve: Points, psnr: float) -> float:
    """Bytes at which a curve reaches a PSNR within its range; ValueError outside."""
    x, y = _sorted(curve)
    if not x[0] <= psnr <= x[-1]:
        raise ValueError(f"expected a PSNR from {x[0]:.2f} to {x[-1]:.2f} dB, got {psnr:.2f}")
    index = min(int(np.searchsorted(x, psnr, side="right")) - 1, len(x) - 2)
    powers = (psnr - x[index]) ** np.arange(4)
    return float(np.exp(_cubics(x, y)[index] @ powers))


def _sorted(points: Points) -> tuple[np.ndarray, np.ndarray]:
    sizes, x = np.array(sorted(points, key=lambda p: p[1]), np.float64).reshape(-1, 2).T
    if len(x) < 2 or (np.diff(x) <= 0).any() or (sizes <= 0).any():
        raise ValueError(
            f"expected two or more points of different PSNR and some bytes, got {list(points)}"
        )
    return x, np.log(sizes)


def pchip_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes at the nodes with which cubic Hermite pieces overshoot nowhere: weighted harmonic
    means of the neighbouring secants, 0 at extrema, three-point formula at the ends."""
    h = np.diff(x)
    secant = np.diff(y) / h
    if len(x) == 2:
        return np.repeat(secant, 2)
    slopes = np.zeros_like(y)
    left, right = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same = secant[:-1] * secant[1:] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (left + right) / (left / secant[:-1] + right / secant[1:])
    slopes[1:-1] = np.where(same, mean, 0.0)
    slopes[0] = _end_slope(h[0], h[1], secant[0], secant[1])
    slopes[-1] = _end_slope(h[-1], h[-2], secant[-1], secant[-2])
    return slopes


def _end_slope(h0: float, h1: float, secant0: float, secant1: float) -> float:
    slope = ((2 * h0 + h1) * secant0 - h0 * secant1) / (h0 + h1)
    if np.sign(slope) != np.sign(secant0):
        return 0.0
    turns = np.sign(secant0) != np.sign(secant1)
    return 3 * secant0 if turns and abs(slope) > abs(3 * secant0) else slope


def _cubics(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients [pieces, 4] of powers of the distance from each piece's left node."""
    h, slopes = np.diff(x), pchip_slopes(x, y)
    secant = np.diff(y) / h
    square = (3 * secant - 2 * slopes[:-1] - slopes[1:]) / h
    cube = (slopes[:-1] + slopes[1:] - 2 * secant) / h**2
    return np.stack([y[:-1], slopes[:-1], square, cube], 1)


def _integral(x: np.ndarray, y: np.ndarray, low: float, high: float) -> float:
    """Exact, piece by piece."""
    powers = np.arange(1, 5)
    begin = np.clip(low, x[:-1], x[1:]) - x[:-1]
    end = np.clip(high, x[:-1], x[1:]) - x[:-1]
    areas = (end[:, None] ** powers - begin[:, None] ** powers) / powers
    return float((_cubics(x, y) * areas).sum())
