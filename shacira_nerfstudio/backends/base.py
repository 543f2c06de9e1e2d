"""What a backend is.

A backend implements the operations that take nearly all the time of training and rendering. It
subclasses :class:`Backend` and brings three of them: `interpolate`, `march` and `composite`. All
others have a default, composed of these three and of plain torch; a backend overrides those that it
does faster, and each override gives what the default gives, values and gradients, as a test checks.
`reference` brings the three in plain torch, on any device and in any number format, and is the
truth for every other backend. Requirements on an implementation:

- `interpolate` is linear in ``table``, and a constant table interpolates to that constant;
- `march` returns samples ray after ray, front to back, and the very same set of samples as
  `reference`;
- `composite` has exact gradients in ``sigmas`` and ``rgbs``, `shade` in all it is given;
- empty inputs (no ray, no sample) are legal everywhere;
- nothing in a training step makes the host wait for a GPU, but where a size depends on the data;
  in `triton` not even there.

Notation: R rays, S packed samples, E entries, C channels, L levels, D axes, G occupancy cells per
axis.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float, Int, Int16, UInt8
from torch import Tensor

from shacira_nerfstudio.backends import composed, latent_rates, sparse_rows
from shacira_nerfstudio.backends.field_operations import FieldOperations
from shacira_nerfstudio.backends.sparse_rows import AdamState, SparseRowGradient
from shacira_nerfstudio.backends.types import (
    FieldArrays,
    MarchSettings,
    Precision,
    Rendering,
    VisibleSamples,
)
from shacira_nerfstudio.grid import GridSpec


class Backend(FieldOperations):
    """Defaults for all but the three required operations; see the module docstring."""

    name: str
    supports_sparse_gradient: bool = False
    """Whether gradients of tables can go into a :class:`SparseRowGradient`."""
    precision: Precision = "float32"
    """Of :meth:`density_outputs` and :meth:`shade`. :meth:`render` is float32 (or what its inputs
    are) in any case: a file's pictures do not depend on the processor."""

    def with_precision(self, precision: Precision | Literal["auto"]) -> Backend:
        """The same backend with another :attr:`precision`; ``auto`` takes bfloat16 where the
        processor is made for it, else float16 where a card is made for that.

        Raises:
            ValueError: the backend has no such networks.
        """
        if precision in ("bfloat16", "float16"):
            raise ValueError(f"backend {self.name} computes in float32: expected that or auto")
        return self

    def with_fused_networks(self) -> Backend:
        """The same backend; but each network of :meth:`density_outputs` and :meth:`shade` is one
        kernel forward and one backward, if there are such kernels for its :attr:`precision`."""
        return self

    def prepare_training(self) -> None:
        """Sets the process up as the backend wants it; to be called once, before the first step."""

    def march_visible(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        occupancy: Bool[Tensor, "G G G"],
        settings: MarchSettings,
        field: FieldArrays,
        *,
        early_stop: float,
        jitter: Float[Tensor, " R"] | None = None,
        max_samples: int = 0,
        limits: Float[Tensor, "R 2"] | None = None,
        log2_strides: UInt8[Tensor, "G G G"] | None = None,
    ) -> VisibleSamples:
        """Samples rays for training: of those of :meth:`march` the ones that light reaches, which
        are those before which transmittance is at least ``early_stop``. No gradient.

        Args:
            directions, occupancy, settings, jitter, limits, log2_strides: As for :meth:`march`.
            max_samples: A ray ends after so many samples; 0 means no limit.
        """
        return composed.march_visible(
            self,
            origins,
            directions,
            occupancy,
            settings,
            field,
            early_stop=early_stop,
            jitter=jitter,
            max_samples=max_samples,
            limits=limits,
            log2_strides=log2_strides,
        )

    def sample_training_rays(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        occupancy: Bool[Tensor, "G G G"],
        settings: MarchSettings,
        field: FieldArrays,
        *,
        early_stop: float,
        jitter: Float[Tensor, " R"] | None = None,
        max_samples: int = 0,
        limits: Float[Tensor, "R 2"] | None = None,
        log2_strides: UInt8[Tensor, "G G G"] | None = None,
    ) -> VisibleSamples:
        """As :meth:`march_visible`; but a backend may guess how many samples there will be by what
        the steps before had, so that the host need not wait for their number. Samples are then
        padded, and rays for which there was no room have a ``next_step``."""
        return self.march_visible(
            origins,
            directions,
            occupancy,
            settings,
            field,
            early_stop=early_stop,
            jitter=jitter,
            max_samples=max_samples,
            limits=limits,
            log2_strides=log2_strides,
        )

    def render(
        self,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
        occupancy: Bool[Tensor, "G G G"],
        settings: MarchSettings,
        field: FieldArrays,
        ray_features: Float[Tensor, "R A"],
        *,
        early_stop: float,
        min_weight: float,
        limits: Float[Tensor, "R 2"] | None = None,
    ) -> Rendering:
        """Renders rays for looking: all of the above in one, front to back. No gradient.

        Args:
            directions, occupancy, settings, limits: As for :meth:`march`.
            ray_features: As for :meth:`shade`.
            early_stop: Transmittance below which a ray ends; what lies behind weighs less.
            min_weight: Samples that weigh up to so much may get the colour of the next ones of
                their ray, as many of them as weigh so much together; 0 gives each sample its own.
        """
        del min_weight  # may, not must
        return composed.render(
            self,
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
        latents: Float[Tensor, "E C"],
        scale: Float[Tensor, "L C"],
        shift: Float[Tensor, "L C"],
        grid: GridSpec,
        *,
        seed: int,
        first: int = 0,
        stride: int = 1,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, ""]:
        """Sum of estimated bits of some rows under logistic densities, one per level and channel.

        With v a latent plus noise, a = scale and b = shift of its level and channel:
        ``-log2(sigmoid((v + 1/2) a + b) - sigmoid((v - 1/2) a + b) + 1e-10)``. Differentiable in
        ``latents``, ``scale`` and ``shift``. One row of scale and shift serves all levels.

        Args:
            seed: Of the noise, see :class:`TableQuantizer`.
            first, stride: Rows are taken in blocks of 16; those of the blocks ``first::stride``
                count.
            gradient: As in :meth:`interpolate`, for ``latents``.
        """
        assert gradient is None, "see supports_sparse_gradient"
        return latent_rates.logistic_bits(
            latents, scale, shift, grid, seed=seed, first=first, stride=stride
        )

    def coded_bits(
        self,
        latents: Float[Tensor, "E C"],
        lengths: Float[Tensor, "T W"],
        classes: Int16[Tensor, "E C"],
        first_table: Int[Tensor, " L"],
        grid: GridSpec,
        *,
        bins_per_unit: int = 1,
        first: int = 0,
        stride: int = 1,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, ""]:
        """Sum of the bits of some rows, rounded, under tables of code lengths.

        The value is what rounded latents cost. Its gradient is that of the mean cost of latents
        with uniform noise, for rounding has none: with B the code lengths, linear between bins and
        beyond the last two, that of ``∫ B(q + u) du`` over u in [-1/2, 1/2], which is
        ``B(q + 1/2) - B(q - 1/2)``. Not differentiable in ``lengths``.

        Args:
            lengths: Bits of the values -(W - 1) / 2 ... (W - 1) / 2 in each table, each divided by
                ``bins_per_unit``; W odd, 3 or more.
            classes: Table of each latent, from the level's first one on; those with -1 cost
                nothing.
            first_table: The first table of each level.
            bins_per_unit: 1 for integers; more where the cost is given in between as well.
            first, stride: As in :meth:`logistic_bits`.
            gradient: As in :meth:`interpolate`, for ``latents``.
        """
        assert gradient is None, "see supports_sparse_gradient"
        return latent_rates.coded_bits(
            latents,
            lengths,
            classes,
            first_table,
            grid,
            bins_per_unit=bins_per_unit,
            first=first,
            stride=stride,
        )

    def update_rows(
        self,
        parameter: Float[Tensor, "E C"],
        gradient: SparseRowGradient,
        state: AdamState,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """A step of Adam in the rows that were touched, in place; clears the gradient.

        See :class:`shacira_nerfstudio.model.sparse_row_adam.SparseRowAdam`.
        """
        sparse_rows.update_rows(
            parameter, gradient, state, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay
        )
