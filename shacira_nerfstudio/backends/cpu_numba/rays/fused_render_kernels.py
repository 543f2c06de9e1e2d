"""Rendering for looking, all of it in one kernel: march, look up, both networks, composite.

A task takes some hundred rays through batches of samples. A batch marches every ray that is not
done by a few samples, at most BATCH_SAMPLES of them together, and takes these through everything
while they are in the second-level cache: what a view makes on the way would otherwise fill
gigabytes of fresh memory, at a page fault for each 4 kB. Rays that are opaque, or at their end,
leave between batches; first batches take few samples of each ray, because most rays end at the
first surface. Colours come last, for samples whose weight matters.

Notation as in :mod:`shacira_nerfstudio.backends.base`; W = BATCH_SAMPLES.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FUSED, INT_ZERO
from shacira_nerfstudio.backends.cpu_numba.networks.network_kernels import (
    COLUMNS,
    TILE,
    apply_layers,
    clear,
    density_forward,
    widest,
)
from shacira_nerfstudio.backends.cpu_numba.rays.march_kernels import walk
from shacira_nerfstudio.backends.cpu_numba.rays.search_kernels import (
    DX,
    DY,
    DZ,
    END,
    JITTER,
    LAST,
    OFFSET,
    OX,
    OY,
    OZ,
    STEP,
    search,
    start,
)
from shacira_nerfstudio.backends.cpu_numba.table.interpolate_kernels import look_up
from shacira_nerfstudio.backends.networks import MAX_LOG_DENSITY

BATCH_SAMPLES = 2048
"""Most samples of a batch: what it holds of them, 150 bytes each, and the table of a level share a
second-level cache of 512 kB."""
MAX_CHUNK = 32
"""Most samples per ray of a batch, unless the first has more: rays that go on for long are few, and
a batch should hold several of them."""
MAX_EMPTY_LOOKUPS = 2
"""Looks at empty space that a ray may take between two samples of a batch; a wider gap is for the
search, which takes less time for each."""
_ZERO, _ONE = np.float32(0), np.float32(1)


@numba.njit(**FUSED)
def _weigh(outputs, t_starts, t_ends, first, count, in_front, early_stop, weights):
    """Writes weights [W] of a ray's samples.

    Returns:
        Transmittance behind them (or behind the first of them where it falls below ``early_stop``),
        the sum of weights times distances, and how many samples light reached.
    """
    limit, distance = np.float32(MAX_LOG_DENSITY), 0.0
    for s in range(first, first + count):
        sigma = math.exp(min(outputs[0, s], limit))
        through = math.exp(-np.float64(sigma * (t_ends[s] - t_starts[s])))
        weight = in_front * (1 - through)
        weights[s] = weight
        distance += weight * (0.5 * (t_starts[s] + t_ends[s]))
        in_front *= through
        if in_front < early_stop:
            return in_front, distance, s + 1 - first
    return in_front, distance, count


@numba.njit(**FUSED)
def _pick(weights, first, count, carried, min_weight, picked, shares, num_picked):
    """Appends to ``picked`` the samples of a ray whose colour is wanted, to ``shares`` the weight
    that it gets.

    Weights of up to ``min_weight`` are carried on to the next sample of the ray.

    Returns:
        The number of samples picked by now, and the weight to carry on.
    """
    for s in range(first, first + count):
        carried += weights[s]
        if carried > min_weight:
            picked[num_picked], shares[num_picked] = s, carried
            num_picked += 1
            carried = _ZERO
    return num_picked, carried


@numba.njit(**FUSED)
def _paint(outputs, features, rays, params, layers, picked, shares, count, color, last, x, y):
    """Adds colours of the picked samples to color [R, 3], and notes the latest of each ray in last
    [R, 3].

    Args:
        picked, shares: of ``count`` samples, from :func:`_pick`.
        rays: int64, the ray of each sample.
        x, y: float32 [widest layer TILE], to work in.
    """
    width, geometry = features.shape[1], outputs.shape[0] - 1
    halves = np.empty(0, np.int32)  # pictures are the same on all machines: float32
    for begin in range(0, count, TILE):
        n = min(TILE, count - begin)
        clear(x, 0, layers[0, COLUMNS])
        for i in range(n):
            sample = picked[begin + i]
            ray = rays[sample]
            for a in range(width):
                x[a * TILE + i] = features[ray, a]
            for g in range(geometry):
                x[(width + g) * TILE + i] = outputs[1 + g, sample]
        x, y = apply_layers(params, halves, layers, x, y, halves)
        for i in range(n):
            ray, share = rays[picked[begin + i]], shares[begin + i]
            for c in range(3):
                value = _ONE / (_ONE + math.exp(-x[c * TILE + i]))
                color[ray, c] += share * value
                last[ray, c] = value


@numba.njit(**FUSED)
def _finish(
    ends, is_open, carried, transmittance, early_stop, features, params, layers, color, last, x, y,
    begin,
):  # fmt: skip
    """Gives a colour to what is left at the end of rays: to a ray that one can see through that of
    its last sample, to others the latest that they have.

    Args:
        ends: float32 [G, rays], outputs of the density network at the last sample of each ray.
        is_open: Whether that has no colour yet.
    """
    rays, shares = np.arange(begin, begin + len(carried)), np.empty(len(carried), np.float32)
    picked, count = np.empty(len(carried), np.int64), INT_ZERO
    for s in range(len(carried)):
        if is_open[s] and transmittance[begin + s] >= early_stop:
            picked[count], shares[count] = s, carried[s]
            count += 1
        else:
            for c in range(3):
                color[begin + s, c] += carried[s] * last[begin + s, c]
    _paint(ends, features, rays, params, layers, picked, shares, count, color, last, x, y)


@numba.njit(**FUSED)
def render(
    origins, directions, u_mins, t_maxs, num_steps, jitter, features, gaps, strides, filled,
    contracted, low, extent, step_size, knee, table, width, levels, mode, seed, num_outputs, params,
    density_layers, color_layers, first_chunk, early_stop, min_weight, color, transmittance,
    distance, last, begin, end,
):  # fmt: skip
    """Renders rays begin:end. See :meth:`Backend.render` and `march_kernels.march`.

    Args:
        features: float32 [R, A].
        table: float32, int8 or int16 [E d], row after row.
        width: d.
        levels: int64 [levels that are read, 6], see `interpolate_kernels.look_up`.
        num_outputs: Outputs of the density network.
        density_layers: Of a network whose inputs are the latents of the levels that are read.
        color, transmittance, distance, last: float32 [R, 3], [R], [R], [R, 3]; zeros, and ones for
            the transmittance, to begin with.

    Returns:
        The number of samples.
    """
    num_rays, size = end - begin, widest(color_layers) * TILE
    state = start(
        origins, directions, u_mins, t_maxs, num_steps, jitter, filled, strides.size > 0,
        contracted, low, extent, step_size, knee, begin, end,
    )  # fmt: skip
    x = np.empty((3, BATCH_SAMPLES), np.float32)
    z = np.empty((len(levels) * width, BATCH_SAMPLES), np.float32)
    outputs = np.empty((num_outputs, BATCH_SAMPLES), np.float32)
    weights, shares = np.empty(BATCH_SAMPLES, np.float32), np.empty(BATCH_SAMPLES, np.float32)
    t_starts, t_ends = np.empty(BATCH_SAMPLES, np.float32), np.empty(BATCH_SAMPLES, np.float32)
    rays, picked = np.empty(BATCH_SAMPLES, np.int64), np.empty(BATCH_SAMPLES, np.int64)
    tile, other = np.empty(size, np.float32), np.empty(size, np.float32)
    # Of each ray: what the last sample was, weight that has no colour yet, and whether that is so
    # of the last sample's.
    ends, carried = np.empty((num_outputs, num_rays), np.float32), np.zeros(num_rays, np.float32)
    is_open = np.zeros(num_rays, np.bool_)
    halves = np.empty(0, np.int32)  # pictures are the same on all machines: float32
    counts, active, num_active = np.empty(num_rays, np.int64), np.arange(num_rays), num_rays
    is_straight = not contracted and knee == 0
    max_empty = MAX_EMPTY_LOOKUPS if is_straight else np.int64(1) << 62
    flat, total, chunk = gaps.reshape(gaps.size), 0, min(first_chunk, BATCH_SAMPLES)
    while num_active:
        if is_straight:
            search(state, active, num_active, flat, gaps.shape[0], step_size)
        taken, left = 0, 0
        while taken < num_active:
            since, filling = taken, INT_ZERO
            while taken < num_active and filling + chunk <= BATCH_SAMPLES:
                s = active[taken]
                counts[taken], state[STEP, s] = walk(
                    state[OX, s], state[OY, s], state[OZ, s], state[DX, s], state[DY, s],
                    state[DZ, s], state[OFFSET, s], state[END, s], np.int64(state[STEP, s]),
                    np.int64(state[LAST, s]), gaps, strides, state[JITTER, s], contracted,
                    step_size, knee, t_starts, t_ends, x, filling, chunk, max_empty,
                )  # fmt: skip
                rays[filling : filling + counts[taken]] = begin + s
                filling += counts[taken]
                taken += 1
            total += filling
            for index in range(len(levels)):
                part = z[index * width : (index + 1) * width]
                look_up(x, table, width, levels[index], mode, seed, part, filling)
            density_forward(z, params, halves, density_layers, outputs, INT_ZERO, filling)
            at, num_picked = INT_ZERO, INT_ZERO
            for index in range(since, taken):
                s, count = active[index], counts[index]
                ray = begin + s
                transmittance[ray], mean, lit = _weigh(
                    outputs, t_starts, t_ends, at, count, transmittance[ray], early_stop, weights
                )
                distance[ray] += mean
                before = num_picked
                num_picked, carried[s] = _pick(
                    weights, at, lit, carried[s], min_weight, picked, shares, num_picked
                )
                if count:
                    final = at + lit - 1
                    is_open[s] = num_picked == before or picked[num_picked - 1] != final
                    if is_open[s]:
                        ends[:, s] = outputs[:, final]
                if state[STEP, s] >= 0 and transmittance[ray] >= early_stop:
                    active[left] = s
                    left += 1
                at += count
            _paint(
                outputs, features, rays, params, color_layers, picked, shares, num_picked, color,
                last, tile, other,
            )  # fmt: skip
        num_active, chunk = left, max(chunk, min(2 * chunk, MAX_CHUNK))
    _finish(
        ends, is_open, carried, transmittance, early_stop, features, params, color_layers, color,
        last, tile, other, begin,
    )  # fmt: skip
    return total
