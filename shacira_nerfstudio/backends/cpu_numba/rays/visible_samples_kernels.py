"""Samples of training rays that light reaches, all of it in one kernel: march, look up, density.

In batches, as in fused_render_kernels: a batch marches every ray that is not done by a few samples,
and takes these through the density network while they are in the second-level cache. Rays that are
opaque leave between batches, so that little of what lies behind a surface is looked at, and none of
it is kept.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FUSED, INT_ZERO
from shacira_nerfstudio.backends.cpu_numba.networks.network_kernels import density_forward
from shacira_nerfstudio.backends.cpu_numba.rays.fused_render_kernels import (
    BATCH_SAMPLES,
    MAX_EMPTY_LOOKUPS,
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
from shacira_nerfstudio.backends.cpu_numba.table.interpolate_kernels import PLACE, look_up
from shacira_nerfstudio.backends.networks import MAX_LOG_DENSITY

T_START, T_END, POSITION, FEATURES = 0, 1, 2, 5
"""Rows of what is kept of a sample: distances, position, then latents and outputs of the density
network."""


@numba.njit(**FUSED)
def _reached(outputs, t_starts, t_ends, first, count, optical_depth, limit):
    """How many samples of a ray have an optical depth in front of them that is within the limit,
    and the optical depth behind them."""
    most = np.float32(MAX_LOG_DENSITY)
    for s in range(first, first + count):
        if optical_depth > limit:
            return s - first, optical_depth
        sigma = math.exp(min(outputs[0, s], most))
        optical_depth += sigma * (t_ends[s] - t_starts[s])
    return count, optical_depth


@numba.njit(**FUSED)
def _keep(kept, total, sources, count, t_starts, t_ends, x, z, outputs):
    """Writes samples ``sources[:count]`` of a batch to columns total : total + count. Sample by
    sample, row after row: to assign slices as short as a ray's takes several times as long."""
    for i in range(count):
        kept[T_START, total + i] = t_starts[sources[i]]
        kept[T_END, total + i] = t_ends[sources[i]]
    for axis in range(3):
        for i in range(count):
            kept[POSITION + axis, total + i] = x[axis, sources[i]]
    for row in range(len(z)):
        for i in range(count):
            kept[FEATURES + row, total + i] = z[row, sources[i]]
    at = FEATURES + len(z)
    for row in range(len(outputs)):
        for i in range(count):
            kept[at + row, total + i] = outputs[row, sources[i]]


@numba.njit(**FUSED)
def march_visible(
    origins, directions, u_mins, t_maxs, num_steps, jitter, gaps, strides, filled, contracted, low,
    extent, step_size, knee, table, width, levels, mode, seed, num_levels, num_outputs, params,
    halves, layers, most_of_a_ray, max_samples, limit, begin, end,
):  # fmt: skip
    """Samples of rays begin:end. See :meth:`Backend.march_visible` and `march_kernels.march`.

    Args:
        table: float32, int8 or int16 [E d], row after row.
        width: d.
        levels: int64 [levels that are read, 6], see `interpolate_kernels.look_up`.
        most_of_a_ray: Samples of one ray in a batch.
        limit: Optical depth that ends a ray.

    Returns:
        What is kept [rows, S] in the order of batches, the ray and the rank in it of each sample
        int32 [2, S], counts and next_step int64 [end - begin], and how many samples were marched.
    """
    num_rays = end - begin
    state = start(
        origins, directions, u_mins, t_maxs, num_steps, jitter, filled, strides.size > 0,
        contracted, low, extent, step_size, knee, begin, end,
    )  # fmt: skip
    x = np.empty((3, BATCH_SAMPLES), np.float32)
    z = np.zeros((num_levels * width, BATCH_SAMPLES), np.float32)
    outputs = np.empty((num_outputs, BATCH_SAMPLES), np.float32)
    t_starts, t_ends = np.empty(BATCH_SAMPLES, np.float32), np.empty(BATCH_SAMPLES, np.float32)
    kept = np.empty((FEATURES + len(z) + num_outputs, 8 * num_rays + BATCH_SAMPLES), np.float32)
    places = np.empty((2, kept.shape[1]), np.int32)
    counts, added = np.zeros(num_rays, np.int64), np.empty(num_rays, np.int64)
    depths = np.zeros(num_rays)
    sources = np.empty(BATCH_SAMPLES, np.int64)
    active, num_active = np.arange(num_rays), num_rays
    is_straight = not contracted and knee == 0
    max_empty = MAX_EMPTY_LOOKUPS if is_straight else np.int64(1) << 62
    most = max_samples if max_samples > 0 else np.int64(1) << 62
    flat, total, marched = gaps.reshape(gaps.size), INT_ZERO, 0
    chunk = min(most_of_a_ray, BATCH_SAMPLES)
    next_step = np.full(num_rays, -1, np.int64)
    while num_active:
        if is_straight:
            search(state, active, num_active, flat, gaps.shape[0], step_size)
        taken, left = 0, 0
        while taken < num_active:
            since, filling = taken, INT_ZERO
            while taken < num_active and filling + chunk <= BATCH_SAMPLES:
                s = active[taken]
                added[taken], state[STEP, s] = walk(
                    state[OX, s], state[OY, s], state[OZ, s], state[DX, s], state[DY, s],
                    state[DZ, s], state[OFFSET, s], state[END, s], np.int64(state[STEP, s]),
                    np.int64(state[LAST, s]), gaps, strides, state[JITTER, s], contracted,
                    step_size, knee, t_starts, t_ends, x, filling, min(chunk, most - counts[s]),
                    max_empty,
                )  # fmt: skip
                filling += added[taken]
                taken += 1
            marched += filling
            for index in range(len(levels)):
                row = levels[index, PLACE] * width
                part = z[row : row + width]
                look_up(x, table, width, levels[index], mode, seed, part, filling)
            density_forward(z, params, halves, layers, outputs, INT_ZERO, filling)
            if total + filling > kept.shape[1]:
                kept, places = _grown(kept, places, total + filling)
            at, lit_total = INT_ZERO, INT_ZERO
            for index in range(since, taken):
                s, count = active[index], added[index]
                if counts[s] == most:  # there was no room: the step is that of one sample more
                    next_step[s] = np.int64(state[STEP, s])
                    continue
                lit, depths[s] = _reached(outputs, t_starts, t_ends, at, count, depths[s], limit)
                for i in range(lit):
                    sources[lit_total + i] = at + i
                    places[0, total + lit_total + i] = begin + s
                    places[1, total + lit_total + i] = counts[s] + i
                lit_total += lit
                counts[s] += lit
                at += count
                if state[STEP, s] >= 0 and depths[s] <= limit:
                    active[left] = s
                    left += 1
            _keep(kept, total, sources, lit_total, t_starts, t_ends, x, z, outputs)
            total += lit_total
        num_active = left
    return kept[:, :total], places[:, :total], counts, next_step, marched


@numba.njit(**FUSED)
def _grown(kept, places, wanted):
    """The two arrays with twice the room, or more if so much is wanted."""
    size = max(2 * kept.shape[1], wanted)
    rows, numbers = np.empty((len(kept), size), np.float32), np.empty((2, size), np.int32)
    # Row by row, as in march_kernels: an assignment in two dimensions is slow to compile.
    for r in range(len(kept)):
        rows[r, : kept.shape[1]] = kept[r]
    for r in range(len(places)):
        numbers[r, : places.shape[1]] = places[r]
    return rows, numbers


@numba.njit(**FUSED)
def arrange(kept, places, begins, out):
    """Writes samples where their rays want them: out [rows, S], with sample ``rank`` of a ray at
    column ``begins[ray] + rank``."""
    targets = np.empty(kept.shape[1], np.int64)
    for s in range(len(targets)):
        targets[s] = begins[places[0, s]] + places[1, s]
    for row in range(len(out)):
        for s in range(len(targets)):
            out[row, targets[s]] = kept[row, s]
