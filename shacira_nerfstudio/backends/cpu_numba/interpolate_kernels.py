"""Interpolation of a multi-resolution hash grid, one level and a range of samples at a time.

Restates :meth:`GridSpec.vertex_index` and is tested against it. A tile of samples at a time goes
through three loops: where its corners are, what stands there, and what that makes. The first and
the last are arithmetic on arrays, which the compiler vectorises; in the middle there is nothing but
loads (or stores). One kernel serves two and three dimensions: with two, the third axis has the
single vertex 0, and corners with z = 1 are those with z = 0 again, with weight 0.
"""

from __future__ import annotations

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.latent_kernels import noise_at

_COMPILE = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nsz", "arcp"},
    "error_model": "numpy",
}
TILE = 64
"""Samples per tile: their corners take 4 kB, a small part of the first-level cache."""
AS_IS, ROUND, NOISE = 0, 1, 2
"""What is made of an entry that is read; see :class:`shacira_nerfstudio.backends.Quantizer`."""
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_P1, _P2, _I0, _I1 = np.uint32(2654435761), np.uint32(805459861), np.uint32(0), np.uint32(1)
# numba widens integers of 32 bits in each operation; cut back at once, the compiler keeps them.
_u32, _u64 = np.uint32, np.uint64


@numba.njit(inline="always", **_COMPILE)
def _axis(position, scale):
    """Lower vertex and fraction of one coordinate; outside the unit cube it is clamped."""
    cell = min(max(position, _ZERO), _ONE) * scale + _HALF
    low = np.int32(cell)
    return low, cell - np.float32(low)


@numba.njit(inline="always", **_COMPILE)
def _wrap(index, size):
    """Entry of a vertex of a dense level: vertex N wraps around, once at the most."""
    return np.int32(index - (size if index >= size else _I0))


@numba.njit(**_COMPILE)
def _corners_dense(x, s, count, n, size, fractions, corners):
    """Entries [8, TILE] of the corners of ``count`` samples from ``s`` on, x fastest; fractions
    [3, TILE]. The level is dense.

    Args:
        x: float32 [D, S].
    """
    flat = x.shape[0] == 2
    scale, side, total = np.float32(n - 1), _u32(n), _u32(size)
    layer = _I0 if flat else _u32(side * side)
    x0, x1, x2 = x[0], x[1], x[x.shape[0] - 1]
    f0, f1, f2 = fractions[0], fractions[1], fractions[2]
    c0, c1, c2, c3 = corners[0], corners[1], corners[2], corners[3]
    c4, c5, c6, c7 = corners[4], corners[5], corners[6], corners[7]
    for i in range(_u64(count)):
        ix, f0[i] = _axis(x0[_u64(s) + i], scale)
        iy, f1[i] = _axis(x1[_u64(s) + i], scale)
        iz, f2[i] = _axis(x2[_u64(s) + i], scale)
        row = _u32(_u32(ix) + _u32(_u32(iy) * side) + _u32(_u32(iz) * layer))
        c0[i] = _wrap(row, total)
        c1[i] = _wrap(_u32(row + _I1), total)
        c2[i] = _wrap(_u32(row + side), total)
        c3[i] = _wrap(_u32(row + side + _I1), total)
        c4[i] = _wrap(_u32(row + layer), total)
        c5[i] = _wrap(_u32(row + layer + _I1), total)
        c6[i] = _wrap(_u32(row + layer + side), total)
        c7[i] = _wrap(_u32(row + layer + side + _I1), total)


@numba.njit(**_COMPILE)
def _corners_hashed(x, s, count, n, size, fractions, corners):
    """As :func:`_corners_dense`, of a hashed level."""
    flat = x.shape[0] == 2
    scale, mask, p2 = np.float32(n - 1), _u32(size - 1), _I0 if flat else _P2
    x0, x1, x2 = x[0], x[1], x[x.shape[0] - 1]
    f0, f1, f2 = fractions[0], fractions[1], fractions[2]
    c0, c1, c2, c3 = corners[0], corners[1], corners[2], corners[3]
    c4, c5, c6, c7 = corners[4], corners[5], corners[6], corners[7]
    for i in range(_u64(count)):
        ix, f0[i] = _axis(x0[_u64(s) + i], scale)
        iy, f1[i] = _axis(x1[_u64(s) + i], scale)
        iz, f2[i] = _axis(x2[_u64(s) + i], scale)
        ux, uy, uz = _u32(ix), _u32(_u32(iy) * _P1), _u32(_u32(iz) * p2)
        vx, vy, vz = _u32(ux + _I1), _u32(uy + _P1), _u32(uz + p2)
        c0[i] = np.int32((ux ^ uy ^ uz) & mask)
        c1[i] = np.int32((vx ^ uy ^ uz) & mask)
        c2[i] = np.int32((ux ^ vy ^ uz) & mask)
        c3[i] = np.int32((vx ^ vy ^ uz) & mask)
        c4[i] = np.int32((ux ^ uy ^ vz) & mask)
        c5[i] = np.int32((vx ^ uy ^ vz) & mask)
        c6[i] = np.int32((ux ^ vy ^ vz) & mask)
        c7[i] = np.int32((vx ^ vy ^ vz) & mask)


@numba.njit(**_COMPILE)
def _corners(x, s, count, n, size, fractions, corners):
    num_dims = x.shape[0]
    if n * n * (n if num_dims == 3 else 1) <= size:
        _corners_dense(x, s, count, n, size, fractions, corners)
    else:
        _corners_hashed(x, s, count, n, size, fractions, corners)
    if num_dims == 2:
        fractions[2, :count] = 0


@numba.njit(**_COMPILE)
def _read(table, channel, mode, seed, first, entries, values, count):
    """values [TILE] of one corner of each sample."""
    for i in range(_u64(count)):
        values[i] = np.float32(table[_u64(entries[i]), channel])
    if mode == ROUND:
        for i in range(_u64(count)):
            values[i] = np.rint(values[i])
    elif mode == NOISE:
        width, at = _u32(table.shape[1]), _u32(first * table.shape[1] + channel)
        for i in range(_u64(count)):
            values[i] += noise_at(_u32(at + _u32(_u32(entries[i]) * width)), seed)


@numba.njit(**_COMPILE)
def _mix(values, fractions, out, s, count):
    """Trilinear means of values [8, TILE]."""
    f0, f1, f2 = fractions[0], fractions[1], fractions[2]
    v0, v1, v2, v3 = values[0], values[1], values[2], values[3]
    v4, v5, v6, v7 = values[4], values[5], values[6], values[7]
    for i in range(_u64(count)):
        fx, fy, fz = f0[i], f1[i], f2[i]
        v00, v10 = v0[i] + fx * (v1[i] - v0[i]), v2[i] + fx * (v3[i] - v2[i])
        v01, v11 = v4[i] + fx * (v5[i] - v4[i]), v6[i] + fx * (v7[i] - v6[i])
        near, far = v00 + fy * (v10 - v00), v01 + fy * (v11 - v01)
        out[_u64(s) + i] = near + fz * (far - near)


@numba.njit(**_COMPILE)
def interpolate_forward(x, table, n, size, mode, seed, first, out, begin, end):
    """Writes out[c, begin:end] for one level.

    Args:
        x: float32 [D, S].
        table: float32, int8 or int16 [size, C], of this level.
        n: Resolution.
        mode, seed: What is made of entries; ``seed`` is a uint32.
        first: The level's first row in the whole table.
        out: float32 [C, S], of this level.
    """
    corners, values = np.empty((8, TILE), np.int32), np.empty((8, TILE), np.float32)
    fractions = np.empty((3, TILE), np.float32)
    for s in range(begin, end, TILE):
        count = min(TILE, end - s)
        _corners(x, s, count, n, size, fractions, corners)
        for c in range(table.shape[1]):
            for k in range(8):
                _read(table, c, mode, seed, first, corners[k], values[k], count)
            _mix(values, fractions, out[c], s, count)


@numba.njit(**_COMPILE)
def _shares(fractions, grad_out, s, count, shares):
    """shares [8, TILE]: each corner's part of the gradient."""
    f0, f1, f2 = fractions[0], fractions[1], fractions[2]
    w0, w1, w2, w3 = shares[0], shares[1], shares[2], shares[3]
    w4, w5, w6, w7 = shares[4], shares[5], shares[6], shares[7]
    for i in range(_u64(count)):
        g, fx, fy, fz = grad_out[_u64(s) + i], f0[i], f1[i], f2[i]
        gx1 = g * fx
        gx0 = g - gx1
        g10, g11 = gx0 * fy, gx1 * fy
        g00, g01 = gx0 - g10, gx1 - g11
        w4[i], w5[i], w6[i], w7[i] = g00 * fz, g01 * fz, g10 * fz, g11 * fz
        w0[i], w1[i] = g00 - w4[i], g01 - w5[i]
        w2[i], w3[i] = g10 - w6[i], g11 - w7[i]


@numba.njit(**_COMPILE)
def interpolate_backward(x, grad_out, n, size, grad_table, touched):
    """Adds to grad_table what one level's output gradient says, and marks the rows.

    Args:
        x: float32 [D, S].
        grad_out: float32 [C, S], of this level.
        n: Resolution.
        grad_table: float32 [size, C], of this level.
        touched: uint8 [size / 8], a bit per row; [0] if nobody wants it.
    """
    num_dims, num_samples = x.shape
    num_corners, mark = 1 << num_dims, len(touched) > 0
    corners, shares = np.empty((8, TILE), np.int32), np.empty((8, TILE), np.float32)
    fractions = np.empty((3, TILE), np.float32)
    for s in range(0, num_samples, TILE):
        count = min(TILE, num_samples - s)
        _corners(x, s, count, n, size, fractions, corners)
        for c in range(grad_table.shape[1]):
            _shares(fractions, grad_out[c], s, count, shares)
            # Sample by sample: neighbours often share corners, and a store is slow to be read back.
            for i in range(_u64(count)):
                for k in range(num_corners):
                    grad_table[_u64(corners[k, i]), c] += shares[k, i]
        if mark:
            for k in range(num_corners):
                entries = corners[k]
                for i in range(_u64(count)):
                    entry = _u64(entries[i])
                    touched[entry >> _u64(3)] |= np.uint8(1) << np.uint8(entry & _u64(7))
