"""The operations in Triton; what is not here is plain torch, as for any backend."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from shacira_nerfstudio.backends import networks as plain_networks
from shacira_nerfstudio.backends.base import Backend
from shacira_nerfstudio.backends.sparse_rows import (
    IDENTITY,
    AdamState,
    SparseRowGradient,
    TableQuantizer,
)
from shacira_nerfstudio.backends.triton.networks import fused, short_numbers
from shacira_nerfstudio.backends.triton.rays import composite, march, render
from shacira_nerfstudio.backends.triton.rays.visible_samples import ExpectedSamples, TrainingSamples
from shacira_nerfstudio.backends.triton.table import adam, interpolate, noise, rates
from shacira_nerfstudio.backends.types import (
    FieldArrays,
    MarchSettings,
    NetworkWeights,
    Precision,
    Rendering,
    Samples,
    VisibleSamples,
)
from shacira_nerfstudio.grid import GridSpec


def _finds_visible(samples: str) -> Any:
    """The method that samples rays where an attribute of the backend says how many to expect."""

    def find(
        self: TritonBackend,
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
        rays = march.March(
            origins,
            directions,
            occupancy,
            settings,
            jitter=jitter,
            max_samples=max_samples,
            limits=limits,
            log2_strides=log2_strides,
        )
        return getattr(self, samples).find_visible(self, rays, field, early_stop=early_stop)

    return find


class TritonBackend(Backend):
    """All tensors float32 and on one CUDA device, tables for rendering int8 or int16, too."""

    name = "triton"
    supports_sparse_gradient = True

    def __init__(
        self,
        device: torch.device,
        *,
        precision: Precision = "float32",
        has_fused_networks: bool = False,
    ) -> None:
        self._device = device
        self.precision: Precision = precision
        self.has_fused_networks = has_fused_networks
        self._expected, self._training = ExpectedSamples(), TrainingSamples()

    def with_precision(self, precision: Precision | Literal["auto"]) -> TritonBackend:
        if precision == "auto":
            precision = "float32"
            if self._device.type == "cuda":
                major, _ = torch.cuda.get_device_capability(self._device)
                precision = "bfloat16" if major >= 8 else "float16" if major == 7 else "float32"
        return TritonBackend(self._device, precision=precision)

    def with_fused_networks(self) -> TritonBackend:
        if self.precision == "float32" or not fused.has_tensor_cores(self._device):
            return self
        return TritonBackend(self._device, precision=self.precision, has_fused_networks=True)

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
        return interpolate.interpolate(x, table, grid, quantizer, values, gradient)

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
        return march.march(
            origins,
            directions,
            occupancy,
            settings,
            jitter=jitter,
            first_step=first_step,
            max_samples=max_samples,
            limits=limits,
            log2_strides=log2_strides,
        )

    def composite(
        self, sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return composite.composite(sigmas, rgbs, t_starts, t_ends, packed_info)

    def quantize(self, table: Tensor, quantizer: TableQuantizer) -> Tensor:
        return noise.quantize(table, quantizer)

    @torch.no_grad()
    def density_outputs(self, latents: Tensor, weights: NetworkWeights) -> Tensor:
        return self._density_network(latents, weights)

    def _density_network(self, latents: Tensor, weights: NetworkWeights) -> Tensor:
        if self.precision == "float32":
            return plain_networks.density_network(latents, weights)
        if self.has_fused_networks:
            return fused.density_network(latents, weights, self.precision)
        return short_numbers.density_network(latents, weights, self.precision)

    def shade(
        self,
        latents: Tensor,
        density_outputs: Tensor,
        ray_features: Tensor,
        ray_indices: Tensor,
        weights: NetworkWeights,
    ) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            density_outputs = self._density_network(latents, weights)
        sigmas, geometry = plain_networks.density_of(density_outputs), density_outputs[:, 1:]
        if self.precision != "float32" and self.has_fused_networks:
            inputs = geometry, ray_features, ray_indices
            return sigmas, fused.color_network(*inputs, weights, self.precision)
        # Not ray_features[...], whose gradient sorts all indices.
        inputs = torch.cat([ray_features.index_select(0, ray_indices), geometry], 1)
        if self.precision == "float32":
            return sigmas, plain_networks.color_network(inputs, weights)
        return sigmas, short_numbers.color_network(inputs, weights, self.precision)

    march_visible = _finds_visible("_expected")
    sample_training_rays = _finds_visible("_training")

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
        del min_weight  # may, not must
        exact = self if self.precision == "float32" else self.with_precision("float32")
        return render.render(
            exact,
            origins,
            directions,
            occupancy,
            settings,
            field,
            ray_features,
            early_stop=early_stop,
            limits=limits,
        )

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
        return rates.logistic_bits(
            latents, scale, shift, grid, seed=seed, first=first, stride=stride, gradient=gradient
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
        return rates.coded_bits(
            latents,
            lengths,
            classes,
            first_table,
            grid,
            bins_per_unit=bins_per_unit,
            first=first,
            stride=stride,
            gradient=gradient,
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
