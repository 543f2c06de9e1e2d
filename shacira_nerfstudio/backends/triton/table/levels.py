"""The levels of a grid as kernels read them.

A restatement of :meth:`GridSpec.vertex_index`, which is the definition. All hashes are uint32: what
wraps around is the same as the masked 64-bit products over there.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from shacira_nerfstudio.backends.geometry import constant
from shacira_nerfstudio.grid import HASH_PRIMES, GridSpec

LEVEL_FIELDS = 8
"""First entry, table size, multipliers of axes 1 and 2, whether dense, resolution of each axis."""


MAX_NUMBERS = 1 << 30
"""Of a table: places in it, and a block beyond its end, are int32. Four channels of 16 levels with
2^24 entries, which are 4 GB, and 16 GB to train."""


def check_size(num_entries: int, num_channels: int) -> None:
    """Raises ValueError for a table that kernels could not count."""
    if num_entries * num_channels > MAX_NUMBERS:
        raise ValueError(
            f"expected a table of at most {MAX_NUMBERS:,} numbers on backend triton, got "
            f"{num_entries:,} entries of {num_channels}: take a smaller log2_hashmap_size or "
            "latent_dim"
        )


@lru_cache(maxsize=16)
def level_constants(grid: GridSpec, device: torch.device) -> Tensor:
    """int32 [L, 8], see :data:`LEVEL_FIELDS`; offsets below 2^31."""
    rows = []
    for level, resolution in enumerate(grid.resolutions):
        axes = (*resolution, 1)[:3]
        dense = grid.is_dense(level)
        # The multipliers are strides of a dense level, else primes, as the int32 of equal bits.
        first, second = (
            (axes[0], math.prod(axes[:2]))
            if dense
            else (p - (p >> 31 << 32) for p in HASH_PRIMES[1:])
        )
        rows.append((grid.offsets[level], grid.table_sizes[level], first, second, dense, *axes))
    return constant(tuple(rows), torch.int32, device)


@triton.jit
def _along(x_ptr, at, mask, resolution):
    """Lower vertex (uint32) and fraction of samples along an axis."""
    x = tl.minimum(tl.maximum(tl.load(x_ptr + at, mask=mask, other=0.0), 0.0), 1.0)
    scale = (resolution - 1).to(tl.float32)
    # See geometry.cells_along.
    head = tl.floor(x * 2048.0 + 0.5) * (1.0 / 2048.0)
    product = head * scale
    low = tl.floor(product)
    rest = (product - low) + ((x - head) * scale + 0.5)
    more = tl.floor(rest)
    return (low + more).to(tl.int32).to(tl.uint32), rest - more


@triton.jit
def cells_of(x_ptr, at, mask, stride, level_ptr, D: tl.constexpr):
    """Cells of samples in a level, for :func:`corner_of`.

    Args:
        x_ptr: Positions; those of a sample ``stride`` apart.
        at: Where those of each sample begin, int64.
        level_ptr: The level's row of :func:`level_constants`.

    Returns:
        Coordinates of the lower corner, times multipliers (uint32); fractions; and what is the same
        in the whole level.
    """
    size = tl.load(level_ptr + 1).to(tl.uint32)
    step_b = tl.load(level_ptr + 2).to(tl.uint32, bitcast=True)
    step_c = tl.load(level_ptr + 3).to(tl.uint32, bitcast=True)
    is_dense = tl.load(level_ptr + 4) != 0
    stride = tl.cast(stride, tl.int64)  # twice it may be beyond 2^31
    a, fraction_a = _along(x_ptr, at, mask, tl.load(level_ptr + 5))
    b, fraction_b = _along(x_ptr + stride, at, mask, tl.load(level_ptr + 6))
    b = b * step_b
    c, fraction_c = tl.zeros_like(a), tl.zeros_like(fraction_a)
    if D == 3:
        c, fraction_c = _along(x_ptr + 2 * stride, at, mask, tl.load(level_ptr + 7))
        c = c * step_c
    return a, b, c, fraction_a, fraction_b, fraction_c, size, step_b, step_c, is_dense


@triton.jit
def corner_of(cells, CORNER: tl.constexpr, D: tl.constexpr):
    """Entry within its level (int32), and weight, of a corner of cells; bit i of its number stands
    for axis i."""
    a, b, c, fraction_a, fraction_b, fraction_c, size, step_b, step_c, is_dense = cells
    weight_a = fraction_a if CORNER & 1 else 1 - fraction_a
    weight_b = fraction_b if CORNER & 2 else 1 - fraction_b
    weight = weight_a * weight_b
    a = a + 1 if CORNER & 1 else a
    b = b + step_b if CORNER & 2 else b
    if D == 3:
        weight *= fraction_c if CORNER & 4 else 1 - fraction_c
        c = c + step_c if CORNER & 4 else c
    # Vertices of a dense level go from 0 to N on each axis, N >= 2: their index is below 2 sizes.
    straight = a + b + c
    straight = tl.where(straight >= size, straight - size, straight)
    hashed = (a ^ b ^ c) & (size - 1)  # a power of two
    return tl.where(is_dense, straight, hashed).to(tl.int32), weight
