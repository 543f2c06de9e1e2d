"""What rows of the table cost, in plain torch: under logistic densities, under code lengths."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from shacira_nerfstudio.backends.geometry import constant
from shacira_nerfstudio.backends.sparse_rows import RATE_BLOCK, noise_at
from shacira_nerfstudio.grid import GridSpec


def rated_rows(num_rows: int, first: int, stride: int, device: torch.device) -> Tensor:
    """Which rows below ``num_rows`` are rated: those of the blocks ``first::stride``."""
    blocks = torch.arange(first, -(-num_rows // RATE_BLOCK), stride, device=device)
    rows = blocks[:, None] * RATE_BLOCK + torch.arange(RATE_BLOCK, device=device)
    return rows.flatten()[: num_rated(num_rows, first, stride)]


def num_rated(num_rows: int, first: int, stride: int) -> int:
    """How many of the first ``num_rows`` rows are rated."""
    blocks, rest = divmod(num_rows, RATE_BLOCK)
    is_last_rated = blocks % stride == first
    return len(range(first, blocks, stride)) * RATE_BLOCK + (rest if is_last_rated else 0)


def logistic_bits(
    latents: Float[Tensor, "E C"],
    scale: Float[Tensor, "L C"],
    shift: Float[Tensor, "L C"],
    grid: GridSpec,
    *,
    seed: int,
    first: int = 0,
    stride: int = 1,
) -> Float[Tensor, ""]:
    """See :meth:`Backend.logistic_bits`."""
    num_channels = latents.shape[1]
    rated = rated_rows(len(latents), first, stride, latents.device)
    channels = torch.arange(num_channels, device=latents.device)
    ends = [num_rated(offset, first, stride) for offset in grid.offsets]
    total = latents.new_zeros(())
    for level, (begin, end) in enumerate(itertools.pairwise(ends)):
        rows = rated[begin:end]
        a, b = (density[min(level, len(density) - 1)] for density in (scale, shift))
        v = latents[rows] + noise_at(rows[:, None] * num_channels + channels, seed).to(latents)
        upper, lower = (v + 0.5) * a + b, (v - 0.5) * a + b
        # In the upper tail both sigmoids are near 1; mirrored, the difference keeps its digits.
        sign = torch.where((upper + lower).detach() > 0, -1.0, 1.0)
        probability = sign * (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower))
        total = total - torch.log2(probability + 1e-10).sum()
    return total


def coded_bits(
    latents: Float[Tensor, "E C"],
    lengths: Float[Tensor, "T W"],
    classes: Int16[Tensor, "E C"],
    first_table: Int[Tensor, " L"],
    grid: GridSpec,
    *,
    bins_per_unit: int = 1,
    first: int = 0,
    stride: int = 1,
) -> Float[Tensor, ""]:
    """See :meth:`Backend.coded_bits`."""
    rows = rated_rows(len(latents), first, stride, latents.device)
    ends = constant(grid.offsets[1:-1], rows.dtype, rows.device)
    level = torch.bucketize(rows, ends, right=True)
    kinds = classes[rows]
    costs = kinds >= 0
    tables = (first_table.to(rows)[level][:, None] + kinds)[costs]
    rated, tables = latents[rows][costs], lengths[tables].to(latents)
    middle = lengths.shape[1] // 2
    at = torch.arange(len(rated), device=rated.device)

    def cost(q: Tensor) -> Tensor:
        q = q * bins_per_unit + middle
        below = q.floor().long().clamp(0, 2 * middle - 1)
        low, high = tables[at, below], tables[at, below + 1]
        return low + (q - below) * (high - low)

    slope = cost(rated.detach() + 0.5) - cost(rated.detach() - 0.5)
    value = cost(rated.detach().round())
    return (value + slope * (rated - rated.detach())).sum()
