"""The operations in Triton; what is not here is plain torch, as for any backend."""

from __future__ import annotations

import torch
from torch import Tensor

from shacira_nerfstudio.backends.base import Backend
from shacira_nerfstudio.backends.sparse_rows import (
    IDENTITY,
    AdamState,
    SparseRowGradient,
    TableQuantizer,
)
from shacira_nerfstudio.backends.triton import adam, composite, interpolate, march, noise, rates
from shacira_nerfstudio.backends.triton.visible_samples import VisibleSamplesFinder
from shacira_nerfstudio.backends.types import (
    FieldArrays,
    MarchSettings,
    Samples,
    VisibleSamples,
)
from shacira_nerfstudio.grid import GridSpec


class TritonBackend(Backend):
    """All tensors float32 and on one CUDA device, tables for rendering int8 or int16, too."""

    name = "triton"

    def __init__(self) -> None:
        self._visible_samples = VisibleSamplesFinder()

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
        assert gradient is None, "see supports_sparse_gradient"
        return interpolate.interpolate(x, table, grid, quantizer, values)

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
        return march.march(
            origins,
            directions,
            occupancy,
            settings,
            jitter=jitter,
            first_step=first_step,
            max_samples=max_samples,
        )

    def composite(
        self, sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return composite.composite(sigmas, rgbs, t_starts, t_ends, packed_info)

    def quantize(self, table: Tensor, quantizer: TableQuantizer) -> Tensor:
        return noise.quantize(table, quantizer)

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
    ) -> VisibleSamples:
        rays = march.March(
            origins, directions, occupancy, settings, jitter=jitter, max_samples=max_samples
        )
        return self._visible_samples.find(self, rays, field, early_stop=early_stop)

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
        assert gradient is None, "see supports_sparse_gradient"
        return rates.logistic_bits(
            latents, scale, shift, grid, seed=seed, first=first, stride=stride
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
        assert gradient is None, "see supports_sparse_gradient"
        return rates.coded_bits(
            latents,
            lengths,
            classes,
            first_table,
            grid,
            bins_per_unit=bins_per_unit,
            first=first,
            stride=stride,
        )

    @torch.no_grad()
    def update_rows(
        self,
        parameter: Tensor,
        gradient: SparseRowGradient,
        state: AdamState,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        adam.update_rows(
            parameter, gradient, state, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay
        )
