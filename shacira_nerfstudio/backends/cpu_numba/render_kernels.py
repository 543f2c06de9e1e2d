"""Marching and compositing, a range of rays at a time.

The marcher works in double precision with the same formulas as `reference`, so that both return the
same set of samples. What it adds is skipping: in an empty cell it jumps to the cell's far side,
along the lattice of steps.
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

BLOCK = 8
"""Cells per axis of a block of the coarse occupancy."""


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
def _exit(x, velocity, cells):
    """Distance along the ray until coordinate ``x`` leaves its cell of width 1 / cells."""
    if velocity == 0:
        return np.inf
    border = math.floor(x * cells) + (1 if velocity > 0 else 0)
    return (border - x * cells) / (velocity * cells)


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
    origins, directions, t_mins, u_mins, t_maxs, num_steps, jitter, first_step, occupancy, coarse,
    contracted, low, extent, step_size, knee, max_samples, begin, end,
):  # fmt: skip
    """Samples rays begin:end. See :meth:`Backend.march`; lengths and bounds come from `reference`.

    Args:
        coarse: bool [G/BLOCK]^3, whether a block has an occupied cell; size 0 switches block
            skipping off.
        low, extent: float64 [3], lower corner and size of the box.

    Returns:
        t_starts, t_ends float32 [S], positions float32 [S, 3], counts and next_step int64 [end -
        begin].
    """
    size, num_blocks = occupancy.shape[0], coarse.shape[0]
    # Cells that lie across the border of the contraction hold curved and straight pieces of a ray.
    straddling = contracted and size % 4 != 0
    t_starts = np.empty(64 * (end - begin) + 1024, np.float32)
    t_ends, positions = np.empty_like(t_starts), np.empty((len(t_starts), 3), np.float32)
    counts, next_step = np.zeros(end - begin, np.int64), np.full(end - begin, -1, np.int64)
    # Speeds in the unit cube, where the contraction leaves the box half of each axis.
    share = 0.5 if contracted else 1.0
    total, r = 0, 1.0
    for ray in range(begin, end):
        ox = (origins[ray, 0] - low[0]) / extent[0]
        oy = (origins[ray, 1] - low[1]) / extent[1]
        oz = (origins[ray, 2] - low[2]) / extent[2]
        dx = directions[ray, 0] / extent[0]
        dy = directions[ray, 1] / extent[1]
        dz = directions[ray, 2] / extent[2]
        offset, t_max, count = u_mins[ray] + jitter[ray] * step_size, t_maxs[ray], 0
        step, last = first_step[ray], num_steps[ray]
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
            if occupancy[i, j, k]:
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
            cells = size
            if num_blocks > 0 and not coarse[i // BLOCK, j // BLOCK, k // BLOCK]:
                cells = num_blocks
            distance = min(
                _exit(x, share * dx, cells),
                _exit(y, share * dy, cells),
                _exit(z, share * dz, cells),
            )
            # Land on the last step that is still inside, or one further if none is: it cannot pass
            # a sample.
            jump = math.floor((_spacing(t_mid + distance, knee) - u_mid) / step_size - 1e-9)
            step += max(1, int(jump))
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
