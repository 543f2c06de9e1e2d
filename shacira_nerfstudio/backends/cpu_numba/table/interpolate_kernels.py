"""Interpolation of a multi-resolution hash grid, one level and a range of samples at a time.

Restates :meth:`GridSpec.vertex_index` and is tested against it. A tile of samples at a time goes
through three loops: where its corners are, what stands there, and what that makes. The first and
the last are arithmetic on arrays, which the compiler vectorises; in the middle there is nothing but
loads (or stores). One kernel serves two and three dimensions: with two, the third axis has the
single vertex 0, and corners with z = 1, which nobody reads, are those with z = 0 again. Each axis
of a level has a resolution of its own: nx, ny and nz vertices, where nz has no effect in two
dimensions.
"""

from __future__ import annotations

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FUSED, INT_ZERO
from shacira_nerfstudio.backends.cpu_numba.table.noise_kernels import noise_at

TILE = 128
"""Samples per tile: their corners take 8 kB, a part of the first-level cache."""
AS_IS, ROUND, NOISE = 0, 1, 2
"""What is made of an entry that is read; see :class:`TableQuantizer`."""
PLACE, FIRST_ROW, SIZE, RESOLUTION = 0, 1, 2, 3
"""Columns of a level's row in a table of levels: which level it is, where its rows begin, how many
there are, and three columns of vertices per axis."""
_FINE = 2048
"""Vertices along an axis above which positions are split, see :func:`_axis_fine`."""
_SPLIT, _UNSPLIT = np.float32(2048), np.float32(1 / 2048)
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_P1, _P2, _I0, _I1 = np.uint32(2654435761), np.uint32(805459861), np.uint32(0), np.uint32(1)
_T1, _T2, _T3, _T4, _T5, _T6, _T7 = (np.uint64(k * TILE) for k in range(1, 8))
# numba widens integers of 32 bits in each operation; cut back at once, the compiler keeps them.
_u32, _u64 = np.uint32, np.uint64


@numba.njit(inline="always", **FUSED)
def _axis(position, scale):
    """Lower vertex and fraction of one coordinate; outside the unit cube it is clamped."""
    cell = min(max(position, _ZERO), _ONE) * scale + _HALF
    low = np.int32(cell)
    return low, cell - np.float32(low)


@numba.njit(inline="always", **FUSED)
def _axis_fine(position, scale):
    """As :func:`_axis`, where a float cannot hold a cell and its fraction together; see
    :func:`geometry.cells_along`."""
    x = min(max(position, _ZERO), _ONE)
    head = np.rint(x * _SPLIT) * _UNSPLIT
    product = head * scale
    low = np.floor(product)
    rest = (product - low) + ((x - head) * scale + _HALF)
    more = np.floor(rest)
    return np.int32(low + more), rest - more


@numba.njit(inline="always", **FUSED)
def _wrap(index, size):
    """Entry of a vertex of a dense level: vertex N wraps around, once at the most."""
    return np.int32(_u32(index - (size if index >= size else _I0)))


@numba.njit(**FUSED)
def _corners_dense(x, s, count, nx, ny, nz, size, fractions, corners):
    """Entries [8 TILE] of the corners of ``count`` samples from ``s`` on, corner by corner, x
    fastest; fractions [3 TILE]. The level is dense.

    Args:
        x: float32 [D, S].
    """
    flat = x.shape[0] == 2
    sx, sy, sz = np.float32(nx - 1), np.float32(ny - 1), np.float32(nz - 1)
    side, total = _u32(nx), _u32(size)
    layer = _I0 if flat else _u32(side * _u32(ny))
    x0, x1, x2 = x[0], x[1], x[x.shape[0] - 1]
    for i in range(_u64(count)):
        ix, fractions[i] = _axis(x0[_u64(s) + i], sx)
        iy, fractions[_T1 + i] = _axis(x1[_u64(s) + i], sy)
        iz, fractions[_T2 + i] = _axis(x2[_u64(s) + i], sz)
        row = _u32(_u32(_u32(ix) + _u32(_u32(iy) * side)) + _u32(_u32(iz) * layer))
        beside, behind = _u32(row + side), _u32(row + layer)
        last = _u32(behind + side)
        corners[i], corners[_T1 + i] = _wrap(row, total), _wrap(_u32(row + _I1), total)
        corners[_T2 + i], corners[_T3 + i] = _wrap(beside, total), _wrap(_u32(beside + _I1), total)
        corners[_T4 + i], corners[_T5 + i] = _wrap(behind, total), _wrap(_u32(behind + _I1), total)
        corners[_T6 + i], corners[_T7 + i] = _wrap(last, total), _wrap(_u32(last + _I1), total)


@numba.njit(**FUSED)
def _corners_hashed(x, s, count, nx, ny, nz, size, fractions, corners):
    """As :func:`_corners_dense`, of a hashed level."""
    flat = x.shape[0] == 2
    sx, sy, sz = np.float32(nx - 1), np.float32(ny - 1), np.float32(nz - 1)
    mask, p2 = _u32(size - 1), _I0 if flat else _P2
    x0, x1, x2 = x[0], x[1], x[x.shape[0] - 1]
    for i in range(_u64(count)):
        ix, fractions[i] = _axis(x0[_u64(s) + i], sx)
        iy, fractions[_T1 + i] = _axis(x1[_u64(s) + i], sy)
        iz, fractions[_T2 + i] = _axis(x2[_u64(s) + i], sz)
        _hash(i, ix, iy, iz, mask, p2, corners)


@numba.njit(**FUSED)
def _corners_fine(x, s, count, nx, ny, nz, size, fractions, corners):
    """As :func:`_corners_hashed`, of a level with more than ``_FINE`` vertices along an axis."""
    flat = x.shape[0] == 2
    sx, sy, sz = np.float32(nx - 1), np.float32(ny - 1), np.float32(nz - 1)
    mask, p2 = _u32(size - 1), _I0 if flat else _P2
    x0, x1, x2 = x[0], x[1], x[x.shape[0] - 1]
    for i in range(_u64(count)):
        ix, fractions[i] = _axis_fine(x0[_u64(s) + i], sx)
        iy, fractions[_T1 + i] = _axis_fine(x1[_u64(s) + i], sy)
        iz, fractions[_T2 + i] = _axis_fine(x2[_u64(s) + i], sz)
        _hash(i, ix, iy, iz, mask, p2, corners)


@numba.njit(inline="always", **FUSED)
def _hash(i, ix, iy, iz, mask, p2, corners):
    """Entries of the corners of sample i of a tile, in a hashed level."""
    ux, uy, uz = _u32(ix), _u32(_u32(iy) * _P1), _u32(_u32(iz) * p2)
    vx, vy, vz = _u32(ux + _I1), _u32(uy + _P1), _u32(uz + p2)
    near, far = _u32(uz & mask), _u32(vz & mask)
    r00, r10 = _u32(_u32(ux ^ uy) & mask), _u32(_u32(vx ^ uy) & mask)
    r01, r11 = _u32(_u32(ux ^ vy) & mask), _u32(_u32(vx ^ vy) & mask)
    corners[i], corners[_T1 + i] = r00 ^ near, r10 ^ near
    corners[_T2 + i], corners[_T3 + i] = r01 ^ near, r11 ^ near
    corners[_T4 + i], corners[_T5 + i] = r00 ^ far, r10 ^ far
    corners[_T6 + i], corners[_T7 + i] = r01 ^ far, r11 ^ far


@numba.njit(**FUSED)
def _corners(x, s, count, nx, ny, nz, size, fractions, corners):
    num_dims = x.shape[0]
    if nx * ny * (nz if num_dims == 3 else 1) <= size:
        _corners_dense(x, s, count, nx, ny, nz, size, fractions, corners)
    elif max(nx, ny, nz) > _FINE:
        _corners_fine(x, s, count, nx, ny, nz, size, fractions, corners)
    else:
        _corners_hashed(x, s, count, nx, ny, nz, size, fractions, corners)
    if num_dims == 2:
        fractions[2 * TILE :] = 0


@numba.njit(**FUSED)
def _load(table, begin, width, count, entries, values):
    """values [:count] get what stands in a flat table, as it stands there.

    Args:
        begin: Where the channel's numbers begin.
        width: Channels.
    """
    at = _u64(begin)
    if width == 1:  # the usual one: a multiplication per corner takes as long as the rest
        for i in range(_u64(count)):
            values[i] = table[_u64(at + _u64(entries[i]))]
    else:
        for i in range(_u64(count)):
            values[i] = table[_u64(at + _u64(_u64(entries[i]) * _u64(width)))]


@numba.njit(**FUSED)
def _read(table, begin, width, mode, seed, count, entries, stored, values):
    """values [:count] of the corners of a tile; ``stored``, of the table's type, is to work in."""
    if table.itemsize == values.itemsize:
        _load(table, begin, width, count, entries, values)
    else:  # loads alone, then conversions alone, which the compiler vectorises
        _load(table, begin, width, count, entries, stored)
        for i in range(_u64(count)):
            values[i] = np.float32(stored[i])
    if mode == ROUND:
        for i in range(_u64(count)):
            values[i] = np.rint(values[i])
    elif mode == NOISE:
        for i in range(_u64(count)):
            index = _u32(_u32(begin) + _u32(_u32(entries[i]) * _u32(width)))
            values[i] += noise_at(index, seed)


@numba.njit(**FUSED)
def _mix(v, f, out, s, count):
    """Trilinear means of the values [8 TILE] of a tile, with fractions [3 TILE]."""
    for i in range(_u64(count)):
        fx, fy, fz = f[i], f[_T1 + i], f[_T2 + i]
        v00 = v[i] + fx * (v[_T1 + i] - v[i])
        v10 = v[_T2 + i] + fx * (v[_T3 + i] - v[_T2 + i])
        v01 = v[_T4 + i] + fx * (v[_T5 + i] - v[_T4 + i])
        v11 = v[_T6 + i] + fx * (v[_T7 + i] - v[_T6 + i])
        near, far = v00 + fy * (v10 - v00), v01 + fy * (v11 - v01)
        out[_u64(s) + i] = near + fz * (far - near)


@numba.njit(**FUSED)
def _mix_flat(v, f, out, s, count):
    """As :func:`_mix`, of two axes: bilinear means of the values [4 TILE]."""
    for i in range(_u64(count)):
        fx, fy = f[i], f[_T1 + i]
        low = v[i] + fx * (v[_T1 + i] - v[i])
        high = v[_T2 + i] + fx * (v[_T3 + i] - v[_T2 + i])
        out[_u64(s) + i] = low + fy * (high - low)


@numba.njit(**FUSED)
def interpolate_forward(
    x, table, first, nx, ny, nz, size, width, mode, seed, out, begin, end
):  # fmt: skip
    """Writes out[c, begin:end] for one level.

    Args:
        x: float32 [D, S].
        table: float32, int8 or int16 [E C], the whole table, row after row.
        first, size: The level's first row and number of rows.
        nx, ny, nz: Its resolution along each axis.
        width: C.
        mode, seed: What is made of entries; ``seed`` is a uint32.
        out: float32 [C, S], of this level.
    """
    # Past the last sample, corners are whatever they were before, but always entries.
    corners, values = np.zeros(8 * TILE, np.int32), np.empty(8 * TILE, np.float32)
    fractions, stored = np.empty(3 * TILE, np.float32), np.empty(8 * TILE, table.dtype)
    flat = x.shape[0] == 2
    reads = (4 if flat else 8) * TILE
    for s in range(begin, end, TILE):
        count = min(TILE, end - s)
        _corners(x, s, count, nx, ny, nz, size, fractions, corners)
        for c in range(width):
            _read(table, first * width + c, width, mode, seed, reads, corners, stored, values)
            if flat:
                _mix_flat(values, fractions, out[c], s, count)
            else:
                _mix(values, fractions, out[c], s, count)


@numba.njit(**FUSED)
def look_up(x, table, width, level, mode, seed, out, count):
    """Writes out [C, :count], the interpolated rows of one level.

    Args:
        level: int64 [6], see PLACE and what follows it.
    """
    interpolate_forward(
        x, table, level[FIRST_ROW], level[RESOLUTION], level[RESOLUTION + 1], level[RESOLUTION + 2],
        level[SIZE], width, mode, seed, out, INT_ZERO, count,
    )  # fmt: skip


@numba.njit(**FUSED)
def _shares(f, grad_out, s, count, w):
    """w [8 TILE]: each corner's part of the gradient."""
    for i in range(_u64(count)):
        g, fx, fy, fz = grad_out[_u64(s) + i], f[i], f[_T1 + i], f[_T2 + i]
        gx1 = g * fx
        gx0 = g - gx1
        g10, g11 = gx0 * fy, gx1 * fy
        g00, g01 = gx0 - g10, gx1 - g11
        h00, h01, h10, h11 = g00 * fz, g01 * fz, g10 * fz, g11 * fz
        w[i], w[_T1 + i], w[_T2 + i], w[_T3 + i] = g00 - h00, g01 - h01, g10 - h10, g11 - h11
        w[_T4 + i], w[_T5 + i], w[_T6 + i], w[_T7 + i] = h00, h01, h10, h11


@numba.njit(**FUSED)
def interpolate_backward(x, grad_out, nx, ny, nz, size, grad_table, touched):
    """Adds to grad_table what one level's output gradient says, and marks the rows.

    Args:
        x: float32 [D, S].
        grad_out: float32 [C, S], of this level.
        nx, ny, nz: Its resolution along each axis.
        grad_table: float32 [size, C], of this level.
        touched: uint8 [size / 8], a bit per row; [0] if nobody wants it.
    """
    num_dims, num_samples = x.shape
    num_corners, mark = 1 << num_dims, len(touched) > 0
    corners, shares = np.empty(8 * TILE, np.int32), np.empty(8 * TILE, np.float32)
    fractions = np.empty(3 * TILE, np.float32)
    for s in range(0, num_samples, TILE):
        count = min(TILE, num_samples - s)
        _corners(x, s, count, nx, ny, nz, size, fractions, corners)
        for c in range(grad_table.shape[1]):
            _shares(fractions, grad_out[c], s, count, shares)
            # Sample by sample: neighbours often share corners, and a store is slow to be read back.
            for i in range(_u64(count)):
                for k in range(num_corners):
                    at = _u64(_u64(k * TILE) + i)
                    grad_table[_u64(corners[at]), c] += shares[at]
        if mark:
            for k in range(num_corners):
                for i in range(_u64(count)):
                    entry = _u64(corners[_u64(k * TILE) + i])
                    touched[entry >> _u64(3)] |= np.uint8(1) << np.uint8(entry & _u64(7))
