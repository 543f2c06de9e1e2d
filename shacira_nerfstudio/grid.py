"""The multi-resolution grid: THE definition of levels, table sizes, offsets and vertex indices.

Every part that touches a grid (kernels, codec, packing) asks this module, so that a file never
depends on which backend wrote or reads it. The layout is tiny-cuda-nn's (Müller et al., "Instant
Neural Graphics Primitives", SIGGRAPH 2022, Sec. 3), but for one thing: each axis of a level may
have a resolution of its own, for pictures that are not square and for video. A level is dense while
the product of its resolutions fits its table, and hashed above.

Notation: D = num_dims, L = num_levels, N_a = resolution of a level along axis a, x = position in
[0, 1]^D. Cell coordinates are ``x_a * (N_a - 1) + 0.5`` (half-cell offset): the lower corner of
the cell that holds x is the floor of that, the other corners add 0 or 1 per axis. Vertices
therefore run from 0 to N_a inclusive; those at N_a wrap around in the table of a dense level, as
they do in tiny-cuda-nn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HASH_PRIMES = (1, 2654435761, 805459861)
"""Multipliers of the spatial hash, one per axis (Instant-NGP, Eq. 4)."""

TABLE_ALIGNMENT = 8
"""Table sizes are rounded up to a multiple of this, as in tiny-cuda-nn."""

MAX_RESOLUTION = 1 << 20
MAX_TABLE_SIZE = 1 << 28
MAX_NUM_LEVELS = 64


@dataclass(frozen=True)
class GridSpec:
    """Resolutions and table sizes of a multi-resolution hash grid, level after level, coarse to
    fine.

    The numbers are stored, not the formula that made them: no reader of a file evaluates ``exp`` or
    a growth factor, so no file depends on a maths library.
    """

    num_dims: int
    """Number of axes: 2 (picture) or 3 (radiance field; x, y, t of a video)."""
    resolutions: tuple[tuple[int, ...], ...]
    """Vertices along each axis, [L][D]; no axis gets coarser from one level to the next."""
    table_sizes: tuple[int, ...]
    """Entries, one per level; a multiple of 8."""

    def __post_init__(self) -> None:
        if self.num_dims not in (2, 3):
            raise ValueError(f"expected num_dims 2 or 3, got {self.num_dims}")
        if not 1 <= len(self.resolutions) <= MAX_NUM_LEVELS:
            raise ValueError(f"expected 1 to {MAX_NUM_LEVELS} levels, got {len(self.resolutions)}")
        if len(self.resolutions) != len(self.table_sizes):
            raise ValueError(
                f"expected one table size per level, got {len(self.resolutions)} resolutions and "
                f"{len(self.table_sizes)} table sizes"
            )
        coarser = (2,) * self.num_dims
        for level, (axes, size) in enumerate(zip(self.resolutions, self.table_sizes, strict=True)):
            if len(axes) != self.num_dims or not all(2 <= n <= MAX_RESOLUTION for n in axes):
                raise ValueError(
                    f"expected {self.num_dims} resolutions of 2 to {MAX_RESOLUTION} at level "
                    f"{level}, got {axes}"
                )
            if not TABLE_ALIGNMENT <= size <= MAX_TABLE_SIZE or size % TABLE_ALIGNMENT:
                raise ValueError(
                    f"expected a table size of {TABLE_ALIGNMENT} to {MAX_TABLE_SIZE}, a multiple "
                    f"of {TABLE_ALIGNMENT}, at level {level}, got {size}"
                )
            if not self.is_dense(level) and size & (size - 1):
                raise ValueError(
                    f"expected a power of two as size of hashed level {level}, got {size}"
                )
            if any(n < before for n, before in zip(axes, coarser, strict=True)):
                raise ValueError(f"expected resolutions coarse to fine, got {self.resolutions}")
            coarser = axes

    @classmethod
    def create(
        cls,
        *,
        num_dims: int = 3,
        num_levels: int = 16,
        base_res: int | Sequence[int] = 16,
        max_res: int | Sequence[int] = 2048,
        log2_hashmap_size: int = 19,
    ) -> GridSpec:
        """Spaces levels geometrically from ``base_res`` to ``max_res`` vertices along each axis.

        The growth factor is ``exp((ln max - ln base) / (L - 1))`` (Instant-NGP, Eq. 2-3).
        Resolutions are rounded to the nearest integer here, once, and stored.

        Args:
            base_res, max_res: One number for all axes, or one for each.
        """
        if not 3 <= log2_hashmap_size <= 28:
            raise ValueError(f"expected log2_hashmap_size from 3 to 28, got {log2_hashmap_size}")
        lows, highs = (
            (ends,) * num_dims if isinstance(ends, int) else tuple(ends)
            for ends in (base_res, max_res)
        )
        if not (len(lows) == len(highs) == num_dims) or not all(
            2 <= low <= high for low, high in zip(lows, highs, strict=True)
        ):
            raise ValueError(
                f"expected 2 <= base_res <= max_res along {num_dims} axes, got {base_res} and "
                f"{max_res}"
            )
        by_axis = [_spaced(low, high, num_levels) for low, high in zip(lows, highs, strict=True)]
        resolutions = tuple(zip(*by_axis, strict=True))
        cap = 1 << log2_hashmap_size
        sizes = tuple(
            min(cap, -(-math.prod(axes) // TABLE_ALIGNMENT) * TABLE_ALIGNMENT)
            for axes in resolutions
        )
        return cls(num_dims, resolutions, sizes)

    @property
    def num_levels(self) -> int:
        return len(self.resolutions)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First entry of each level in the concatenated table, and the total at the end (L + 1
        integers)."""
        offsets = [0]
        for size in self.table_sizes:
            offsets.append(offsets[-1] + size)
        return tuple(offsets)

    @property
    def num_entries(self) -> int:
        return sum(self.table_sizes)

    def is_dense(self, level: int) -> bool:
        """Whether each vertex below N has an entry of its own."""
        return math.prod(self.resolutions[level]) <= self.table_sizes[level]

    def vertex_index(self, level: int, vertex: Any) -> Any:
        """Entry, within its level, of each vertex.

        Uses only ``+ * ^ & %``, so one function serves numpy int64 and torch int64 arrays.

        Args:
            level: 0 is the coarsest.
            vertex: Integers from 0 to N_a inclusive, [..., D], numpy int64 or torch int64.

        Returns:
            Integers from 0 to ``table_sizes[level] - 1``, [...].
        """
        axes, size = self.resolutions[level], self.table_sizes[level]
        index = vertex[..., 0] * 1
        if self.is_dense(level):
            stride = 1
            for axis in range(1, self.num_dims):
                stride = stride * axes[axis - 1]
                index = index + vertex[..., axis] * stride
        else:
            # Vertices are below 2^21 and primes below 2^32: products stay exact in int64, and the
            # mask makes them what uint32 arithmetic gives.
            index = index & 0xFFFFFFFF
            for axis in range(1, self.num_dims):
                index = index ^ ((vertex[..., axis] * HASH_PRIMES[axis]) & 0xFFFFFFFF)
        return index % size


def _spaced(low: int, high: int, count: int) -> list[int]:
    growth = math.log(high / low) / max(count - 1, 1)
    return [round(low * math.exp(growth * step)) for step in range(count)]
