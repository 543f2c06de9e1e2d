"""Plain torch on any device and any dtype: the truth that every other backend is tested against.

Written to be read: one line per step of the mathematics, no fusing. What a backend need not bring
is here what it is by default. Notation as in :mod:`shacira_nerfstudio.backends.base`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shacira_nerfstudio.backends.base import Backend
from shacira_nerfstudio.backends.composed import sample_weights
from shacira_nerfstudio.backends.geometry import (
    cells_along,
    contract,
    ray_bounds,
    spacing,
    spacing_inverse,
)
from shacira_nerfstudio.backends.sparse_rows import IDENTITY, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.backends.types import MAX_LOG2_STRIDE, MarchSettings, Samples
from shacira_nerfstudio.grid import GridSpec


class ReferenceBackend(Backend):
    """The three required operations."""

    name = "reference"

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
        del values  # autograd needs the forward pass
        assert gradient is None, "see supports_sparse_gradient"
        x = x.detach().clamp(0, 1)
        if quantizer.mode != "none":
            table = table + (self.quantize(table.detach(), quantizer) - table.detach())
        corners = torch.cartesian_prod(*[torch.arange(2, device=x.device)] * grid.num_dims)
        levels = []
        for level, resolution in enumerate(grid.resolutions):
            low, fraction = cells_along(x, resolution)
            fraction = fraction[:, None]  # [S, 1, D]
            weights = torch.where(corners.bool(), fraction, 1 - fraction).prod(-1)  # [S, 2^D]
            index = grid.vertex_index(level, low[:, None] + corners)  # [S, 2^D]
            # Not table[...], whose gradient sorts all indices on a GPU.
            rows = table.index_select(0, (grid.offsets[level] + index).flatten())
            levels.append((weights[..., None] * rows.view(*index.shape, table.shape[1])).sum(1))
        return torch.stack(levels, 1)

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
        o, d = origins.double(), directions.double()
        begin = torch.zeros_like(o[:, 0]) if jitter is None else jitter.double()
        first = torch.zeros_like(begin, dtype=torch.long) if first_step is None else first_step
        t_min, t_max = ray_bounds(o, d, settings, limits)
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
        length = torch.ones_like(edge)
        if log2_strides is not None and longest:
            allowed = log2_strides[cell[..., 0], cell[..., 1], cell[..., 2]]
            exponent = torch.zeros_like(allowed)
            covered = torch.zeros_like(keep)
            for k in range(1, MAX_LOG2_STRIDE + 1):
                start, size = step - step % 2**k, 2**k
                last = (start + size - 1).clamp_max(longest - 1)
                fits = keep[:, start] & (start + size <= num_steps[:, None])
                fits &= t_mid[:, last] < t_max[:, None]
                for place in (start, (start + size // 2).clamp_max(longest - 1), last):
                    fits &= allowed[:, place] >= k
                exponent = torch.where(fits & (step == start), k, exponent)
                covered |= fits & (step != start)
            keep &= ~covered
            length = (2.0**exponent).to(edge)
            middle = torch.where(exponent > 0, begin[:, None], 0.5)
            t_mid = spacing_inverse(edge + middle * (length * settings.step_size), settings.knee)
            x = contract(o[:, None] + t_mid[..., None] * d[:, None], settings)
        next_step = torch.full_like(first, -1)
        if max_samples:
            rank = keep.cumsum(1)
            over = keep & (rank > max_samples)
            next_step = torch.where(over.any(1), over.int().argmax(1), -1) if longest else next_step
            keep &= rank <= max_samples
        counts = keep.sum(1)
        kept = keep.flatten().nonzero()[:, 0]
        edge, dtype = edge.flatten()[kept], origins.dtype
        end = edge + length.flatten()[kept] * settings.step_size
        return Samples(
            t_starts=spacing_inverse(edge, settings.knee).to(dtype),
            t_ends=spacing_inverse(end, settings.knee).to(dtype),
            positions=x.reshape(-1, 3)[kept].to(dtype),
            packed_info=torch.stack([counts.cumsum(0) - counts, counts], 1),
            next_step=next_step,
        )

    def composite(
        self, sigmas: Tensor, rgbs: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = sample_weights(sigmas, t_starts, t_ends, packed_info)
        num_rays, t = len(packed_info), (t_starts + t_ends) / 2
        rays = torch.repeat_interleave(packed_info[:, 1], output_size=len(sigmas))
        color = rgbs.new_zeros(num_rays, rgbs.shape[1]).index_add(0, rays, weights[:, None] * rgbs)
        accumulation = sigmas.new_zeros(num_rays).index_add(0, rays, weights)
        distance = sigmas.new_zeros(num_rays).index_add(0, rays, weights * t)
        return color, accumulation, distance


def create(device: torch.device) -> ReferenceBackend:
    """Runs everywhere."""
    del device
    return ReferenceBackend()
