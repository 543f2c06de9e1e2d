"""What the hot operations take and return: settings of the march, samples, networks, renderings.

Notation: R rays, S packed samples, E entries, d channels of a latent, L levels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from shacira_nerfstudio.backends.sparse_rows import IDENTITY, TableQuantizer
from shacira_nerfstudio.grid import GridSpec

Contraction = Literal["affine", "contracted"]
Precision = Literal["float32", "bfloat16", "float16"]
"""Number format of the factors in the networks' products; sums are float32 or better. float16 is
for cards that are made for it and not for bfloat16: its gradients are scaled."""
Layer = tuple[Tensor, Tensor]
"""Weight [out, in] and bias [out]."""


MAX_LENGTH, MAX_STEPS = 2.0**40, 1 << 16
"""Lengths whose squares and ratios are far within single precision, and march steps of a ray that
still end; a file knows the same bounds."""


@dataclass(frozen=True)
class MarchSettings:
    """Where a ray is sampled. Lengths are in world units.

    The samples of a ray are equal steps of a spacing function g with ``g(t) = t`` up to ``knee``
    and ``g(t) = knee * (2 - knee / t)`` beyond, so that steps are constant near the camera and grow
    with the square of the distance: what a contraction of the same form needs (Barron et al.,
    "Mip-NeRF 360", CVPR 2022, Sec. 2).
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
        if not 0 <= self.near < self.far <= MAX_LENGTH:
            raise ValueError(
                f"expected 0 <= near < far <= {MAX_LENGTH:.3g}, got {self.near} and {self.far}"
            )
        sides = [high - low for low, high in zip(*self.box, strict=True)]
        lengths = [*sides, self.step_size, *([self.knee] if self.knee else [])]
        if not min(lengths) >= 1 / MAX_LENGTH or not self.knee <= MAX_LENGTH:
            raise ValueError(
                f"expected sides of the box, step_size and knee (or 0) from {1 / MAX_LENGTH:.3g} "
                f"to {MAX_LENGTH:.3g}, got {sides}, {self.step_size} and {self.knee}"
            )
        if not max(abs(v) for corner in self.box for v in corner) <= MAX_LENGTH:
            raise ValueError(f"expected a box within {MAX_LENGTH:.3g}, got {self.box}")
        if not self.num_steps <= MAX_STEPS:
            raise ValueError(
                f"expected at most {MAX_STEPS} march steps per ray, got {self.num_steps:.6g} of "
                f"step_size {self.step_size}"
            )

    def spacing_of(self, t: float) -> float:
        """The spacing function g of a distance."""
        return t if t <= self.knee or not self.knee else self.knee * (2 - self.knee / t)

    @property
    def num_steps(self) -> float:
        """Most march steps of a ray: from near to far, or across the box if it ends there."""
        span = self.spacing_of(self.far) - self.spacing_of(self.near)
        if self.contraction == "affine":
            span = min(span, math.dist(*self.box))
        return span / self.step_size


MAX_LOG2_STRIDE = 5
"""Of how many march steps one sample may stand for at the most, see :meth:`Backend.march`."""


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
    """Where to go on when ``max_samples`` ended a ray early; -1 for rays that are done."""

    @property
    def ray_indices(self) -> Int[Tensor, " S"]:
        return torch.repeat_interleave(self.packed_info[:, 1], output_size=len(self.t_starts))


@dataclass(frozen=True)
class VisibleSamples:
    """Packed samples that light reaches, and what the density network made of them."""

    t_starts: Float[Tensor, " S"]
    t_ends: Float[Tensor, " S"]
    positions: Float[Tensor, "S 3"]
    packed_info: Int[Tensor, "R 2"]
    next_step: Int[Tensor, " R"]
    """The step at which ``max_samples`` ended a ray early; -1 for other rays. Whether it is -1 for
    a ray that had become opaque before is each backend's choice."""
    latents: Float[Tensor, "S L d"]
    density_outputs: Float[Tensor, "S G"]
    num_marched: int | Tensor
    """Samples that were looked at; int64 [] on the device where the host does not know it."""
    num_known_late: Tensor | None = None
    """Where the host does not know how many samples light reaches: how many, int64 [] on the
    device. What follows them is padding, belongs to no ray and is 0 throughout; those for which
    there was no room are missing."""
    rays: Int[Tensor, " S"] | None = None
    """The ray of each sample, 0 for padding; None to have it found out."""

    @property
    def num_visible(self) -> int | Tensor:
        """Samples without padding."""
        return len(self.t_starts) if self.num_known_late is None else self.num_known_late

    @property
    def ray_indices(self) -> Int[Tensor, " S"]:
        """The ray of each sample."""
        if self.rays is not None:
            return self.rays
        return torch.repeat_interleave(self.packed_info[:, 1], output_size=len(self.t_starts))

    def to(self, dtype: torch.dtype) -> VisibleSamples:
        """The same in another number format."""
        names = ("t_starts", "t_ends", "positions", "latents", "density_outputs")
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
        names = ("color", "transmittance", "distance", "last_color")
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})


@dataclass(frozen=True)
class NetworkWeights:
    """Both networks of a field: rectified linear units between the layers of each, and a sigmoid
    behind the last layer of the colour network."""

    density: tuple[Layer, ...]
    """From interpolated latents, level after level, to log density and geometry; the latent decoder
    is folded into the first layer."""
    color: tuple[Layer, ...]
    """From ray features and geometry to colour."""

    def named(self) -> dict[str, Tensor]:
        """All tensors by name, such as ``density_mlp.0.weight``; density first, layer after layer,
        weight before bias."""
        return {
            f"{network}_mlp.{index}.{part}": tensor
            for network, layers in (("density", self.density), ("color", self.color))
            for index, layer in enumerate(layers)
            for part, tensor in zip(("weight", "bias"), layer, strict=True)
        }

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor]) -> NetworkWeights:
        """The reverse of :meth:`named`; the order of the mapping does not matter."""

        def layers(network: str) -> tuple[Layer, ...]:
            names = (f"{network}_mlp.{index}" for index in itertools.count())
            present = itertools.takewhile(lambda name: f"{name}.weight" in tensors, names)
            return tuple((tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in present)

        weights = cls(layers("density"), layers("color"))
        if weights.named().keys() != tensors.keys():
            raise ValueError(f"expected names such as density_mlp.0.weight, got {sorted(tensors)}")
        return weights

    def map(self, function: Callable[[str, Tensor], Tensor]) -> NetworkWeights:
        """Each tensor replaced by what a function makes of its name and itself."""
        return NetworkWeights.from_named(
            {name: function(name, tensor) for name, tensor in self.named().items()}
        )


@dataclass(frozen=True)
class FieldArrays:
    """All that the hot operations read of a field."""

    table: Shaped[Tensor, "E d"]
    """Latents, one row per entry, level after level: float, int8 or int16."""
    grid: GridSpec
    weights: NetworkWeights
    quantizer: TableQuantizer = IDENTITY
    """Applied to each row of the table that is read."""
    num_levels: int | None = None
    """Levels from this one on read as 0; None reads all."""

    @property
    def num_levels_read(self) -> int:
        return self.grid.num_levels if self.num_levels is None else self.num_levels
