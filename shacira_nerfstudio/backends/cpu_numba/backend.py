"""The backend's methods, each handed on to the file of its operation.

Kernels release the GIL and run on a pool of plain threads instead of numba's own parallel layer:
that layer may not be entered from two threads at once, which the web viewer does while training
goes on, and its spinning workers take cores from torch. No two threads write the same memory
(samples by block in the forward pass, whole levels in the backward pass), so results do not depend
on the number of threads.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.backends.base import Backend
from shacira_nerfstudio.backends.cpu_numba.networks import pixel_network, shade
from shacira_nerfstudio.backends.cpu_numba.networks.bfloat16_kernels import HAS_BFLOAT16
from shacira_nerfstudio.backends.cpu_numba.rays.composite import Composite
from shacira_nerfstudio.backends.cpu_numba.rays.march import (
    EmptySpace,
    march,
    max_optical_depth,
    ray_arrays,
)
from shacira_nerfstudio.backends.cpu_numba.rays.render import render
from shacira_nerfstudio.backends.cpu_numba.rays.visible_samples import march_visible
from shacira_nerfstudio.backends.cpu_numba.table.adam import update_rows
from shacira_nerfstudio.backends.cpu_numba.table.interpolate import Interpolate, TableRows, quantize
from shacira_nerfstudio.backends.cpu_numba.table.rates import CodedBits, LogisticBits
from shacira_nerfstudio.backends.cpu_numba.threads import default_num_threads
from shacira_nerfstudio.backends.sparse_rows import (
    IDENTITY,
    AdamState,
    SparseRowGradient,
    TableQuantizer,
)
from shacira_nerfstudio.backends.types import (
    FieldArrays,
    Layer,
    MarchSettings,
    NetworkWeights,
    Precision,
    Rendering,
    Samples,
    VisibleSamples,
)
from shacira_nerfstudio.grid import GridSpec


class CpuNumbaBackend(Backend):
    """See :class:`shacira_nerfstudio.backends.base.Backend` for the contract of each method."""

    name = "cpu_numba"
    supports_sparse_gradient = True

    def __init__(self, num_threads: int | None = None, *, precision: Precision = "float32") -> None:
        self.num_threads = default_num_threads() if num_threads is None else num_threads
        self.precision: Precision = precision
        self._empty_space = EmptySpace()
        self._rendered_levels: tuple[Tensor, tuple[int, int], np.ndarray] | None = None

    def with_precision(self, precision: Precision | Literal["auto"]) -> CpuNumbaBackend:
        if precision == "auto":
            precision = "bfloat16" if HAS_BFLOAT16 else "float32"
        return CpuNumbaBackend(self.num_threads, precision=precision)

    def prepare_training(self) -> None:
        # The kernels bring threads of their own. What is left to torch are small operations, whose
        # threads would wait for one another by spinning.
        torch.set_num_threads(1)

    def interpolate(
        self,
        x: Tensor,
        table: Tensor,
        grid: GridSpec,
        *,
        quantizer: TableQuantizer = IDENTITY,
        values: Tensor | None = None,
        gradient: SparseRowGradient | None = None,
    ) -> Tensor:
        if x.shape[1] != grid.num_dims or table.shape[0] != grid.num_entries:
            raise ValueError(
                f"expected x [S, {grid.num_dims}] and table [{grid.num_entries}, C], got "
                f"{tuple(x.shape)} and {tuple(table.shape)}"
            )
        return Interpolate.apply(  # pyright: ignore[reportReturnType]
            x, table, grid, quantizer, values, gradient, self.num_threads
        )

    def quantize(self, table: Tensor, quantizer: TableQuantizer) -> Tensor:
        return quantize(table, quantizer, self.num_threads)

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
        limits: Tensor | None = None,
        log2_strides: Tensor | None = None,
    ) -> Samples:
        return march(
            ray_arrays(origins, directions, settings, jitter, limits),
            self._empty_space.arguments(occupancy, settings, log2_strides),
            first_step,
            max_samples=max_samples,
            dtype=origins.dtype,
            num_threads=self.num_threads,
        )

    def composite(
        self, sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return Composite.apply(sigmas, rgbs, t_starts, t_ends, packed_info, self.num_threads)  # pyright: ignore

    def density_outputs(self, latents: Tensor, weights: NetworkWeights) -> Tensor:
        is_bfloat16 = self.precision == "bfloat16"
        return shade.density_outputs(latents, weights, self.num_threads, bfloat16=is_bfloat16)

    def shade(
        self,
        latents: Tensor,
        density_outputs: Tensor,
        ray_features: Tensor,
        ray_indices: Tensor,
        weights: NetworkWeights,
    ) -> tuple[Tensor, Tensor]:
        named = weights.named()
        return shade.Shade.apply(  # pyright: ignore[reportReturnType]
            latents,
            density_outputs,
            ray_features,
            ray_indices,
            self.num_threads,
            self.precision == "bfloat16",
            tuple(named),
            *named.values(),
        )

    def pixel_network(self, latents: Tensor, layers: tuple[Layer, ...]) -> Tensor:
        tensors = [tensor for layer in layers for tensor in layer]
        return pixel_network.PixelNetwork.apply(latents, self.num_threads, *tensors)  # pyright: ignore

    @torch.no_grad()
    def march_visible(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: Tensor,
        settings: MarchSettings,
        field: FieldArrays,
        *,
        early_stop: float,
        jitter: Tensor | None = None,
        max_samples: int = 0,
        limits: Tensor | None = None,
        log2_strides: Tensor | None = None,
    ) -> VisibleSamples:
        is_bfloat16 = self.precision == "bfloat16"
        samples = march_visible(
            ray_arrays(origins, directions, settings, jitter, limits),
            self._empty_space.arguments(occupancy, settings, log2_strides),
            TableRows.of(field.table, field.grid, field.quantizer),
            shade.PackedNetworks(field.weights, bfloat16=is_bfloat16),
            num_levels=field.num_levels_read,
            max_samples=max_samples,
            max_optical_depth=max_optical_depth(early_stop),
            num_threads=self.num_threads,
        )
        return samples.to(origins.dtype)

    @torch.no_grad()
    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: Tensor,
        settings: MarchSettings,
        field: FieldArrays,
        ray_features: Tensor,
        *,
        early_stop: float,
        min_weight: float,
        limits: Tensor | None = None,
    ) -> Rendering:
        table = TableRows.of(field.table, field.grid, field.quantizer)
        rendering = render(
            ray_arrays(origins, directions, settings, None, limits),
            ray_features,
            self._empty_space.arguments(occupancy, settings),
            table,
            self._levels_to_render(field, table),
            field.weights,
            early_stop=early_stop,
            min_weight=min_weight,
            num_threads=self.num_threads,
        )
        return rendering.to(origins.dtype)

    def _levels_to_render(self, field: FieldArrays, table: TableRows) -> np.ndarray:
        """See :meth:`TableRows.nonzero_levels`; kept for the next call with the same table."""
        latest, version = self._rendered_levels, (field.table._version, field.num_levels_read)
        if latest is None or latest[0] is not field.table or latest[1] != version:
            levels = table.nonzero_levels(field.num_levels_read)
            latest = self._rendered_levels = (field.table, version, levels)
        return latest[2]

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
        gradient: SparseRowGradient | None = None,
    ) -> Tensor:
        return LogisticBits.apply(  # pyright: ignore[reportReturnType]
            latents, scale, shift, grid, seed, first, stride, gradient, self.num_threads
        )

    def coded_bits(
        self,
        latents: Tensor,
        lengths: Tensor,
        classes: Tensor,
        first_table: Tensor,
        grid: GridSpec,
        *,
        bins_per_unit: int = 1,
        first: int = 0,
        stride: int = 1,
        gradient: SparseRowGradient | None = None,
    ) -> Tensor:
        return CodedBits.apply(  # pyright: ignore[reportReturnType]
            latents,
            lengths,
            classes,
            first_table,
            grid,
            bins_per_unit,
            first,
            stride,
            gradient,
            self.num_threads,
        )

    @torch.no_grad()
    def update_rows(
        self, parameter: Tensor, gradient: SparseRowGradient, state: AdamState, **options: Any
    ) -> None:
        update_rows(parameter, gradient, state, num_threads=self.num_threads, **options)


def create(device: torch.device) -> CpuNumbaBackend:
    """Raises RuntimeError elsewhere than on a CPU."""
    if device.type != "cpu":
        raise RuntimeError(f"backend cpu_numba runs on the CPU, not on {device}")
    return CpuNumbaBackend()
