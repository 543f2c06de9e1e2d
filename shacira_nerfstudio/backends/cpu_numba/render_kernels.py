"""Marching and compositing, a range of rays at a time.

The marcher works in double precision with the same formulas as `reference`, so that both return the
same set of samples. What it adds is skipping: from an empty cell it jumps past all the empty cells
around it, along the lattice of steps.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_EXACT = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
}  # no fastmath: parity with reference
_FAST = {**_EXACT, "fastmath": {"contract", "nsz", "arcp"}}


@numba.njit(inline="always", **_EXACT)
def _spacing(t, knee):
    if knee == 0 or t <= knee:
        return t
    return knee * (2 - knee / t)


@numba.njit(inline="always", **_EXACT)
def _spacing_inverse(u, knee):
    if knee == 0 or u <= knee:
        return u
    return knee * knee / max(2 * knee - u, 1e-6 * knee)


@numba.njit(inline="always", **_EXACT)
def _cell(x, size):
    """Cell of a coordinate of the unit cube; outside it is clamped."""
    return min(max(int(x * size), 0), size - 1)


@numba.njit(inline="always", **_EXACT)
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


@numba.njit(inline="always", **_EXACT)
def _slab(origin, velocity, low, high, enter, leave):
    """Cuts the span enter … leave of a ray down to where one coordinate is within low … high."""
    if velocity == 0:
        return (enter, leave) if low <= origin <= high else (enter, -np.inf)
    a, b = (low - origin) / velocity, (high - origin) / velocity
    return max(enter, min(a, b)), min(leave, max(a, b))


@numba.njit(inline="always", **_EXACT)
def _contract(x, y, z):
    """Contracts a point of the box's unit cube; also returns its L-infinity radius, at least 1."""
    x, y, z = 2 * x - 1, 2 * y - 1, 2 * z - 1
    r = max(1.0, abs(x), abs(y), abs(z))
    factor = (2 - 1 / r) / r
    return (x * factor + 2) / 4, (y * factor + 2) / 4, (z * factor + 2) / 4, r


@numba.njit(**_EXACT)
def _grown(t_starts, t_ends, positions):
    """The three arrays with twice the room."""
    size = len(t_starts)
    starts, ends = np.empty(2 * size, np.float32), np.empty(2 * size, np.float32)
    points = np.empty((2 * size, 3), np.float32)
    starts[:size], ends[:size], points[:size] = t_starts, t_ends, positions
    return starts, ends, points


@numba.njit(**_EXACT)
def march(
    origins, directions, t_mins, u_mins, t_maxs, num_steps, jitter, first_step, gaps,
    filled, contracted, low, extent, step_size, knee, max_samples, begin, end,
):  # fmt: skip
    """Samples rays begin:end. See :meth:`Backend.march`; lengths and bounds come from `reference`.

    Args:
        gaps: uint8 [G, G, G]; 0 where a cell is occupied, else so many that all cells nearer than
            that, diagonals counting as 1, are empty.
        filled: float64 [3, 2], bounds of all occupied cells in the unit cube. Straight rays are
            looked at between them only.
        low, extent: float64 [3], lower corner and size of the box.

    Returns:
        t_starts, t_ends float32 [S], positions float32 [S, 3], counts and next_step int64 [end -
        begin].
    """
    size = gaps.shape[0]
    # Cells that lie across the border of the contraction hold curved and straight pieces of a ray.
    straddling = contracted and size % 4 != 0
    t_starts = np.empty(64 * (end - begin) + 1024, np.float32)
    t_ends, positions = np.empty_like(t_starts), np.empty((len(t_starts), 3), np.float32)
    counts, next_step = np.zeros(end - begin, np.int64), np.full(end - begin, -1, np.int64)
    # Speeds in the unit cube, where the contraction leaves the box half of each axis.
    share = 0.5 if contracted else 1.0
    total, r = 0, 1.0
    steps_per_unit = 1 / step_size
    for ray in range(begin, end):
        ox = (origins[ray, 0] - low[0]) / extent[0]
        oy = (origins[ray, 1] - low[1]) / extent[1]
        oz = (origins[ray, 2] - low[2]) / extent[2]
        dx = directions[ray, 0] / extent[0]
        dy = directions[ray, 1] / extent[1]
        dz = directions[ray, 2] / extent[2]
        inverse_x, inverse_y = 1 / (share * dx * size), 1 / (share * dy * size)
        inverse_z = 1 / (share * dz * size)
        offset, t_max, count = u_mins[ray] + jitter[ray] * step_size, t_maxs[ray], 0
        step, last = first_step[ray], num_steps[ray]
        if step >= 0 and not contracted:
            enter, leave = 0.0, np.inf
            enter, leave = _slab(ox, dx, filled[0, 0], filled[0, 1], enter, leave)
            enter, leave = _slab(oy, dy, filled[1, 0], filled[1, 1], enter, leave)
            enter, leave = _slab(oz, dz, filled[2, 0], filled[2, 1], enter, leave)
            # Samples are half a step behind edges; the slack covers the rounding of the bounds.
            skipped = (_spacing(enter, knee) - offset) * steps_per_unit - 0.5 - 1e-6
            step = max(step, int(math.floor(min(skipped, float(last)))))
            t_max = min(t_max, leave * (1 + 1e-9) + 1e-9)
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
                if max_samples > 0 and count == max_samples:
                    next_step[ray - begin] = step
                    break
                if total == len(t_starts):
                    t_starts, t_ends, positions = _grown(t_starts, t_ends, positions)
                t_starts[total] = _spacing_inverse(edge, knee)
                t_ends[total] = _spacing_inverse(edge + step_size, knee)
                positions[total, 0], positions[total, 1], positions[total, 2] = x, y, z
                total += 1
                count += 1
                step += 1
                continue
            if r > 1.0 or straddling:  # rays are curved out there; no jump
                step += 1
                continue
            distance = min(
                _exit(x, inverse_x, i, gap, size, contracted),
                _exit(y, inverse_y, j, gap, size, contracted),
                _exit(z, inverse_z, k, gap, size, contracted),
            )
            # On to the first step that is not surely inside: it cannot pass a sample.
            inside = math.floor((_spacing(t_mid + distance, knee) - u_mid) * steps_per_unit - 1e-9)
            step += max(1, int(inside) + 1)
        counts[ray - begin] = count
    return t_starts[:total], t_ends[:total], positions[:total], counts, next_step


@numba.njit(**_FAST)
def composite_forward(
    sigmas, rgbs, t_starts, t_ends, packed_info, color, accumulation, distance, begin, end
):  # fmt: skip
    """Writes color [R, C], accumulation [R] and distance [R] of rays begin:end. See
    `Backend.composite`."""
    num_channels = rgbs.shape[1]
    total = np.zeros(num_channels)
    for ray in range(begin, end):
        optical_depth, acc, dist = 0.0, 0.0, 0.0
        total[:] = 0
        first = packed_info[ray, 0]
        for s in range(first, first + packed_info[ray, 1]):
            depth = sigmas[s] * (t_ends[s] - t_starts[s])
            weight = math.exp(-optical_depth) * -math.expm1(-depth)
            optical_depth += depth
            acc += weight
            dist += weight * (0.5 * (t_starts[s] + t_ends[s]))
            for c in range(num_channels):
                total[c] += weight * rgbs[s, c]
        for c in range(num_channels):
            color[ray, c] = total[c]
        accumulation[ray] = acc
        distance[ray] = dist


@numba.njit(**_FAST)
def composite_backward(
    sigmas, rgbs, t_starts, t_ends, packed_info, grad_color, grad_accumulation, grad_distance,
    grad_sigmas, grad_rgbs, begin, end,
):  # fmt: skip
    """Writes grad_sigmas [S] and grad_rgbs [S, C] for rays begin:end.

    With g_i the gradient of the loss in w_i: dL/dsigma_i = delta_i (T_{i+1} g_i - sum_{j>i} w_j
    g_j).
    """
    num_channels = rgbs.shape[1]
    for ray in range(begin, end):
        first, count = packed_info[ray, 0], packed_info[ray, 1]
        # Back to front: the suffix sum grows, and the optical depth shrinks to what lies in front.
        optical_depth = 0.0
        for s in range(first, first + count):
            # In double precision as below: the second loop takes away what this one added.
            optical_depth += sigmas[s] * np.float64(t_ends[s] - t_starts[s])
        suffix = 0.0
        behind = math.exp(-optical_depth)
        for s in range(first + count - 1, first - 1, -1):
            delta = np.float64(t_ends[s] - t_starts[s])
            depth = sigmas[s] * delta
            optical_depth -= depth
            front = math.exp(-optical_depth)
            weight = front * -math.expm1(-depth)
            g = grad_accumulation[ray] + grad_distance[ray] * (0.5 * (t_starts[s] + t_ends[s]))
            for c in range(num_channels):
                g += grad_color[ray, c] * rgbs[s, c]
                grad_rgbs[s, c] = weight * grad_color[ray, c]
            grad_sigmas[s] = delta * (behind * g - suffix)
            suffix += weight * g
            behind = front


@numba.njit(**_FAST)
def visible(sigmas, t_starts, t_ends, packed_info, max_optical_depth, counts, begin, end):
    """Writes counts [R] for rays begin:end: how many samples have an optical depth in front of them
    that is within the limit."""
    for ray in range(begin, end):
        optical_depth, count = 0.0, 0
        first = packed_info[ray, 0]
        for s in range(first, first + packed_info[ray, 1]):
            if optical_depth > max_optical_depth:
                break
            count += 1
            optical_depth += sigmas[s] * (t_ends[s] - t_starts[s])
        counts[ray] = count


@numba.njit(**_FAST)
def take_front(source, target, begins, kept, step, begin, end):
    """Copies the first samples of rays begin:end, ``step`` numbers each, row by row.

    Args:
        source, target: [K, S step] and [K, T step].
        begins: int64 [R], the first sample of each ray in ``source``.
        kept: int64 [R, 2], first sample and number of samples in ``target``.
    """
    for k in range(len(source)):
        for ray in range(begin, end):
            at, to = begins[ray] * step, kept[ray, 0] * step
            for i in range(kept[ray, 1] * step):
                target[k, to + i] = source[k, at + i]
