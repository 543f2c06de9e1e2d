"""What a backend is.

A backend implements the operations that take nearly all the time of training and rendering.
`reference` is plain torch on any device and any dtype, and is the truth; every other backend has
the same signatures and is tested against it, values and gradients. Requirements on an
implementation:

- `interpolate` is linear in ``table``, and a constant table interpolates to that constant;
- `march` returns samples ray after ray, front to back, and the very same set of samples as
  `reference`;
- `composite` has exact gradients in ``sigmas`` and ``rgbs``, `shade` in all it is given;
- empty inputs (no ray, no sample) are legal everywhere.

Notation: R rays, S packed samples, E entries, C channels, L levels, D axes, G occupancy cells per
axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Int16, Shaped
from torch import Tensor

from shacira_nerfstudio.backends.sparse_rows import PLAIN, AdamState, Quantizer, RowGradient
from shacira_nerfstudio.grid import GridSpec

Contraction = Literal["affine", "contracted"]
Precision = Literal["float32", "bfloat16"]
"""Number format of the factors in the networks' products; sums are float32 or better."""
Weights = dict[str, Tensor]
"""Parameters of both networks by name, such as ``density_mlp.0.weight`` [out, in]."""


@dataclass(frozen=True)
class MarchSettings:
    """Where a ray is sampled. Lengths are in world units.

    The samples of a ray are equal steps of a spacing function g with ``g(t) = t`` up to ``knee``
    and ``g(t) = knee * (2 - knee / t)`` beyond, so that steps are constant near the camera and grow
    with the square
    of the distance: what a contraction of the same form needs (Barron et al., "Mip-NeRF 360", CVPR
        2022, Sec. 2).
    """

    contraction: Contraction
    """``affine`` maps ``box`` to the unit cube and ends rays at the box; ``contracted`` maps
    ``box`` to [-1, 1]^3, contracts what lies outside into [-2, 2]^3 with the L-infinity norm, and
    maps that to the unit cube."""
    box: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Lower and upper corner."""
    near: float
    far: float
    step_size: float
    """Distance between two samples up to ``knee``."""
    knee: float = 0.0
    """Distance from which steps grow; 0 means never."""

    def __post_init__(self) -> None:
        if self.contraction not in ("affine", "contracted"):
            raise ValueError(f"expected contraction affine or contracted, got {self.contraction!r}")
        if not all(low < high for low, high in zip(*self.box, strict=True)):
            raise ValueError(f"expected a box with lower < upper corner, got {self.box}")
        if not 0 <= self.near < self.far:
            raise ValueError(f"expected 0 <= near < far, got {self.near} and {self.far}")
        if not self.step_size > 0 or self.knee < 0:
            raise ValueError(
                f"expected step_size > 0 and knee >= 0, got {self.step_size} and {self.knee}"
            )


@dataclass(frozen=True)
class Samples:
    """Packed samples: those of ray 0 first, front to back, then those of ray 1, ..."""

    t_starts: Float[Tensor, " S"]
    t_ends: Float[Tensor, " S"]
    positions: Float[Tensor, "S 3"]
    """The middle of each sample, in the unit cube."""
    packed_info: Int[Tensor, "R 2"]
    """First sample and number of samples of each ray (nerfacc's name and layout)."""
    next_step: Int[Tensor, " R"]
    """Where to go on when ``max_samples`` cut a ray short; -1 for rays that are done."""

    @property
    def ray_indices(self) -> Int[Tensor, " S"]:
        rays = torch.arange(len(self.packed_info), device=self.packed_info.device)
        return torch.repeat_interleave(rays, self.packed_info[:, 1])


@dataclass(frozen=True)
class VisibleSamples:
    """Packed samples that light reaches, and what the density network made of them."""

    t_starts: Float[Tensor, " S"]
    t_ends: Float[Tensor, " S"]
    positions: Float[Tensor, "S 3"]
    packed_info: Int[Tensor, "R 2"]
    next_step: Int[Tensor, " R"]
    """The step at which a ray was cut short; -1 for rays that were not. Whether a ray is that if it
    became opaque before it is each backend's to say."""
    latents: Float[Tensor, "S L d"]
    raw: Float[Tensor, "S raw"]
    num_marched: int
    """Samples that were looked at."""

    def to(self, dtype: torch.dtype) -> VisibleSamples:
        """The same in another number format."""
        names = ("t_starts", "t_ends", "positions", "latents", "raw")
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})


@dataclass(frozen=True)
class Rendering:
    """What :meth:`Backend.render` makes of rays, without background."""

    color: Float[Tensor, "R 3"]
    transmittance: Float[Tensor, " R"]
    """Behind the last sample, or where the ray was found to be opaque."""
    distance: Float[Tensor, " R"]
    """Sum of weights times distances, world units."""
    last_color: Float[Tensor, "R 3"]
    """Colour of the last sample of a ray, black if it has none; of one of the last if the ray
    became opaque."""
    num_samples: int
    """Samples that the density network saw."""

    def to(self, dtype: torch.dtype) -> Rendering:
        """The same in another number format."""
        return Rendering(
            color=self.color.to(dtype),
            transmittance=self.transmittance.to(dtype),
            distance=self.distance.to(dtype),
            last_color=self.last_color.to(dtype),
            num_samples=self.num_samples,
        )


@runtime_checkable
class Backend(Protocol):
    """The operations; see the module docstring for what every implementation must hold."""

    name: str
    writes_rows: bool
    """Whether gradients of tables can go into a :class:`RowGradient`."""
    precision: Precision
    """Of :meth:`raw_density` and :meth:`shade`. :meth:`render` is float32 (or what its inputs are)
    in any case: a file's pictures do not depend on the processor."""

    def with_precision(self, precision: Precision | Literal["auto"]) -> Backend:
        """The same backend with another :attr:`precision`; ``auto`` takes bfloat16 where the
        processor is made for it.

        Raises:
            ValueError: the backend has no such networks.
        """
        ...

    def interpolate(
        self,
        x: Float[Tensor, "S D"],
        table: Shaped[Tensor, "E C"],
        grid: GridSpec,
        *,
        quantizer: Quantizer = PLAIN,
        values: Float[Tensor, "S L C"] | None = None,
        gradient: RowGradient | None = None,
    ) -> Float[Tensor, "S L C"]:
        """Interpolates a multi-resolution hash grid linearly in each dimension.

        For level l, cell coordinates are ``x * (N_l - 1) + 0.5`` and the 2^D corners are looked up
        with :meth:`GridSpec.vertex_index`. Weights sum to one. Differentiable in ``table``; no
        gradient to ``x``.

        Args:
            x: Positions in the unit cube; values outside are clamped.
            table: One row per entry, level after level.
            quantizer: Applied to each row that is read.
            values: The result for the same ``x`` and ``table`` if it is known already; then only
                the gradient is computed anew.
            gradient: Gets the gradient of ``table``, added to what it holds, instead of autograd.
                Only where :attr:`writes_rows`.

        References:
            Müller et al., "Instant Neural Graphics Primitives", SIGGRAPH 2022, Sec. 3.
        """
        ...

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
    ) -> Samples:
        """Samples rays where ``occupancy`` says that there may be something. No gradient.

        Args:
            directions: Unit vectors.
            jitter: Shift of a ray's samples in steps, in [0, 1); none means 0.
            first_step: Step to begin with, from :attr:`Samples.next_step`; rays with -1 get no
                sample.
            max_samples: At most so many samples per ray; 0 means no limit.
        """
        ...

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
        ...

    def visible(
        self,
        sigmas: Float[Tensor, " S"],
        t_starts: Float[Tensor, " S"],
        t_ends: Float[Tensor, " S"],
        packed_info: Int[Tensor, "R 2"],
        *,
        early_stop: float,
    ) -> Int[Tensor, " R"]:
        """How many samples of each ray light reaches: those before which transmittance is at least
        ``early_stop``. They are the first ones of the ray."""
        ...

    def take_front(
        self,
        packed_info: Int[Tensor, "R 2"],
        counts: Int[Tensor, " R"],
        tensors: Sequence[Tensor],
    ) -> tuple[Int[Tensor, "R 2"], list[Tensor]]:
        """Keeps the first ``counts`` samples of each ray. No gradient.

        Args:
            tensors: One row per sample each, [S, ...].

        Returns:
            Packed info of what is kept, and what is kept of each tensor.
        """
        ...

    def quantize(self, table: Float[Tensor, "E C"], quantizer: Quantizer) -> Float[Tensor, "E C"]:
        """The whole table as look-ups read it. No gradient."""
        ...

    def logistic_bits(
        self,
        latents: Float[Tensor, "E C"],
        scale: Float[Tensor, "L C"],
        shift: Float[Tensor, "L C"],
        grid: GridSpec,
        *,
        seed: int,
        first: int = 0,
        stride: int = 1,
        gradient: RowGradient | None = None,
    ) -> Float[Tensor, ""]:
        """Sum of estimated bits of some rows under logistic densities, one per level and channel.

        With v a latent plus noise, a = scale and b = shift of its level and channel:
        ``-log2(sigmoid((v + 1/2) a + b) - sigmoid((v - 1/2) a + b) + 1e-10)``. Differentiable in
        ``latents``, ``scale`` and ``shift``. One row of scale and shift serves all levels.

        Args:
            seed: Of the noise, see :class:`Quantizer`.
            first, stride: Rows are taken in blocks of 16; those of the blocks ``first::stride``
                count.
            gradient: As in :meth:`interpolate`, for ``latents``.
        """
        ...

    def coded_bits(
        self,
        latents: Float[Tensor, "E C"],
        lengths: Float[Tensor, "T W"],
        classes: Int16[Tensor, "E C"],
        first_table: Sequence[int],
        grid: GridSpec,
        *,
        letters_per_unit: int = 1,
        first: int = 0,
        stride: int = 1,
        gradient: RowGradient | None = None,
    ) -> Float[Tensor, ""]:
        """Sum of the bits of some rows, rounded, under tables of code lengths.

        The value is what rounded latents cost. Its gradient is that of the mean cost of latents
        with uniform noise, for rounding has none: with B the code lengths, linear between letters
        and beyond the last two, that of ``∫ B(q + u) du`` over u in [-1/2, 1/2], which is
        ``B(q + 1/2) - B(q - 1/2)``. Not differentiable in ``lengths``.

        Args:
            lengths: Bits of the letters -(W - 1) / 2 ... (W - 1) / 2 in each table, each divided
                by ``letters_per_unit``; W odd, 3 or more.
            classes: Table of each latent, from the level's first one on; those with -1 cost
                nothing.
            first_table: L numbers, the first table of each level.
            letters_per_unit: 1 for integers; more for a cost that is known in between.
            first, stride: As in :meth:`logistic_bits`.
            gradient: As in :meth:`interpolate`, for ``latents``.
        """
        ...

    def update_rows(
        self,
        parameter: Float[Tensor, "E C"],
        gradient: RowGradient,
        state: AdamState,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """A step of Adam in the rows that were touched, in place; clears the gradient.

        See :class:`shacira_nerfstudio.model.sparse_row_adam.RowAdam`. Only where :attr:`writes_rows`.
        """
        ...

    def raw_density(
        self, latents: Float[Tensor, "S L d"], weights: Weights
    ) -> Float[Tensor, "S raw"]:
        """Outputs of the density network: log density first, then geometry. No gradient.

        Args:
            weights: ``density_mlp.0`` and ``density_mlp.1``, each with ``.weight`` and ``.bias``;
                rectified linear units between them. The latent decoder is folded into the first.
        """
        ...

    def shade(
        self,
        latents: Float[Tensor, "S L d"],
        raw: Float[Tensor, "S raw"],
        ray_features: Float[Tensor, "R A"],
        rays: Int[Tensor, " S"],
        weights: Weights,
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S 3"]]:
        """Density (1 / world unit) and colour of samples.

        Differentiable in ``latents``, ``weights`` and ``ray_features``. Density is the exponential
        of the first raw output, limited to ``exp(MAX_LOG_DENSITY)``; the gradient ignores the
        limit, so that no sample is stuck beyond it.

        Args:
            raw: :meth:`raw_density` of the same latents and weights.
            ray_features: Inputs of the colour network that a ray's samples share; those of a sample
                are followed by its geometry ``raw[:, 1:]``.
            rays: The ray of each sample.
            weights: As for :meth:`raw_density`, and the layers ``color_mlp.0``, ...
        """
        ...

    def march_visible(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        occupancy: Bool[Tensor, "G G G"],
        settings: MarchSettings,
        table: Shaped[Tensor, "E C"],
        grid: GridSpec,
        weights: Weights,
        *,
        quantizer: Quantizer = PLAIN,
        num_levels: int,
        early_stop: float,
        jitter: Float[Tensor, " R"] | None = None,
        max_samples: int = 0,
    ) -> VisibleSamples:
        """Samples rays for training: of those of :meth:`march` the ones that :meth:`visible` keeps.
        No gradient.

        Args:
            directions, occupancy, settings, jitter: As for :meth:`march`.
            table, quantizer: As for :meth:`interpolate`.
            weights: As for :meth:`raw_density`.
            num_levels: Levels from this one on read as 0.
            early_stop: As for :meth:`visible`.
            max_samples: A ray ends after so many samples; 0 means no limit.
        """
        ...

    def render(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        occupancy: Bool[Tensor, "G G G"],
        settings: MarchSettings,
        table: Shaped[Tensor, "E C"],
        grid: GridSpec,
        weights: Weights,
        ray_features: Float[Tensor, "R A"],
        *,
        quantizer: Quantizer = PLAIN,
        num_levels: int,
        early_stop: float,
        min_weight: float,
    ) -> Rendering:
        """Renders rays for looking: all of the above in one, front to back. No gradient.

        Args:
            directions, occupancy, settings: As for :meth:`march`.
            table, quantizer: As for :meth:`interpolate`.
            weights, ray_features: As for :meth:`shade`.
            num_levels: Levels from this one on read as 0.
            early_stop: Transmittance below which a ray ends; what lies behind weighs less.
            min_weight: Samples that weigh up to so much may get the colour of the next ones of
                their ray, as many of them as weigh so much together; 0 gives each sample its own.
        """
        ...
