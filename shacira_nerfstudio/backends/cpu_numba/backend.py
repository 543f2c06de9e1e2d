"""Torch in, torch out: splits work over threads, wraps kernels in autograd.

Kernels release the GIL and run on a pool of plain threads instead of numba's own parallel layer:
that layer may not be entered from two threads at once, which the web viewer does while training
goes on, and its spinning workers take cores from torch. No two threads write the same memory
(samples by block in the forward pass, whole levels in the backward pass), so results do not depend
on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.base import (
    MarchSettings,
    Precision,
    Rendering,
    Samples,
    VisibleSamples,
    Weights,
)
from shacira_nerfstudio.backends.cpu_numba import interpolate_kernels, march_kernels
from shacira_nerfstudio.backends.cpu_numba import visible_samples as front
from shacira_nerfstudio.backends.cpu_numba import composite_kernels as render_kernels
from shacira_nerfstudio.backends.cpu_numba import render as views
from shacira_nerfstudio.backends.cpu_numba.bfloat16_kernels import HAS_BFLOAT16
from shacira_nerfstudio.backends.cpu_numba.latents import (
    CodedBits,
    LogisticBits,
    noisy,
    update_rows,
)
from shacira_nerfstudio.backends.cpu_numba.networks import PackedNetworks, Shade, raw_density
from shacira_nerfstudio.backends.cpu_numba.threads import blocks, default_num_threads, run
from shacira_nerfstudio.backends.reference import ray_bounds, spacing
from shacira_nerfstudio.backends.sparse_rows import PLAIN, AdamState, Quantizer, RowGradient
from shacira_nerfstudio.grid import GridSpec

SAMPLE_BLOCK = 65536
"""Largest number of samples per task. A task goes level by level, so a large block pays for
bringing each level's table into the cache once; a fine level's table alone fills the second-level
cache."""
RAY_BLOCK = 1024
MAX_GAP = 16
"""Cells that a ray can skip at once at the most; to look for more takes longer than it saves."""


def _array(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return tensor.detach().to(dtype).contiguous().numpy()


_MODES = {
    "none": interpolate_kernels.AS_IS,
    "round": interpolate_kernels.ROUND,
    "noise": interpolate_kernels.NOISE,
}


def _rows_and_mode(table: Tensor, quantizer: Quantizer) -> tuple[np.ndarray, tuple]:
    """A table as kernels read it, and what they make of a row."""
    rows = table.detach().contiguous()
    if rows.dtype not in (torch.int8, torch.int16):
        rows = rows.float()
    elif quantizer.mode == "round":
        quantizer = PLAIN
    return rows.numpy(), (_MODES[quantizer.mode], np.uint32(quantizer.seed))


def _rays(origins: Tensor, directions: Tensor, settings: MarchSettings) -> tuple[np.ndarray, ...]:
    """Origins, directions, the spacing where rays begin, where they end, and their numbers of
    steps; in double precision."""
    o, d = origins.double(), directions.double()
    t_min, t_max = ray_bounds(o, d, settings)
    u_min, u_max = spacing(t_min, settings.knee), spacing(t_max, settings.knee)
    num_steps = ((u_max - u_min) / settings.step_size).ceil().clamp_min(0)
    num_steps = torch.where(t_max > t_min, num_steps, 0)
    rays = (_array(v, torch.float64) for v in (o, d, u_min, t_max))
    return (*rays, _array(num_steps, torch.int64))


def _depth_behind(early_stop: float) -> float:
    """Optical depth at which transmittance has fallen to ``early_stop``."""
    return -math.log(early_stop) if early_stop > 0 else math.inf


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        table: Tensor,
        grid: GridSpec,
        quantizer: Quantizer,
        values: Tensor | None,
        gradient: RowGradient | None,
        num_threads: int,
    ) -> Tensor:
        ctx.num_threads, ctx.gradient = num_threads, gradient
        ctx.grid, ctx.table_shape, ctx.table_dtype = grid, table.shape, table.dtype
        ctx.save_for_backward(x)
        if values is not None:
            return values.view_as(values)
        positions = _array(x.t())
        num_samples, offsets = len(x), grid.offsets
        out = np.empty((grid.num_levels, table.shape[1], num_samples), np.float32)
        rows, (mode, seed) = _rows_and_mode(table, quantizer)
        flat = rows.ravel()
        wanted = views.read_levels(rows, grid, grid.num_levels)
        out[np.setdiff1d(np.arange(grid.num_levels), wanted)] = 0

        def levels(begin: int, end: int) -> None:
            for level in wanted:
                interpolate_kernels.interpolate_forward(
                    positions,
                    flat,
                    offsets[level],
                    grid.resolutions[level],
                    grid.table_sizes[level],
                    rows.shape[1],
                    mode,
                    seed,
                    out[level],
                    begin,
                    end,
                )

        share = -(-num_samples // num_threads)
        run(levels, blocks(num_samples, max(min(share, SAMPLE_BLOCK), 1)), num_threads)
        return torch.from_numpy(out).permute(2, 0, 1)

    @staticmethod
    def backward(ctx, grad_out: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        grid: GridSpec = ctx.grid
        positions = _array(x.t())
        upstream = _array(grad_out.permute(1, 2, 0))  # [L, C, S]
        gradient: RowGradient | None = ctx.gradient
        if gradient is None:
            grad_table, touched = np.zeros(ctx.table_shape, np.float32), np.zeros(0, np.uint8)
        else:
            grad_table, touched = gradient.values.numpy(), gradient.touched.numpy()
        offsets = grid.offsets
        kernel = interpolate_kernels.interpolate_backward
        # Fine levels take longest (cache misses); they start first so that threads finish together.
        # They share no row, and no byte of the marks: sizes of levels are multiples of 8.
        tasks = [(level,) for level in reversed(range(grid.num_levels))]
        run(
            lambda level: kernel(
                positions,
                upstream[level],
                grid.resolutions[level],
                grid.table_sizes[level],
                grad_table[offsets[level] : offsets[level + 1]],
                touched[offsets[level] // 8 : offsets[level + 1] // 8],
            ),
            tasks,
            ctx.num_threads,
        )
        own = None if gradient is not None else torch.from_numpy(grad_table).to(ctx.table_dtype)
        return None, own, *([None] * 5)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        sigmas: Tensor,
        rgbs: Tensor,
        t_starts: Tensor,
        t_ends: Tensor,
        packed_info: Tensor,
        num_threads: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.num_threads = num_threads
        ctx.save_for_backward(sigmas, rgbs, t_starts, t_ends, packed_info)
        inputs = [_array(v) for v in (sigmas, rgbs, t_starts, t_ends)]
        info = _array(packed_info, torch.int64)
        color = np.empty((len(info), rgbs.shape[1]), np.float32)
        accumulation, distance = np.empty(len(info), np.float32), np.empty(len(info), np.float32)
        kernel: Any = render_kernels.composite_forward
        run(
            lambda b, e: kernel(*inputs, info, color, accumulation, distance, b, e),
            blocks(len(info), RAY_BLOCK),
            num_threads,
        )
        outputs = (torch.from_numpy(v) for v in (color, accumulation, distance))
        return tuple(v.to(sigmas.dtype) for v in outputs)  # pyright: ignore[reportReturnType]

    @staticmethod
    def backward(ctx, *grads: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        sigmas, rgbs, t_starts, t_ends, packed_info = ctx.saved_tensors
        inputs = [_array(v) for v in (sigmas, rgbs, t_starts, t_ends)]
        info = _array(packed_info, torch.int64)
        upstream = [_array(g) for g in grads]
        # Samples that no ray owns keep a gradient of zero.
        grad_sigmas, grad_rgbs = (
            np.zeros(sigmas.shape, np.float32),
            np.zeros(rgbs.shape, np.float32),
        )
        kernel: Any = render_kernels.composite_backward
        run(
            lambda b, e: kernel(*inputs, info, *upstream, grad_sigmas, grad_rgbs, b, e),
            blocks(len(info), RAY_BLOCK),
            ctx.num_threads,
        )
        return (
            torch.from_numpy(grad_sigmas).to(sigmas.dtype),
            torch.from_numpy(grad_rgbs).to(rgbs.dtype),
            *([None] * 4),
        )


class CpuNumbaBackend:
    """See :class:`shacira_nerfstudio.backends.base.Backend` for the contract of each method."""

    name = "cpu_numba"
    writes_rows = True

    def __init__(self, num_threads: int | None = None, *, precision: Precision = "float32") -> None:
        self.num_threads = default_num_threads() if num_threads is None else num_threads
        self.precision: Precision = precision
        self._known_occupancy: Any = None
        self._known_levels: Any = None

    def raw_density(self, latents: Tensor, weights: Weights) -> Tensor:
        return raw_density(
            latents, weights, self.num_threads, bfloat16=self.precision == "bfloat16"
        )

    def shade(
        self, latents: Tensor, raw: Tensor, ray_features: Tensor, rays: Tensor, weights: Weights
    ) -> tuple[Tensor, Tensor]:
        return Shade.apply(  # pyright: ignore[reportReturnType]
            latents,
            raw,
            ray_features,
            rays,
            self.num_threads,
            self.precision == "bfloat16",
            tuple(weights),
            *weights.values(),
        )

    def with_precision(self, precision: Precision | Literal["auto"]) -> CpuNumbaBackend:
        if precision == "auto":
            precision = "bfloat16" if HAS_BFLOAT16 else "float32"
        return CpuNumbaBackend(self.num_threads, precision=precision)

    def quantize(self, table: Tensor, quantizer: Quantizer) -> Tensor:
        table = table.detach()
        if quantizer.mode == "round":
            return table.round()
        if quantizer.mode == "noise":
            rows = noisy(_array(table), quantizer.seed, self.num_threads)
            return torch.from_numpy(rows).to(table.dtype)
        return table

    def logistic_bits(
        self,
        latents: Tensor,
        scale: Tensor,
        shift: Tensor,
        grid: GridSpec,
        *,
        seed: int,
        first: int = 0,
        stride: int = 1,
        gradient: RowGradient | None = None,
    ) -> Tensor:
        return LogisticBits.apply(  # pyright: ignore[reportReturnType]
            latents, scale, shift, grid, seed, first, stride, gradient, self.num_threads
        )

    def coded_bits(
        self,
        latents: Tensor,
        lengths: Tensor,
        classes: Tensor,
        first_table: Sequence[int],
        grid: GridSpec,
        *,
        letters_per_unit: int = 1,
        first: int = 0,
        stride: int = 1,
        gradient: RowGradient | None = None,
    ) -> Tensor:
        return CodedBits.apply(  # pyright: ignore[reportReturnType]
            latents,
            lengths,
            classes,
            first_table,
            grid,
            letters_per_unit,
            first,
            stride,
            gradient,
            self.num_threads,
        )

    @torch.no_grad()
    def update_rows(
        self, parameter: Tensor, gradient: RowGradient, state: AdamState, **options: Any
    ) -> None:
        update_rows(parameter, gradient, state, num_threads=self.num_threads, **options)

    def interpolate(
        self,
        x: Tensor,
        table: Tensor,
        grid: GridSpec,
        *,
        quantizer: Quantizer = PLAIN,
        values: Tensor | None = None,
        gradient: RowGradient | None = None,
    ) -> Tensor:
        if x.shape[1] != grid.num_dims or table.shape[0] != grid.num_entries:
            raise ValueError(
                f"expected x [S, {grid.num_dims}] and table [{grid.num_entries}, C], got "
                f"{tuple(x.shape)} and {tuple(table.shape)}"
            )
        return _Interpolate.apply(  # pyright: ignore[reportReturnType]
            x, table, grid, quantizer, values, gradient, self.num_threads
        )

    @torch.no_grad()
    def march(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: Tensor,
        settings: MarchSettings,
        *,
        jitter: Tensor | None = None,
        first_step: Tensor | None = None,
        max_samples: int = 0,
    ) -> Samples:
        first = first_step if first_step is not None else torch.zeros(len(origins)).long()
        begin = jitter if jitter is not None else torch.zeros(len(origins))
        rays = (*_rays(origins, directions, settings), _array(begin, torch.float64))
        rays += (_array(first, torch.int64),)
        common = (*self._march_arguments(occupancy, settings), max_samples)
        kernel: Any = march_kernels.march
        parts = run(
            lambda b, e: kernel(*rays, *common, b, e),
            blocks(len(origins), RAY_BLOCK),
            self.num_threads,
        )
        return _join(parts, origins.dtype)

    @torch.no_grad()
    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: Tensor,
        settings: MarchSettings,
        table: Tensor,
        grid: GridSpec,
        weights: Weights,
        ray_features: Tensor,
        *,
        quantizer: Quantizer = PLAIN,
        num_levels: int,
        early_stop: float,
        min_weight: float,
    ) -> Rendering:
        rows, how = _rows_and_mode(table, quantizer)
        rendering = views.render(
            _rays(origins, directions, settings),
            ray_features,
            self._march_arguments(occupancy, settings),
            rows,
            grid,
            self._read_levels(table, rows, grid, num_levels),
            how,
            weights,
            early_stop=early_stop,
            min_weight=min_weight,
            num_threads=self.num_threads,
        )
        return rendering.to(origins.dtype)

    @torch.no_grad()
    def march_visible(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: Tensor,
        settings: MarchSettings,
        table: Tensor,
        grid: GridSpec,
        weights: Weights,
        *,
        quantizer: Quantizer = PLAIN,
        num_levels: int,
        early_stop: float,
        jitter: Tensor | None = None,
        max_samples: int = 0,
    ) -> VisibleSamples:
        begin = jitter if jitter is not None else torch.zeros(len(origins))
        rows, how = _rows_and_mode(table, quantizer)
        found = front.march_visible(
            (*_rays(origins, directions, settings), _array(begin, torch.float64)),
            self._march_arguments(occupancy, settings),
            rows,
            grid,
            views.read_levels(rows, grid, num_levels),
            how,
            PackedNetworks(weights, bfloat16=self.precision == "bfloat16"),
            len(weights["density_mlp.1.bias"]),
            max_samples=max_samples,
            max_optical_depth=_depth_behind(early_stop),
            num_threads=self.num_threads,
        )
        return found.to(origins.dtype)

    def _march_arguments(self, occupancy: Tensor, settings: MarchSettings) -> tuple[Any, ...]:
        """What kernels want to know of occupancy and settings."""
        low, high = (np.array(corner, np.float64) for corner in settings.box)
        about = (*self._gaps(occupancy), settings.contraction == "contracted", low, high - low)
        return (*about, settings.step_size, settings.knee)

    def _read_levels(
        self, table: Tensor, rows: np.ndarray, grid: GridSpec, num_levels: int
    ) -> np.ndarray:
        """See :func:`views.read_levels`; kept for the next call with the same table."""
        known, key = self._known_levels, (table._version, num_levels)
        if known is None or known[0] is not table or known[1] != key:
            levels = views.read_levels(rows, grid, num_levels)
            known = self._known_levels = (table, key, levels)
        return known[2]

    def _gaps(self, occupancy: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """See :func:`empty_gaps` and :func:`filled_bounds`; kept for the next call with the same
        tensor."""
        known = self._known_occupancy
        if known is None or known[0] is not occupancy or known[1] != occupancy._version:
            cells = occupancy.contiguous().numpy().view(np.bool_)
            about = empty_gaps(cells), filled_bounds(cells)
            known = self._known_occupancy = (occupancy, occupancy._version, about)
        return known[2]

    def composite(
        self, sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _Composite.apply(sigmas, rgbs, t_starts, t_ends, packed_info, self.num_threads)  # pyright: ignore

    @torch.no_grad()
    def visible(
        self,
        sigmas: Tensor,
        t_starts: Tensor,
        t_ends: Tensor,
        packed_info: Tensor,
        *,
        early_stop: float,
    ) -> Tensor:
        inputs = [_array(v) for v in (sigmas, t_starts, t_ends)]
        info = _array(packed_info, torch.int64)
        counts = np.zeros(len(info), np.int64)
        limit = _depth_behind(early_stop)
        kernel: Any = render_kernels.visible
        run(
            lambda b, e: kernel(*inputs, info, limit, counts, b, e),
            blocks(len(info), RAY_BLOCK),
            self.num_threads,
        )
        return torch.from_numpy(counts)

    @torch.no_grad()
    def take_front(
        self, packed_info: Tensor, counts: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        info = torch.stack([counts.cumsum(0) - counts, counts], 1)
        begins, kept = _array(packed_info[:, 0], torch.int64), _array(info, torch.int64)
        total, before = int(counts.sum()), int(packed_info[:, 1].sum())
        for tensor in tensors:  # kernels do not look at bounds
            if len(tensor) != before:
                raise ValueError(f"expected tensors of {before} samples, got one of {len(tensor)}")
        return info, [self._front(tensor, begins, kept, total) for tensor in tensors]

    def _front(self, tensor: Tensor, begins: np.ndarray, kept: np.ndarray, total: int) -> Tensor:
        """What is kept of one tensor, in the layout that it has."""
        flat = tensor.detach().reshape(len(tensor), math.prod(tensor.shape[1:]))
        width = flat.shape[1]
        by_channel = flat.stride(0) == 1 and width > 1
        source = (flat.t() if by_channel else flat).contiguous()
        target = source.new_empty((width, total) if by_channel else (total, width))
        kernel: Any = render_kernels.take_front
        rows = (source, target) if by_channel else (source.view(1, -1), target.view(1, -1))
        arrays, step = [v.numpy() for v in rows], 1 if by_channel else width
        run(
            lambda b, e: kernel(*arrays, begins, kept, step, b, e),
            blocks(len(kept), RAY_BLOCK),
            self.num_threads,
        )
        return (target.t() if by_channel else target).reshape(total, *tensor.shape[1:])


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


def create(device: torch.device) -> CpuNumbaBackend:
    """Raises RuntimeError elsewhere than on a CPU."""
    if device.type != "cpu":
        raise RuntimeError(f"backend cpu_numba runs on the CPU, not on {device}")
    return CpuNumbaBackend()
