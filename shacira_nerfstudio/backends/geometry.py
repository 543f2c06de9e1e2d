"""From world to unit cube and along rays: contraction, spacing of samples, ends of rays."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from shacira_nerfstudio.backends.types import MAX_LENGTH, MarchSettings


@lru_cache(maxsize=256)
def constant(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of numbers known to the host, kept for the next call: to send them to a GPU makes
    the host wait for it. Not to be written to."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def cells_along(
    x: Float[Tensor, "S D"], resolution: tuple[int, ...]
) -> tuple[Int64[Tensor, "S D"], Float[Tensor, "S D"]]:
    """Lower vertices and fractions of the cell coordinates ``x (N - 1) + 1/2`` along each axis.

    A float of 24 bits that holds a cell of 8192 has 11 left for the fraction. So x is split: its
    first 11 bits times N - 1 are exact for N up to 2^13, what is left makes a small number, and the
    integer part is taken off before the two are added. Fractions are then right to about 2^-22.

    Args:
        x: Positions in the unit cube.
        resolution: N of each axis.
    """
    scale = constant(tuple(n - 1 for n in resolution), x.dtype, x.device)
    head = (x * 2048).round() / 2048
    product = head * scale
    low = product.floor()
    rest = (product - low) + ((x - head) * scale + 0.5)
    more = rest.floor()
    return (low + more).long(), rest - more


def check_rays(origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"]) -> None:
    """Raises ValueError for rays that are not finite or reach beyond all bounds: compiled code
    would read where there is nothing. Waits for a GPU."""
    for name, part in {"origins": origins, "directions": directions}.items():
        if part.numel() and not part.abs().max() <= MAX_LENGTH:  # not a number is not below
            index = int((~(part.abs() <= MAX_LENGTH)).any(-1).nonzero()[0])
            raise ValueError(
                f"expected {name} of rays within {MAX_LENGTH:.3g}, got {part[index].tolist()} in "
                f"ray {index}: look for a camera with such a pose or focal length"
            )


def _corners(settings: MarchSettings, like: Tensor) -> tuple[Tensor, Tensor]:
    low, high = (constant(corner, like.dtype, like.device) for corner in settings.box)
    return low, high


def contract(points: Float[Tensor, "*N 3"], settings: MarchSettings) -> Float[Tensor, "*N 3"]:
    """World to unit cube.

    ``affine``: the box to [0, 1]^3. ``contracted``: with y = position in the box scaled to [-1,
    1]^3 and r = max |y|, ``y`` inside and ``(2 - 1/r) y / r`` outside, then [-2, 2]^3 to [0, 1]^3.
    """
    low, high = _corners(settings, points)
    unit = (points - low) / (high - low)
    if settings.contraction == "affine":
        return unit
    y = unit * 2 - 1
    r = y.abs().amax(-1, keepdim=True).clamp_min(1.0)
    return (y * ((2 - 1 / r) / r) + 2) / 4


def uncontract(x: Float[Tensor, "*N 3"], settings: MarchSettings) -> Float[Tensor, "*N 3"]:
    """Unit cube to world: the inverse of :func:`contract` (the boundary of the cube is at
    infinity)."""
    low, high = _corners(settings, x)
    if settings.contraction == "contracted":
        z = x * 4 - 2
        m = z.abs().amax(-1, keepdim=True).clamp(1.0, 2 - 1e-6)
        # m = 2 - 1/r for r >= 1, and z = m y / r.
        x = (z / (m * (2 - m)) + 1) / 2
    return low + x * (high - low)


def spacing(t: Tensor, knee: float) -> Tensor:
    """The spacing function g of :class:`MarchSettings`."""
    return t if knee == 0 else torch.where(t <= knee, t, knee * (2 - knee / t.clamp_min(knee)))


def spacing_inverse(u: Tensor, knee: float) -> Tensor:
    """t with ``spacing(t) == u``."""
    if knee == 0:
        return u
    return torch.where(u <= knee, u, knee * knee / (2 * knee - u).clamp_min(1e-6 * knee))


def ray_bounds(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    settings: MarchSettings,
    limits: Float[Tensor, "R 2"] | None = None,
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Where each ray begins and ends: near and far, cut by the box of an affine scene and by limits
    of its own."""
    t_min = torch.full_like(origins[:, 0], settings.near)
    t_max = torch.full_like(t_min, settings.far)
    if settings.contraction == "affine":
        low, high = _corners(settings, origins)
        # A component of 0 divides to infinities of the right sign; 1e-12 keeps 0/0 away.
        inverse = 1 / torch.where(
            directions.abs() < 1e-12, torch.full_like(directions, 1e-12), directions
        )
        a, b = (low - origins) * inverse, (high - origins) * inverse
        t_min = torch.maximum(t_min, torch.minimum(a, b).amax(-1))
        t_max = torch.minimum(t_max, torch.maximum(a, b).amin(-1))
    if limits is not None:
        t_min = torch.maximum(t_min, limits[:, 0].to(t_min))
        t_max = torch.minimum(t_max, limits[:, 1].to(t_max))
    return t_min, t_max
