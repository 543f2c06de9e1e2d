"""Many straight rays at once to their next occupied cell.

Jumping from one empty cell to the next, a ray waits: for its cell, for what stands there, for the
step that follows from it. Here a group of rays does each of these together, and only what reads
from memory goes ray by ray. Positions and steps come from the formulas of
:func:`shacira_nerfstudio.backends.cpu_numba.rays.march_kernels.walk`, bit for bit.
"""

from __future__ import annotations

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import EXACT
from shacira_nerfstudio.backends.cpu_numba.rays.march_kernels import start_ray

GROUP = 64
"""Rays that go together: what is known of them fits a first-level cache."""
OX, OY, OZ, DX, DY, DZ, OFFSET, END, LAST, STEP, JITTER = range(11)
"""Rows of the state of rays: origin and direction in the unit cube, spacing at step 0, distance
and step at which to stop, the step to go on with, and the jitter."""
NUM_ROWS = 11
_FAR = 1e300
"""Stands for a speed of zero turned upside down: finite, so that 0 times it is 0."""
_U = np.uint64


@numba.njit(**EXACT)
def start(
    origins, directions, u_mins, t_maxs, num_steps, jitter, filled, has_strides, contracted, low,
    extent, step_size, knee, begin, end,
):  # fmt: skip
    """State [NUM_ROWS, end - begin] of rays begin:end, float64. See `march_kernels.march`."""
    state = np.empty((NUM_ROWS, end - begin))
    for ray in range(begin, end):
        (
            state[OX, ray - begin], state[OY, ray - begin], state[OZ, ray - begin],
            state[DX, ray - begin], state[DY, ray - begin], state[DZ, ray - begin],
            state[OFFSET, ray - begin], state[END, ray - begin], state[STEP, ray - begin],
        ) = start_ray(
            origins[ray], directions[ray], u_mins[ray], t_maxs[ray], num_steps[ray], jitter[ray],
            0, filled, has_strides, contracted, low, extent, step_size, knee,
        )  # fmt: skip
        state[LAST, ray - begin] = num_steps[ray]
        state[JITTER, ray - begin] = jitter[ray]
    return state


@numba.njit(**EXACT)
def _inverse(speed, size):
    return 1 / (speed * size) if speed != 0 else _FAR


@numba.njit(inline="always", **EXACT)
def _leave(c, inverse, cell, gap):
    """Distance until a coordinate, in cells, leaves the empty cells around its own."""
    border = cell + gap if inverse > 0 else cell - gap + 1
    return (border - c) * inverse


@numba.njit(**EXACT)
def _look(state, n, half, step_size, size, u, x, y, z, i, j, k, cells):
    """Where the rays are: distances u, coordinates and cells on each axis, and cells in the grid;
    [GROUP] each."""
    ox, oy, oz, dx, dy, dz = state[OX], state[OY], state[OZ], state[DX], state[DY], state[DZ]
    offset, step, most = state[OFFSET], state[STEP], size - 1.0
    width = np.int32(size)
    for s in range(_U(n)):
        u[s] = (offset[s] + step[s] * step_size) + half
        x[s] = (ox[s] + u[s] * dx[s]) * size
        y[s] = (oy[s] + u[s] * dy[s]) * size
        z[s] = (oz[s] + u[s] * dz[s]) * size
        a = np.int32(min(max(x[s], 0.0), most))
        b = np.int32(min(max(y[s], 0.0), most))
        c = np.int32(min(max(z[s], 0.0), most))
        i[s], j[s], k[s] = a, b, c
        cells[s] = np.int32(np.int32(np.int32(np.int32(a * width) + b) * width) + c)


@numba.njit(**EXACT)
def _jump(state, n, steps_per_unit, u, x, y, z, i, j, k, inverse, gap):
    """On to the first step that is not surely inside empty cells; returns how many rays moved."""
    ix, iy, iz = inverse[0], inverse[1], inverse[2]
    step, last, end, moved = state[STEP], state[LAST], state[END], 0
    for s in range(_U(n)):
        distance = min(
            _leave(x[s], ix[s], i[s], gap[s]),
            _leave(y[s], iy[s], j[s], gap[s]),
            _leave(z[s], iz[s], k[s], gap[s]),
        )
        inside = np.floor(((u[s] + distance) - u[s]) * steps_per_unit - 1e-9)
        goes = (gap[s] > 0) & (step[s] < last[s]) & (u[s] < end[s])
        step[s] += max(1.0, inside + 1) if goes else 0.0
        moved += np.int64(goes)
    return moved


@numba.njit(**EXACT)
def search(state, active, num_active, gaps, size, step_size):
    """Takes straight rays with even steps to their next sample; a step of -1 if there is none.

    Args:
        state: See :func:`start`; steps are changed.
        active: int64, the columns of ``num_active`` rays.
        gaps: uint8 [size^3], see `march_kernels.walk`.
    """
    group, inverse = np.zeros((NUM_ROWS, GROUP)), np.empty((3, GROUP))
    u, x, y, z = np.empty(GROUP), np.empty(GROUP), np.empty(GROUP), np.empty(GROUP)
    i, j, k, gap = np.empty(GROUP), np.empty(GROUP), np.empty(GROUP), np.empty(GROUP)
    cells = np.empty(GROUP, np.int32)
    step, last, end = group[STEP], group[LAST], group[END]
    for first in range(0, num_active, GROUP):
        n = min(GROUP, num_active - first)
        for s in range(n):
            ray = active[first + s]
            for row in range(NUM_ROWS):
                group[row, s] = state[row, ray]
            for axis in range(3):
                inverse[axis, s] = _inverse(group[DX + axis, s], size)
        moved = n
        while moved:
            _look(group, n, 0.5 * step_size, step_size, float(size), u, x, y, z, i, j, k, cells)
            for s in range(_U(n)):
                gap[s] = gaps[_U(cells[s])]
            moved = _jump(group, n, 1 / step_size, u, x, y, z, i, j, k, inverse, gap)
        for s in range(n):
            is_there = 0 <= step[s] < last[s] and u[s] < end[s]
            state[STEP, active[first + s]] = step[s] if is_there else -1.0
