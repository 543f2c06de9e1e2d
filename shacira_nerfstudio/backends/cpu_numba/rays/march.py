"""Torch around the march, and what kernels are told of rays and of empty space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.cpu_numba.arrays import as_array
from shacira_nerfstudio.backends.cpu_numba.rays import march_kernels
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, run
from shacira_nerfstudio.backends.geometry import check_rays, ray_bounds, spacing
from shacira_nerfstudio.backends.types import MarchSettings, Samples

RAY_BLOCK = 1024
"""Rays per task: enough to fill a batch of samples when most of them have ended."""
MAX_GAP = 16
"""Cells that a ray can skip at once at the most; to look for more takes longer than it saves."""
Rays = tuple[np.ndarray, ...]
"""Origins, directions, the spacing where rays begin, where they end, their numbers of steps and
their jitter; in double precision."""


def ray_arrays(
    origins: Tensor,
    directions: Tensor,
    settings: MarchSettings,
    jitter: Tensor | None,
    limits: Tensor | None,
) -> Rays:
    """Rays as kernels read them; ValueError for rays that they must not read."""
    check_rays(origins, directions)
    o, d = origins.double(), directions.double()
    t_min, t_max = ray_bounds(o, d, settings, limits)
    u_min, u_max = spacing(t_min, settings.knee), spacing(t_max, settings.knee)
    num_steps = ((u_max - u_min) / settings.step_size).ceil().clamp_min(0)
    num_steps = torch.where(t_max > t_min, num_steps, 0)
    shift = torch.zeros_like(u_min) if jitter is None else jitter
    rays = [as_array(v, torch.float64) for v in (o, d, u_min, t_max)]
    return (*rays, as_array(num_steps, torch.int64), as_array(shift, torch.float64))


def max_optical_depth(early_stop: float) -> float:
    """Optical depth at which transmittance has fallen to ``early_stop``."""
    return -math.log(early_stop) if early_stop > 0 else math.inf


class EmptySpace:
    """What marches read of an occupancy grid; kept for the next call with the same tensor."""

    def __init__(self) -> None:
        self._latest: tuple[Tensor, int, tuple[np.ndarray, np.ndarray]] | None = None

    def arguments(
        self, occupancy: Tensor, settings: MarchSettings, log2_strides: Tensor | None = None
    ) -> tuple[Any, ...]:
        """Occupancy and settings as kernels take them: :func:`empty_gaps`, log2 of strides (none if
        every step is a sample), :func:`filled_bounds`, whether space is contracted, lower corner
        and size of the box, step size and knee."""
        latest = self._latest
        if latest is None or latest[0] is not occupancy or latest[1] != occupancy._version:
            cells = occupancy.contiguous().numpy().view(np.bool_)
            found = empty_gaps(cells), filled_bounds(cells)
            latest = self._latest = (occupancy, occupancy._version, found)
        low, high = (np.array(corner, np.float64) for corner in settings.box)
        is_contracted = settings.contraction == "contracted"
        strides = np.empty((0, 0, 0), np.uint8)
        if log2_strides is not None:
            strides = as_array(log2_strides, torch.uint8)
        gaps, bounds = latest[2]
        step_size, knee = settings.step_size, settings.knee
        return gaps, strides, bounds, is_contracted, low, high - low, step_size, knee


def march(
    rays: Rays,
    space: tuple[Any, ...],
    first_step: Tensor | None,
    *,
    max_samples: int,
    dtype: torch.dtype,
    num_threads: int,
) -> Samples:
    """See :meth:`Backend.march`.

    Args:
        space: From :meth:`EmptySpace.arguments`.
        dtype: Of the result.
    """
    num_rays = len(rays[0])
    first = (
        np.zeros(num_rays, np.int64) if first_step is None else as_array(first_step, torch.int64)
    )
    kernel: Any = march_kernels.march
    parts = run(
        lambda begin, end: kernel(*rays, first, *space, max_samples, begin, end),
        blocks(num_rays, RAY_BLOCK),
        num_threads,
    )
    return _join(parts, dtype)


def _join(parts: list, dtype: torch.dtype) -> Samples:
    """Concatenates what the blocks of rays returned."""
    if not parts:
        empty, none = torch.zeros(0, dtype=dtype), torch.zeros(0, dtype=torch.long)
        return Samples(empty, empty, torch.zeros(3, 0, dtype=dtype).t(), none.view(0, 2), none)
    t_starts, t_ends, positions, counts, next_step = (
        torch.from_numpy(np.concatenate(column, axis=-1)) for column in zip(*parts, strict=True)
    )
    return Samples(
        t_starts=t_starts.to(dtype),
        t_ends=t_ends.to(dtype),
        positions=positions.t().to(dtype),
        packed_info=torch.stack([counts.cumsum(0) - counts, counts], 1),
        next_step=next_step,
    )


def empty_gaps(cells: np.ndarray) -> np.ndarray:
    """How far each cell is from the next occupied one, uint8 [G, G, G].

    Distances are those of a king on a chess board: 0 for an occupied cell, 1 for its neighbours,
    diagonal ones included; :data:`MAX_GAP` is the largest.
    """
    near = cells.copy()
    gaps = (~near).view(np.uint8)
    for _ in range(MAX_GAP - 1):
        for axis in range(3):
            lines, before = np.moveaxis(near, axis, 0), np.moveaxis(near.copy(), axis, 0)
            lines[1:] |= before[:-1]
            lines[:-1] |= before[1:]
        if near.all():
            break
        gaps += ~near
    return gaps


def filled_bounds(cells: np.ndarray) -> np.ndarray:
    """Lower and upper bound of the occupied cells in the unit cube, float64 [3, 2].

    Outermost cells have no bound: positions beyond the cube count as theirs.
    """
    bounds = np.empty((3, 2))
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        along = np.flatnonzero(cells.any(axis=others))
        size = len(cells)
        if not len(along):
            return np.array([[np.inf, -np.inf]] * 3)
        low, high = int(along[0]), int(along[-1]) + 1
        bounds[axis, 0] = low / size if low else -np.inf
        bounds[axis, 1] = high / size if high < size else np.inf
    return bounds
