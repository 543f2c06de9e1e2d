"""The operations on samples: three that every backend must bring, and what follows of a sample.

A base class below :class:`shacira_nerfstudio.backends.base.Backend`, for what composes these
operations to larger ones.

Notation: R rays, S packed samples, E entries, C channels, L levels, D axes, G outputs of the
density network, or occupancy cells per axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from shacira_nerfstudio.backends import networks, sparse_rows
from shacira_nerfstudio.backends.sparse_rows import IDENTITY, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.backends.types import Layer, MarchSettings, NetworkWeights, Samples
from shacira_nerfstudio.grid import GridSpec


class FieldOperations(ABC):
    """See the module docstring of :mod:`shacira_nerfstudio.backends.base` for the contract."""

    @abstractmethod
    def interpolate(
        self,
        x: Float[Tensor, "S D"],
        table: Shaped[Tensor, "E C"],
        grid: GridSpec,
        *,
        quantizer: TableQuantizer = IDENTITY,
        values: Float[Tensor, "S L C"] | None = None,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, "S L C"]:
        """Interpolates a multi-resolution hash grid linearly in each dimension.

        For level l and axis a, cell coordinates are ``x_a * (N_la - 1) + 0.5`` and the 2^D corners
        are looked up with :meth:`GridSpec.vertex_index`. Weights sum to one. Differentiable in
        ``table``; no gradient to ``x``.

        Args:
            x: Positions in the unit cube; values outside are clamped.
            table: One row per entry, level after level; float, int8 or int16.
            quantizer: Applied to each row that is read.
            values: The result for the same ``x``, ``table`` and ``quantizer`` if there is one
                already; a backend may return it and compute only the gradient anew.
            gradient: Gets the gradient of ``table``, added to what it holds, instead of autograd.
                Only where the backend ``supports_sparse_gradient``.
        """

    @abstractmethod
    def march(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        occupancy: Bool[Tensor, "G G G"],
        settings: MarchSettings,
        *,
        jitter: Float[Tensor, " R"] | None = None,
        first_step: Int[Tensor, " R"] | None = None,
        max_samples: int = 0,
        limits: Float[Tensor, "R 2"] | None = None,
        log2_strides: UInt8[Tensor, "G G G"] | None = None,
    ) -> Samples:
        """Samples rays where ``occupancy`` says that there may be something. No gradient.

        Args:
            directions: Unit vectors.
            jitter: Shift of a ray's samples in steps, in [0, 1); none means 0.
            first_step: Step to begin with, from :attr:`Samples.next_step`; rays with -1 get no
                sample.
            max_samples: At most so many samples per ray; 0 means no limit.
            limits: Where each ray begins and ends at the most, besides ``settings``.
            log2_strides: Log2 of the most steps that one sample may stand for in each cell, up to
                :data:`MAX_LOG2_STRIDE`; none means that each step is a sample. Steps n 2^k to
                (n + 1) 2^k of a ray become one sample, for the largest k that the cells of the
                first, the middle and the last of them allow, if the first is in an occupied cell.
                It is looked at at ``jitter`` of its length, so that any place in it may be. What
                Instant-NGP does with a bit per cell (Müller et al., 2022, Appendix E.1) this does
                with a number.
        """

    @abstractmethod
    def composite(
        self,
        sigmas: Float[Tensor, " S"],
        rgbs: Float[Tensor, "S C"],
        t_starts: Float[Tensor, " S"],
        t_ends: Float[Tensor, " S"],
        packed_info: Int[Tensor, "R 2"],
    ) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"], Float[Tensor, " R"]]:
        """Alpha-composites packed samples front to back.

        ``w_i = T_i (1 - exp(-sigma_i (t_end_i - t_start_i)))`` with transmittance ``T_i``.
        Differentiable in ``sigmas`` and ``rgbs``.

        Returns:
            ``sum w_i rgb_i``, accumulation ``sum w_i`` and ``sum w_i t_i`` with t_i the middle of
            the sample.

        References:
            Mildenhall et al., "NeRF", ECCV 2020, Eq. 3.
        """

    def quantize(
        self, table: Float[Tensor, "E C"], quantizer: TableQuantizer
    ) -> Float[Tensor, "E C"]:
        """The whole table as look-ups read it. No gradient."""
        return sparse_rows.quantize(table, quantizer)

    @torch.no_grad()
    def density_outputs(
        self, latents: Float[Tensor, "S L d"], weights: NetworkWeights
    ) -> Float[Tensor, "S G"]:
        """Outputs of the density network: log density first, then geometry. No gradient."""
        return networks.density_network(latents, weights)

    def shade(
        self,
        latents: Float[Tensor, "S L d"],
        density_outputs: Float[Tensor, "S G"],
        ray_features: Float[Tensor, "R A"],
        ray_indices: Int[Tensor, " S"],
        weights: NetworkWeights,
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S 3"]]:
        """Density (1 / world unit) and colour of samples.

        Differentiable in ``latents``, ``weights`` and ``ray_features``. Density is the exponential
        of the first output, limited to ``exp(MAX_LOG_DENSITY)``; the gradient ignores the limit, so
        that no sample is stuck beyond it.

        Args:
            density_outputs: :meth:`density_outputs` of the same latents and weights.
            ray_features: Inputs of the colour network that a ray's samples share; those of a sample
                are followed by its geometry ``density_outputs[:, 1:]``.
            ray_indices: The ray of each sample.
        """
        if torch.is_grad_enabled():
            density_outputs = networks.density_network(latents, weights)
        inputs = torch.cat([ray_features[ray_indices], density_outputs[:, 1:]], 1)
        return networks.density_of(density_outputs), networks.color_network(inputs, weights)

    def pixel_network(
        self, latents: Float[Tensor, "S L d"], layers: tuple[Layer, ...]
    ) -> Float[Tensor, "S C"]:
        """Channels of the pixels of a picture or a video: rectified linear units between layers,
        nothing behind the last one.

        Differentiable in ``latents`` and ``layers``.

        Args:
            layers: Two or more.
        """
        return networks.pixel_network(latents, layers)
