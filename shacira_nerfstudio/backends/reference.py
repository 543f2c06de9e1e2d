"""Plain torch on any device and any dtype: the truth that every other backend is tested against.

Written to be read: one line per step of the mathematics, no fusing. Notation as in :mod:`base`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from shacira_nerfstudio.backends.base import (
    MarchSettings,
    Precision,
    Samples,
    VisibleSamples,
    Weights,
)
from shacira_nerfstudio.backends.composed import render_in_rounds
from shacira_nerfstudio.backends.sparse_rows import (
    PLAIN,
    RATE_BLOCK,
    AdamState,
    Quantizer,
    RowGradient,
)
from shacira_nerfstudio.grid import GridSpec

MAX_LOG_DENSITY = 15.0
"""Density is exp(raw), clamped here so that it stays finite (Instant-NGP's activation)."""


_MASK = 0xFFFFFFFF


def noise_at(index: Tensor, seed: int) -> Tensor:
    """Uniform noise in [-0.5, 0.5), multiples of 2^-24, float32.

    A counter-based generator: 32 bits are mixed twice by shifts and odd multipliers (the constants
    are those that Wellons's search for unbiased 32-bit mixers found, "lowbias32", 2018).

    Args:
        index: int64, below 2^32.
        seed: 0 to 2^32 - 1.
    """
    x = (index ^ seed) & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    x = x ^ (x >> 16)
    return (x >> 8).float() * 2.0**-24 - 0.5


def density_of(raw: Tensor) -> Tensor:
    """Density (1 / world unit) [S] from the outputs of the density network [S, G]."""
    # The gradient ignores the limit: a sample beyond it can come back.
    beyond = (raw[:, 0].clamp(max=MAX_LOG_DENSITY) - raw[:, 0]).detach()
    return torch.exp(raw[:, 0] + beyond)


def density_network(latents: Tensor, weights: Weights) -> Tensor:
    """Raw outputs [S, G] from interpolated latents [S, L, d]."""
    x = latents.reshape(len(latents), latents.shape[1] * latents.shape[2])
    x = F.linear(x, weights["density_mlp.0.weight"], weights["density_mlp.0.bias"]).relu()
    return F.linear(x, weights["density_mlp.1.weight"], weights["density_mlp.1.bias"])


def color_network(x: Tensor, weights: Weights) -> Tensor:
    """Colour in [0, 1], [S, 3], from ray features and geometry [S, A + G - 1]."""
    last = sum(name.startswith("color_mlp") for name in weights) // 2 - 1
    for index in range(last + 1):
        x = F.linear(x, weights[f"color_mlp.{index}.weight"], weights[f"color_mlp.{index}.bias"])
        x = x.relu() if index < last else x.sigmoid()
    return x


def contract(points: Tensor, settings: MarchSettings) -> Tensor:
    """World to unit cube.

    ``affine``: the box to [0, 1]^3. ``contracted``: with y = position in the box scaled to [-1,
    1]^3 and r = max |y|, ``y`` inside and ``(2 - 1/r) y / r`` outside, then [-2, 2]^3 to [0, 1]^3.

    Args:
        points: World positions, [..., 3].
    """
    low, high = (torch.tensor(c, dtype=points.dtype, device=points.device) for c in settings.box)
    unit = (points - low) / (high - low)
    if settings.contraction == "affine":
        return unit
    y = unit * 2 - 1
    r = y.abs().amax(-1, keepdim=True).clamp_min(1.0)
    return (y * ((2 - 1 / r) / r) + 2) / 4


def uncontract(x: Tensor, settings: MarchSettings) -> Tensor:
    """Unit cube to world: the inverse of :func:`contract` (the boundary of the cube is at
    infinity)."""
    low, high = (torch.tensor(c, dtype=x.dtype, device=x.device) for c in settings.box)
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
    origins: Tensor, directions: Tensor, settings: MarchSettings
) -> tuple[Tensor, Tensor]:
    """Where each ray begins and ends, [R] each: near and far, cut by the box of an affine scene."""
    t_min = torch.full_like(origins[:, 0], settings.near)
    t_max = torch.full_like(t_min, settings.far)
    if settings.contraction == "affine":
        low, high = (
            torch.tensor(c, dtype=origins.dtype, device=origins.device) for c in settings.box
        )
        # A component of 0 divides to infinities of the right sign; 1e-12 keeps 0/0 away.
        inverse = 1 / torch.where(
            directions.abs() < 1e-12, torch.full_like(directions, 1e-12), directions
        )
        a, b = (low - origins) * inverse, (high - origins) * inverse
        t_min = torch.maximum(t_min, torch.minimum(a, b).amax(-1))
        t_max = torch.minimum(t_max, torch.maximum(a, b).amin(-1))
    return t_min, t_max


def _transmittance(
    sigmas: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
) -> tuple[Tensor, Tensor]:
    """Transmittance in front of each sample [S] and optical depth of each sample [S]."""
    depth = sigmas * (t_ends - t_starts)
    # A running sum over all rays in double, minus its value where the ray begins.
    total = torch.cat([depth.new_zeros(1), depth]).double().cumsum(0)
    begin = torch.repeat_interleave(packed_info[:, 0], packed_info[:, 1])
    return torch.exp(-(total[:-1] - total.index_select(0, begin))).to(sigmas.dtype), depth


def sample_weights(sigmas: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor) -> Tensor:
    """What each sample weighs in the colour of its ray, [S]: transmittance in front of it times its
    own opacity.

    Args:
        sigmas, t_starts, t_ends: Of the samples, [S].
        packed_info: First sample of each ray, and how many it has, [R, 2].
    """
    transmittance, depth = _transmittance(sigmas, t_starts, t_ends, packed_info)
    return transmittance * -torch.expm1(-depth)


class ReferenceBackend:
    """See :class:`shacira_nerfstudio.backends.base.Backend` for the contract of each method."""

    name = "reference"
    writes_rows = False
    precision: Precision = "float32"

    def with_precision(self, precision: Precision | Literal["auto"]) -> ReferenceBackend:
        if precision == "bfloat16":
            raise ValueError("backend reference computes in float32: expected that or auto")
        return self

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
        del values  # autograd needs the forward pass
        assert gradient is None, "see writes_rows"
        x = x.detach().clamp(0, 1)
        if quantizer.mode != "none":
            table = table + (self.quantize(table.detach(), quantizer) - table.detach())
        corners = torch.cartesian_prod(*[torch.tensor([0, 1], device=x.device)] * grid.num_dims)
        levels = []
        for level, (resolution, offset) in enumerate(
            zip(grid.resolutions, grid.offsets, strict=False)
        ):
            cell = x * (resolution - 1) + 0.5
            low = cell.floor()
            fraction = (cell - low)[:, None]  # [S, 1, D]
            weights = torch.where(corners.bool(), fraction, 1 - fraction).prod(-1)  # [S, 2^D]
            index = grid.vertex_index(level, low.long()[:, None] + corners)  # [S, 2^D]
            # Not table[...], whose gradient sorts all indices on a GPU.
            rows = table.index_select(0, (offset + index).flatten())
            levels.append((weights[..., None] * rows.view(*index.shape, table.shape[1])).sum(1))
        return torch.stack(levels, 1)

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
        dtype = origins.dtype
        o, d = origins.double(), directions.double()
        begin = jitter.double() if jitter is not None else torch.zeros_like(o[:, 0])
        first = (
            first_step if first_step is not None else torch.zeros_like(o[:, 0], dtype=torch.long)
        )
        t_min, t_max = ray_bounds(o, d, settings)
        u_min, u_max = spacing(t_min, settings.knee), spacing(t_max, settings.knee)
        num_steps = ((u_max - u_min) / settings.step_size).ceil().clamp_min(0).long()
        num_steps = torch.where((t_max > t_min) & (first >= 0), num_steps, 0)
        longest = int(num_steps.max()) if len(o) else 0
        step = torch.arange(longest, device=o.device)
        edge = u_min[:, None] + (step + begin[:, None]) * settings.step_size  # [R, K]
        t_mid = spacing_inverse(edge + 0.5 * settings.step_size, settings.knee)
        x = contract(o[:, None] + t_mid[..., None] * d[:, None], settings)
        size = occupancy.shape[0]
        cell = (x * size).floor().long().clamp(0, size - 1)
        keep = occupancy[cell[..., 0], cell[..., 1], cell[..., 2]].bool()
        keep &= (t_mid < t_max[:, None]) & (step < num_steps[:, None]) & (step >= first[:, None])
        next_step = torch.full_like(first, -1)
        if max_samples:
            rank = keep.cumsum(1)
            over = keep & (rank > max_samples)
            next_step = torch.where(over.any(1), over.int().argmax(1), -1) if longest else next_step
            keep &= rank <= max_samples
        counts = keep.sum(1)
        return Samples(
            t_starts=spacing_inverse(edge, settings.knee)[keep].to(dtype),
            t_ends=spacing_inverse(edge + settings.step_size, settings.knee)[keep].to(dtype),
            positions=x[keep].to(dtype),
            packed_info=torch.stack([counts.cumsum(0) - counts, counts], 1),
            next_step=next_step,
        )

    def composite(
        self, sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = sample_weights(sigmas, t_starts, t_ends, packed_info)
        rays = torch.repeat_interleave(
            torch.arange(len(packed_info), device=sigmas.device), packed_info[:, 1]
        )
        t = (t_starts + t_ends) / 2
        color = rgbs.new_zeros(len(packed_info), rgbs.shape[1]).index_add(
            0, rays, weights[:, None] * rgbs
        )
        accumulation = sigmas.new_zeros(len(packed_info)).index_add(0, rays, weights)
        distance = sigmas.new_zeros(len(packed_info)).index_add(0, rays, weights * t)
        return color, accumulation, distance

    def visible(
        self,
        sigmas: Tensor,
        t_starts: Tensor,
        t_ends: Tensor,
        packed_info: Tensor,
        *,
        early_stop: float,
    ) -> Tensor:
        lit = _transmittance(sigmas, t_starts, t_ends, packed_info)[0] >= early_stop
        rays = torch.repeat_interleave(packed_info[:, 1])
        return torch.zeros_like(packed_info[:, 1]).index_add(0, rays, lit.long())

    def take_front(
        self, packed_info: Tensor, counts: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        before = int(packed_info[:, 1].sum())
        for tensor in tensors:
            if len(tensor) != before:
                raise ValueError(f"expected tensors of {before} samples, got one of {len(tensor)}")
        rank = torch.arange(before, device=counts.device)
        rank = rank - torch.repeat_interleave(packed_info[:, 0], packed_info[:, 1])
        index = (rank < torch.repeat_interleave(counts, packed_info[:, 1])).nonzero()[:, 0]
        info = torch.stack([counts.cumsum(0) - counts, counts], 1)
        return info, [tensor[index] for tensor in tensors]

    def quantize(self, table: Tensor, quantizer: Quantizer) -> Tensor:
        table = table.detach()
        if quantizer.mode == "round":
            return table.round()
        if quantizer.mode == "noise":
            index = torch.arange(table.numel(), device=table.device).view(table.shape)
            return table + noise_at(index, quantizer.seed).to(table)
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
        assert gradient is None, "see writes_rows"
        row = torch.arange(len(latents), device=latents.device)
        wanted = row // RATE_BLOCK % stride == first
        total = latents.new_zeros(())
        for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
            rows = row[begin:end][wanted[begin:end]]
            a, b = (density[min(level, len(density) - 1)] for density in (scale, shift))
            index = rows[:, None] * latents.shape[1] + torch.arange(
                latents.shape[1], device=rows.device
            )
            v = latents[rows] + noise_at(index, seed).to(latents)
            upper, lower = (v + 0.5) * a + b, (v - 0.5) * a + b
            # In the upper tail both sigmoids are near 1; mirrored, the difference keeps its digits.
            sign = torch.where((upper + lower).detach() > 0, -1.0, 1.0)
            probability = sign * (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower))
            total = total - torch.log2(probability + 1e-10).sum()
        return total

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
        assert gradient is None, "see writes_rows"
        row = torch.arange(len(latents), device=latents.device)
        wanted = (row // RATE_BLOCK % stride == first)[:, None] & (classes >= 0)
        level = torch.bucketize(row, row.new_tensor(grid.offsets[1:-1]), right=True)
        tables = row.new_tensor(first_table)[level][:, None] + classes
        rated, tables = latents[wanted], lengths[tables[wanted]].to(latents)
        middle, num_rows = lengths.shape[1] // 2, len(rated)

        def cost(q: Tensor) -> Tensor:
            q = q * letters_per_unit + middle
            below = q.floor().long().clamp(0, 2 * middle - 1)
            at = torch.arange(num_rows, device=q.device)
            low, high = tables[at, below], tables[at, below + 1]
            return low + (q - below) * (high - low)

        slope = cost(rated.detach() + 0.5) - cost(rated.detach() - 0.5)
        value = cost(rated.detach().round())
        return (value + slope * (rated - rated.detach())).sum()

    def update_rows(
        self,
        parameter: Tensor,
        gradient: RowGradient,
        state: AdamState,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        rows = gradient.touched_rows().to(parameter.device).nonzero()[:, 0]
        grad = gradient.values[rows].to(parameter)
        largest = torch.iinfo(torch.int16).max
        updates = (state.num_updates[rows].int() + 1).clamp_max(largest)
        state.num_updates[rows] = updates.to(torch.int16)
        powers = updates.to(torch.float64)[:, None]
        corrections = [(1 - beta**powers).to(grad) for beta in betas]
        mean, square = state.moments[rows].unbind(1)
        mean, square = mean.lerp(grad, 1 - betas[0]), square.lerp(grad * grad, 1 - betas[1])
        state.moments[rows] = torch.stack([mean, square], 1)
        step = mean / corrections[0] / ((square / corrections[1]).sqrt() + eps)
        parameter[rows] = parameter[rows] * (1 - lr * weight_decay) - lr * step
        gradient.clear()

    def raw_density(self, latents: Tensor, weights: Weights) -> Tensor:
        with torch.no_grad():
            return density_network(latents, weights)

    def shade(
        self, latents: Tensor, raw: Tensor, ray_features: Tensor, rays: Tensor, weights: Weights
    ) -> tuple[Tensor, Tensor]:
        raw = density_network(latents, weights) if torch.is_grad_enabled() else raw
        inputs = torch.cat([ray_features[rays], raw[:, 1:]], 1)
        return density_of(raw), color_network(inputs, weights)

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
        # All samples are looked at; a ray may be cut short behind an opaque surface.
        samples = self.march(
            origins, directions, occupancy, settings, jitter=jitter, max_samples=max_samples
        )
        is_read = torch.arange(grid.num_levels, device=origins.device) < num_levels
        latents = self.interpolate(samples.positions, table, grid, quantizer=quantizer)
        latents = latents * is_read[:, None]
        raw = self.raw_density(latents, weights)
        spans = (samples.t_starts, samples.t_ends, samples.packed_info)
        counts = self.visible(density_of(raw), *spans, early_stop=early_stop)
        every = (samples.t_starts, samples.t_ends, samples.positions, latents, raw)
        info, kept = self.take_front(samples.packed_info, counts, every)
        t_starts, t_ends, positions, latents, raw = kept
        return VisibleSamples(
            t_starts=t_starts,
            t_ends=t_ends,
            positions=positions,
            packed_info=info,
            next_step=samples.next_step,
            latents=latents,
            raw=raw,
            num_marched=len(samples.t_starts),
        )

    render = render_in_rounds


def create(device: torch.device) -> ReferenceBackend:
    """Runs everywhere."""
    del device
    return ReferenceBackend()
