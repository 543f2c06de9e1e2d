"""Adam in the rows of a table that a step touched."""

from __future__ import annotations

import math

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FUSED
from shacira_nerfstudio.backends.cpu_numba.table.prefetch import prefetch

_AHEAD = 4
"""Blocks of 8 rows by which Adam's memory is asked for ahead of its use. In a large table touched
rows lie far apart: each costs four cache lines, which a processor cannot foresee."""


@numba.njit(**FUSED)
def _adam(p, g, m, d, f1, f2, lr, share1, share2, eps, keep, count):
    """A step of Adam on ``count`` rows of d numbers that lie side by side; clears g.

    Args:
        f1, f2: Bias corrections of each row.
        m: Moments; of each row first the d means, then the d squares.
    """
    if d == 1:  # the usual case, for which the compiler makes a vector of the rows
        for i in range(count):
            grad, mean, square = g[i], m[2 * i], m[2 * i + 1]
            mean += share1 * (grad - mean)
            square += share2 * (grad * grad - square)
            m[2 * i], m[2 * i + 1], g[i] = mean, square, np.float32(0)
            p[i] = p[i] * keep - lr * f1[i] * mean / (math.sqrt(square) * f2[i] + eps)
        return
    for i in range(count):
        for c in range(d):
            j, k = i * d + c, 2 * i * d + c
            grad, mean, square = g[j], m[k], m[k + d]
            mean += share1 * (grad - mean)
            square += share2 * (grad * grad - square)
            m[k], m[k + d], g[j] = mean, square, np.float32(0)
            p[j] = p[j] * keep - lr * f1[i] * mean / (math.sqrt(square) * f2[i] + eps)


@numba.njit(**FUSED)
def adam_rows(
    parameter, gradient, moments, num_updates, touched, corrections,
    lr, share1, share2, eps, keep, begin, end,
):  # fmt: skip
    """A step of Adam in the touched rows among blocks begin:end of 8 rows; clears what it used.

    Args:
        parameter, gradient: float32, flat, [E d]; ``moments`` [E 2 d].
        num_updates: int16 [E].
        corrections: float32 [2, N], for a row that was updated n times before: 1 / (1 - beta1^k)
            and 1 / sqrt(1 - beta2^k) with k = n + 1; the last one serves all further k.
        share1, share2: 1 - beta of either moment, rounded once: 1 - 0.999 in single precision has
            five digits.
        keep: 1 - lr * weight decay.
    """
    num_rows = len(num_updates)
    d = len(parameter) // num_rows
    f1, f2 = np.empty(8, np.float32), np.empty(8, np.float32)
    latest = corrections.shape[1] - 1
    for block in range(begin, end):
        soon = block + _AHEAD
        if soon < end and touched[soon]:
            prefetch(parameter, 8 * soon * d)
            prefetch(gradient, 8 * soon * d)
            prefetch(moments, 16 * soon * d)
            prefetch(num_updates, 8 * soon)
        bits = touched[block]
        if bits == 0:
            continue
        touched[block] = 0
        i = 0
        while i < 8 and 8 * block + i < num_rows:
            if not bits >> i & 1:
                i += 1
                continue
            # Rows side by side that are touched are updated in one go.
            first, run = 8 * block + i, 0
            while i < 8 and bits >> i & 1 and 8 * block + i < num_rows:
                row = 8 * block + i
                k = num_updates[row]
                num_updates[row] = min(k + 1, 32767)
                j = min(np.int64(k), latest)
                f1[run], f2[run] = corrections[0, j], corrections[1, j]
                run += 1
                i += 1
            at, stop = first * d, (first + run) * d
            _adam(
                parameter[at:stop], gradient[at:stop], moments[2 * at : 2 * stop], d,
                f1, f2, lr, share1, share2, eps, keep, run,
            )  # fmt: skip
