"""Marching, a range of rays at a time.

In double precision with the same formulas as `reference`, so that both return the same set of
samples. What is added is skipping: from an empty cell a ray jumps past all the empty cells around
it, along the lattice of steps; outside of the box, where contraction bends it, by curved_exit.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import EXACT, INT_ZERO
from shacira_nerfstudio.backends.cpu_numba.rays.curved_exit import exit_outside


@numba.njit(inline="always", **EXACT)
def _spacing(t, knee):
    if knee == 0 or t <= knee:
        return t
    return knee * (2 - knee / t)


@numba.njit(inline="always", **EXACT)
def _spacing_inverse(u, knee):
    if knee == 0 or u <= knee:
        return u
    return knee * knee / max(2 * knee - u, 1e-6 * knee)


@numba.njit(inline="always", **EXACT)
def _cell(x, size):
    """Cell of a coordinate of the unit cube; outside it is clamped."""
    return min(max(int(x * size), 0), size - 1)


@numba.njit(inline="always", **EXACT)
def _exit(x, inverse, cell, gap, size, inner):
    """Distance along the ray until coordinate ``x`` leaves the empty cells around its own.

    Args:
        inverse: Of the velocity in cells; not finite if it stands still.
        gap: All cells nearer than so many to ``cell`` are empty.
        inner: Whether to stop at the middle half of the axis, where straight rays end.
    """
    if not abs(inverse) < np.inf:
        return np.inf
    border = cell + gap if inverse > 0 else cell - gap + 1
    if inner:
        border = min(max(border, size // 4), 3 * size // 4)
    return (border - x * size) * inverse


@numba.njit(inline="always", **EXACT)
def _slab(origin, velocity, low, high, enter, leave):
    """Cuts the span enter … leave of a ray down to where one coordinate is within low … high."""
    if velocity == 0:
        return (enter, leave) if low <= origin <= high else (enter, -np.inf)
    a, b = (low - origin) / velocity, (high - origin) / velocity
    return max(enter, min(a, b)), min(leave, max(a, b))


@numba.njit(inline="always", **EXACT)
def _contract(x, y, z):
    """Contracts a point of the box's unit cube; also returns its L-infinity radius, at least 1."""
    x, y, z = 2 * x - 1, 2 * y - 1, 2 * z - 1
    r = max(1.0, abs(x), abs(y), abs(z))
    factor = (2 - 1 / r) / r
    return (x * factor + 2) / 4, (y * factor + 2) / 4, (z * factor + 2) / 4, r


@numba.njit(**EXACT)
def _grown(t_starts, t_ends, positions):
    """The three arrays with twice the room."""
    size = len(t_starts)
    starts, ends = np.empty(2 * size, np.float32), np.empty(2 * size, np.float32)
    points = np.empty((3, 2 * size), np.float32)
    starts[:size], ends[:size] = t_starts, t_ends
    for axis in range(3):  # numba takes seconds to compile an assignment in two dimensions
        points[axis, :size] = positions[axis]
    return starts, ends, points


@numba.njit(**EXACT)
def start_ray(
    origin, direction, u_min, t_max, last, jitter, step, filled, has_strides, contracted, low,
    extent, step_size, knee,
):  # fmt: skip
    """What :func:`walk` is told of a ray. See :func:`march`.

    Args:
        origin, direction: float64 [3].

    Returns:
        Origin and direction in the unit cube of the box, spacing of the first step's edge, distance
        at which to stop, and the step to begin with.
    """
    ox = (origin[0] - low[0]) / extent[0]
    oy = (origin[1] - low[1]) / extent[1]
    oz = (origin[2] - low[2]) / extent[2]
    dx = direction[0] / extent[0]
    dy = direction[1] / extent[1]
    dz = direction[2] / extent[2]
    offset = u_min + jitter * step_size
    if step >= 0 and not contracted:
        enter, leave = 0.0, np.inf
        enter, leave = _slab(ox, dx, filled[0, 0], filled[0, 1], enter, leave)
        enter, leave = _slab(oy, dy, filled[1, 0], filled[1, 1], enter, leave)
        enter, leave = _slab(oz, dz, filled[2, 0], filled[2, 1], enter, leave)
        # Samples are half a step behind edges; the slack covers the rounding of the bounds.
        skipped = (_spacing(enter, knee) - offset) / step_size - 0.5 - 1e-6
        step = max(step, int(math.floor(min(skipped, float(last)))))
        if not has_strides:  # whose last sample may begin before that and lie behind it
            t_max = min(t_max, leave * (1 + 1e-9) + 1e-9)
    return ox, oy, oz, dx, dy, dz, offset, t_max, step


@numba.njit(**EXACT)
def _allows(
    step, exponent, t_max, ox, oy, oz, dx, dy, dz, offset, strides, contracted, step_size, knee,
):  # fmt: skip
    """Whether a step's middle lies before the end of the ray, in a cell that allows samples of
    2^exponent steps."""
    t = _spacing_inverse(offset + step * step_size + 0.5 * step_size, knee)
    if not t < t_max:
        return False
    x, y, z, size = ox + t * dx, oy + t * dy, oz + t * dz, strides.shape[0]
    if contracted:
        x, y, z, _ = _contract(x, y, z)
    return strides[_cell(x, size), _cell(y, size), _cell(z, size)] >= exponent


@numba.njit(**EXACT)
def _stride_exponent(
    step, last, most, t_max, ox, oy, oz, dx, dy, dz, offset, strides, contracted, step_size, knee,
):  # fmt: skip
    """Log2 of how many steps the sample at ``step`` stands for, see :meth:`Backend.march`.

    Args:
        most: What the cell of the step itself allows.
    """
    exponent = most
    while exponent > 0:
        length = np.int64(1) << np.int64(exponent)
        if (
            step % length == 0
            and step + length <= last
            and _allows(
                step + length // 2, exponent, t_max, ox, oy, oz, dx, dy, dz, offset, strides,
                contracted, step_size, knee,
            )
            and _allows(
                step + length - 1, exponent, t_max, ox, oy, oz, dx, dy, dz, offset, strides,
                contracted, step_size, knee,
            )
        ):  # fmt: skip
            break
        exponent -= 1
    return exponent


@numba.njit(**EXACT)
def walk(
    ox, oy, oz, dx, dy, dz, offset, t_max, step, last, gaps, strides, jitter, contracted, step_size,
    knee, t_starts, t_ends, positions, at, room, max_empty_lookups,
):  # fmt: skip
    """Writes up to ``room`` samples of a ray, from ``step`` on, to the places from ``at`` on.

    Args:
        last: Number of steps of the ray.
        gaps: uint8 [G, G, G]; 0 where a cell is occupied, else so many that all cells nearer than
            that, diagonals counting as 1, are empty.
        strides: uint8 [G, G, G], see :meth:`Backend.march`; empty if every step is a sample.
        t_starts, t_ends, positions: float32 [N], [N] and [3, N].
        max_empty_lookups: How often to look at empty space before giving up for now.

    Returns:
        The number of samples, and the step to go on with: that of the next sample, unless
        ``max_empty_lookups`` ended the search for it; -1 if there is none.
    """
    size = gaps.shape[0]
    # Cells that lie across the border of the contraction hold curved and straight pieces of a ray.
    straddling = contracted and size % 4 != 0
    # Speeds in the unit cube, where the contraction leaves the box half of each axis.
    share = 0.5 if contracted else 1.0
    inverse_x, inverse_y = 1 / (share * dx * size), 1 / (share * dy * size)
    inverse_z = 1 / (share * dz * size)
    count, r, steps_per_unit = 0, 1.0, 1 / step_size
    while 0 <= step < last:
        edge = offset + step * step_size
        u_mid = edge + 0.5 * step_size
        t_mid = _spacing_inverse(u_mid, knee)
        if not t_mid < t_max:
            break
        x, y, z = ox + t_mid * dx, oy + t_mid * dy, oz + t_mid * dz
        if contracted:
            x, y, z, r = _contract(x, y, z)
        i, j, k = _cell(x, size), _cell(y, size), _cell(z, size)
        gap = np.int64(gaps[i, j, k])
        if gap == 0:
            if count == room:
                return count, step
            length = np.int64(1)
            if strides.size > 0 and strides[i, j, k] > 0:
                exponent = _stride_exponent(
                    step, last, np.int64(strides[i, j, k]), t_max, ox, oy, oz, dx, dy, dz, offset,
                    strides, contracted, step_size, knee,
                )  # fmt: skip
                if exponent > 0:
                    length = np.int64(1) << exponent
                    t_mid = _spacing_inverse(edge + jitter * (length * step_size), knee)
                    x, y, z = ox + t_mid * dx, oy + t_mid * dy, oz + t_mid * dz
                    if contracted:
                        x, y, z, r = _contract(x, y, z)
            t_starts[at + count] = _spacing_inverse(edge, knee)
            t_ends[at + count] = _spacing_inverse(edge + length * step_size, knee)
            positions[0, at + count], positions[1, at + count] = x, y
            positions[2, at + count] = z
            count += 1
            step += length
            continue
        if max_empty_lookups == 0:
            return count, step
        max_empty_lookups -= 1
        if straddling:
            step += 1
            continue
        if r > 1.0:
            distance = exit_outside(ox, oy, oz, dx, dy, dz, t_mid, i, j, k, gap, size)
        else:
            distance = min(
                _exit(x, inverse_x, i, gap, size, contracted),
                _exit(y, inverse_y, j, gap, size, contracted),
                _exit(z, inverse_z, k, gap, size, contracted),
            )
        # On to the first step that is not surely inside: it cannot pass a sample.
        inside = math.floor((_spacing(t_mid + distance, knee) - u_mid) * steps_per_unit - 1e-9)
        step += max(1, int(inside) + 1)
    return count, -1


@numba.njit(**EXACT)
def march(
    origins, directions, u_mins, t_maxs, num_steps, jitter, first_step, gaps, strides,
    filled, contracted, low, extent, step_size, knee, max_samples, begin, end,
):  # fmt: skip
    """Samples rays begin:end. See :meth:`Backend.march` and :func:`walk`; lengths and bounds come
    from `reference`.

    Args:
        filled: float64 [3, 2], bounds of all occupied cells in the unit cube. Straight rays are
            looked at between them only.
        low, extent: float64 [3], lower corner and size of the box.

    Returns:
        t_starts, t_ends float32 [S], positions float32 [3, S], counts and next_step int64 [end -
        begin].
    """
    t_starts = np.empty(64 * (end - begin) + 1024, np.float32)
    t_ends, positions = np.empty_like(t_starts), np.empty((3, len(t_starts)), np.float32)
    counts, next_step = np.zeros(end - begin, np.int64), np.full(end - begin, -1, np.int64)
    forever = np.int64(1) << 62
    most, total = max_samples if max_samples > 0 else forever, INT_ZERO
    for ray in range(begin, end):
        count, last = 0, num_steps[ray]
        ox, oy, oz, dx, dy, dz, offset, t_max, step = start_ray(
            origins[ray], directions[ray], u_mins[ray], t_maxs[ray], last, jitter[ray],
            first_step[ray], filled, strides.size > 0, contracted, low, extent, step_size, knee,
        )  # fmt: skip
        while step >= 0:
            room = min(most - count, len(t_starts) - total)
            added, step = walk(
                ox, oy, oz, dx, dy, dz, offset, t_max, step, last, gaps, strides, jitter[ray],
                contracted, step_size, knee, t_starts, t_ends, positions, total, room, forever,
            )  # fmt: skip
            count, total = count + added, total + added
            if step < 0 or count == most:
                break
            t_starts, t_ends, positions = _grown(t_starts, t_ends, positions)
        counts[ray - begin], next_step[ray - begin] = count, step
    return t_starts[:total], t_ends[:total], positions[:, :total], counts, next_step
