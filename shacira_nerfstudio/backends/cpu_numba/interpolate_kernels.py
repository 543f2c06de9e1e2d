"""Interpolation of a multi-resolution hash grid, one level and a range of samples at a time.

Restates :meth:`GridSpec.vertex_index` and is tested against it. One kernel serves two and three
dimensions: with two, the third axis has the single vertex 0, which adds nothing to the index of
either kind of level.
"""

from __future__ import annotations

import numba
import numpy as np

_P1 = 2654435761
_P2 = 805459861
_COMPILE = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nsz", "arcp"},
    "error_model": "numpy",
}


@numba.njit(inline="always", **_COMPILE)
def _axis(position, scale):
    """Lower vertex and fraction of one coordinate; outside the unit cube it is clamped."""
    cell = min(max(position, np.float32(0)), np.float32(1)) * scale + np.float32(0.5)
    low = np.int64(cell)
    return low, cell - np.float32(low)


@numba.njit(inline="always", **_COMPILE)
def _row(ix, iy, iz, n, size, dense):
    """Entries of the vertices (ix, iy, iz) and (ix + 1, iy, iz) within a level.

    Unsigned, so that indexing needs no test for a negative index.
    """
    if dense:
        i0 = ix + iy * n + iz * n * n
        i1 = i0 + 1
        if i1 >= size:  # vertex N wraps around
            i0 %= size
            i1 %= size
    else:
        row = (iy * _P1) ^ (iz * _P2)
        i0 = (ix ^ row) & (size - 1)
        i1 = ((ix + 1) ^ row) & (size - 1)
    return np.uint64(i0), np.uint64(i1)


@numba.njit(**_COMPILE)
def interpolate_forward(x, table, n, size, out, begin, end):
    """Writes out[c, begin:end] for one level.

    Args:
        x: float32 [S, D].
        table: float32, int8 or int16 [size, C], of this level.
        n: Resolution.
        out: float32 [C, S], of this level.
    """
    num_dims, num_channels = x.shape[1], table.shape[1]
    one = np.float32(1)
    scale = np.float32(n - 1)
    dense = n * n * (n if num_dims == 3 else 1) <= size
    num_rows = 4 if num_dims == 3 else 2
    iz, fz = 0, np.float32(0)
    for s in range(begin, end):
        ix, fx = _axis(x[s, 0], scale)
        iy, fy = _axis(x[s, 1], scale)
        if num_dims == 3:
            iz, fz = _axis(x[s, 2], scale)
        # Two channels at a time are kept in registers.
        for c in range(0, num_channels, 2):
            sum0, sum1 = np.float32(0), np.float32(0)
            for row in range(num_rows):
                ky, kz = row & 1, row >> 1
                weight = (fy if ky else one - fy) * (fz if kz else one - fz)
                i0, i1 = _row(ix, iy + ky, iz + kz, n, size, dense)
                w0, w1 = weight * (one - fx), weight * fx
                sum0 += w0 * np.float32(table[i0, c]) + w1 * np.float32(table[i1, c])
                if c + 1 < num_channels:
                    sum1 += w0 * np.float32(table[i0, c + 1]) + w1 * np.float32(table[i1, c + 1])
            out[c, s] = sum0
            if c + 1 < num_channels:
                out[c + 1, s] = sum1


@numba.njit(**_COMPILE)
def interpolate_backward(x, grad_out, n, size, grad_table):
    """Adds to grad_table what one level's output gradient says. The caller zeroes it.

    Args:
        x: float32 [S, D].
        grad_out: float32 [C, S], of this level.
        n: Resolution.
        grad_table: float32 [size, C], of this level.
    """
    num_dims, num_channels = x.shape[1], grad_table.shape[1]
    one = np.float32(1)
    scale = np.float32(n - 1)
    dense = n * n * (n if num_dims == 3 else 1) <= size
    num_rows = 4 if num_dims == 3 else 2
    iz, fz = 0, np.float32(0)
    for s in range(x.shape[0]):
        ix, fx = _axis(x[s, 0], scale)
        iy, fy = _axis(x[s, 1], scale)
        if num_dims == 3:
            iz, fz = _axis(x[s, 2], scale)
        for row in range(num_rows):
            ky, kz = row & 1, row >> 1
            weight = (fy if ky else one - fy) * (fz if kz else one - fz)
            i0, i1 = _row(ix, iy + ky, iz + kz, n, size, dense)
            w0, w1 = weight * (one - fx), weight * fx
            for c in range(num_channels):
                g = grad_out[c, s]
                grad_table[i0, c] += w0 * g
                grad_table[i1, c] += w1 * g
