"""Interpolation of a multi-resolution hash grid, one level and a range of samples at a time.

Restates :meth:`GridSpec.vertex_index` and is tested against it. One kernel serves two and three
dimensions: with two, the third axis has the single vertex 0, which adds nothing to the index of
either kind of level.

Samples come ray by ray, so that in coarse levels a sample often lies in the cell of the one before
it: the cell's corners are then still at hand, and their gradients are summed before they are
written.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types
from numba.extending import overload

from shacira_nerfstudio.backends.cpu_numba.latent_kernels import noise_at

_P1 = 2654435761
_P2 = 805459861
_COMPILE = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nsz", "arcp"},
    "error_model": "numpy",
}
_ZERO, _ONE = np.float32(0), np.float32(1)


def read(table, row, channel, quantizer, index):
    """An element of the table as float32.

    Args:
        quantizer: None for the element itself, True to round it, a uint32 for noise of that seed.
            The type decides, when the kernel is compiled.
        index: Of the element in the whole table, for the noise.
    """
    raise NotImplementedError("for compiled code only")


@overload(read, inline="always")
def _read(table, row, channel, quantizer, index):  # numba calls this with types
    if isinstance(quantizer, types.Boolean):

        def rounded(table, row, channel, quantizer, index):
            return np.float32(np.rint(table[row, channel]))

        return rounded
    if isinstance(quantizer, types.Integer):

        def noisy(table, row, channel, quantizer, index):
            return table[row, channel] + noise_at(np.uint32(index), quantizer)

        return noisy

    def plain(table, row, channel, quantizer, index):
        return np.float32(table[row, channel])

    return plain


@numba.njit(inline="always", **_COMPILE)
def _axis(position, scale):
    """Lower vertex and fraction of one coordinate; outside the unit cube it is clamped."""
    cell = min(max(position, _ZERO), _ONE) * scale + np.float32(0.5)
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


@numba.njit(inline="always", **_COMPILE)
def _lerp(corner, k, fx, fy, fz):
    """Trilinear mean of corner[k : k + 8]."""
    v00 = corner[k] + fx * (corner[k + 1] - corner[k])
    v10 = corner[k + 2] + fx * (corner[k + 3] - corner[k + 2])
    v01 = corner[k + 4] + fx * (corner[k + 5] - corner[k + 4])
    v11 = corner[k + 6] + fx * (corner[k + 7] - corner[k + 6])
    near, far = v00 + fy * (v10 - v00), v01 + fy * (v11 - v01)
    return near + fz * (far - near)


@numba.njit(**_COMPILE)
def interpolate_forward(x, table, n, size, quantizer, first, out, begin, end):
    """Writes out[c, begin:end] for one level.

    Args:
        x: float32 [S, D].
        table: float32, int8 or int16 [size, C], of this level.
        n: Resolution.
        quantizer: See :func:`read`.
        first: The level's first row in the whole table.
        out: float32 [C, S], of this level.
    """
    num_dims, num_channels = x.shape[1], table.shape[1]
    scale = np.float32(n - 1)
    dense = n * n * (n if num_dims == 3 else 1) <= size
    # Corners of the cell that was looked up last, channel after channel. In two dimensions those
    # with z = 1 are some entries of the table or other, and count 0 times.
    corner = np.zeros(8 * num_channels, np.float32)
    last_x, last_y, last_z = np.int64(-1), np.int64(-1), np.int64(-1)
    iz, fz = np.int64(0), _ZERO
    origin = np.uint64(first)
    for s in range(begin, end):
        ix, fx = _axis(x[s, 0], scale)
        iy, fy = _axis(x[s, 1], scale)
        if num_dims == 3:
            iz, fz = _axis(x[s, 2], scale)
        if ix != last_x or iy != last_y or iz != last_z:
            last_x, last_y, last_z = ix, iy, iz
            if num_channels == 1:  # the usual case, without a loop in the middle
                for row in range(4):
                    i0, i1 = _row(ix, iy + (row & 1), iz + (row >> 1), n, size, dense)
                    corner[2 * row] = read(table, i0, 0, quantizer, origin + i0)
                    corner[2 * row + 1] = read(table, i1, 0, quantizer, origin + i1)
            else:
                for row in range(4):
                    i0, i1 = _row(ix, iy + (row & 1), iz + (row >> 1), n, size, dense)
                    for c in range(num_channels):
                        k, e = 8 * c + 2 * row, origin * num_channels + c
                        corner[k] = read(table, i0, c, quantizer, e + i0 * num_channels)
                        corner[k + 1] = read(table, i1, c, quantizer, e + i1 * num_channels)
        for c in range(num_channels):
            out[c, s] = _lerp(corner, 8 * c, fx, fy, fz)


@numba.njit(inline="always", **_COMPILE)
def _flush(rows, sums, begin, num_channels, grad_table, touched, mark):
    """Writes the sums of four corners, marks their rows, and clears the sums."""
    for corner in range(begin, begin + 4):
        i = rows[corner]
        for c in range(num_channels):
            grad_table[i, c] += sums[8 * c + corner]
            sums[8 * c + corner] = _ZERO
        if mark:
            touched[i >> np.uint64(3)] |= np.uint8(1) << np.uint8(i & np.uint64(7))


@numba.njit(**_COMPILE)
def interpolate_backward(x, grad_out, n, size, grad_table, touched):
    """Adds to grad_table what one level's output gradient says, and marks the rows.

    Args:
        x: float32 [S, D].
        grad_out: float32 [C, S], of this level.
        n: Resolution.
        grad_table: float32 [size, C], of this level.
        touched: uint8 [size / 8], a bit per row; [0] if nobody wants it.
    """
    num_dims, num_channels = x.shape[1], grad_table.shape[1]
    scale = np.float32(n - 1)
    dense = n * n * (n if num_dims == 3 else 1) <= size
    mark = len(touched) > 0
    sums, rows = np.zeros(8 * num_channels, np.float32), np.zeros(8, np.uint64)
    last_x, last_y, last_z = np.int64(-1), np.int64(-1), np.int64(-1)
    iz, fz = np.int64(0), _ZERO
    for s in range(x.shape[0] + 1):
        if s < x.shape[0]:
            ix, fx = _axis(x[s, 0], scale)
            iy, fy = _axis(x[s, 1], scale)
            if num_dims == 3:
                iz, fz = _axis(x[s, 2], scale)
        else:
            ix, iy = np.int64(-1), np.int64(-1)  # no cell: what is left is written
            fx, fy = _ZERO, _ZERO
        if ix != last_x or iy != last_y or iz != last_z:
            if last_x >= 0:
                _flush(rows, sums, 0, num_channels, grad_table, touched, mark)
                if num_dims == 3:
                    _flush(rows, sums, 4, num_channels, grad_table, touched, mark)
            last_x, last_y, last_z = ix, iy, iz
            if ix < 0:
                break
            for row in range(4):
                i0, i1 = _row(ix, iy + (row & 1), iz + (row >> 1), n, size, dense)
                rows[2 * row], rows[2 * row + 1] = i0, i1
        for c in range(num_channels):
            k, g = 8 * c, grad_out[c, s]
            gx1 = g * fx
            gx0 = g - gx1
            g10, g11 = gx0 * fy, gx1 * fy
            g00, g01 = gx0 - g10, gx1 - g11
            far00, far01, far10, far11 = g00 * fz, g01 * fz, g10 * fz, g11 * fz
            sums[k] += g00 - far00
            sums[k + 1] += g01 - far01
            sums[k + 2] += g10 - far10
            sums[k + 3] += g11 - far11
            sums[k + 4] += far00
            sums[k + 5] += far01
            sums[k + 6] += far10
            sums[k + 7] += far11
