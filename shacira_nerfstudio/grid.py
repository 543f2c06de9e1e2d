"""The multi-resolution grid: THE definition of levels, table sizes, offsets and vertex indices.

Every part that touches a grid (kernels, codec, packing) asks this module, so that a file never
depends on which backend wrote or reads it. The layout is tiny-cuda-nn's (Müller et al., "Instant
Neural Graphics Primitives", SIGGRAPH 2022, Sec. 3): level l has ``resolution`` vertices per axis;
it is dense while ``resolution ** num_dims`` fits its table and hashed above.

Notation: D = num_dims, L = num_levels, N = resolution of a level, x = position in [0, 1]^D.
Cell coordinates are ``x * (N - 1) + 0.5`` (half-cell offset): the lower corner of the cell that
holds x is the floor of that, the other corners add 0 or 1 per axis. Vertices therefore run from 0
to N inclusive; those at N wrap around in the table of a dense level, as they do in tiny-cuda-nn.
"""

from __future__ import annotations

import math
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
    """Number of axes, 2 (image) or 3 (radiance field)."""
    resolutions: tuple[int, ...]
    """Vertices per axis, one per level."""
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
        for level, (resolution, size) in enumerate(
            zip(self.resolutions, self.table_sizes, strict=True)
        ):
            if not 2 <= resolution <= MAX_RESOLUTION:
                raise ValueError(
                    f"expected a resolution of 2 to {MAX_RESOLUTION} at level {level}, "
                    f"got {resolution}"
                )
            if not TABLE_ALIGNMENT <= size <= MAX_TABLE_SIZE or size % TABLE_ALIGNMENT:
                raise ValueError(
                    f"expected a table size of {TABLE_ALIGNMENT} to {MAX_TABLE_SIZE}, a multiple "
                    f"of {TABLE_ALIGNMENT}, at level {level}, got {size}"
                )
            if resolution**self.num_dims > size and size & (size - 1):
                raise ValueError(
                    f"expected a power of two as size of hashed level {level}, got {size}"
                )
        if list(self.resolutions) != sorted(self.resolutions):
            raise ValueError(f"expected resolutions coarse to fine, got {self.resolutions}")

    @classmethod
    def create(
        cls,
        *,
        num_dims: int = 3,
        num_levels: int = 16,
        base_res: int = 16,
        max_res: int = 2048,
        log2_hashmap_size: int = 19,
    ) -> GridSpec:
        """Spaces levels geometrically from ``base_res`` to ``max_res`` vertices per axis.

        The growth factor is ``exp((ln max - ln base) / (L - 1))`` (Instant-NGP, Eq. 2-3).
        Resolutions are rounded to the nearest integer here, once, and stored.
        """
        if not 2 <= base_res <= max_res:
            raise ValueError(f"expected 2 <= base_res <= max_res, got {base_res} and {max_res}")
        if not 3 <= log2_hashmap_size <= 28:
            raise ValueError(f"expected log2_hashmap_size from 3 to 28, got {log2_hashmap_size}")
        growth = math.log(max_res / base_res) / max(num_levels - 1, 1)
        resolutions = tuple(
            round(base_res * math.exp(growth * level)) for level in range(num_levels)
        )
        cap = 1 << log2_hashmap_size
        sizes = tuple(
            min(cap, -(-(n**num_dims) // TABLE_ALIGNMENT) * TABLE_ALIGNMENT) for n in resolutions
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
        return self.resolutions[level] ** self.num_dims <= self.table_sizes[level]

    def vertex_index(self, level: int, vertex: Any) -> Any:
        """Entry, within its level, of each vertex.

        Uses only ``+ * ^ & %``, so one function serves numpy int64 and torch int64 arrays.

        Args:
            level: 0 is the coarsest.
            vertex: Integers from 0 to N inclusive, [..., D], numpy int64 or torch int64.

        Returns:
            Integers from 0 to ``table_sizes[level] - 1``, [...].
        """
        resolution, size = self.resolutions[level], self.table_sizes[level]
        index = vertex[..., 0] * 1
        if self.is_dense(level):
            stride = 1
            for axis in range(1, self.num_dims):
                stride = stride * resolution
                index = index + vertex[..., axis] * stride
        else:
            # Vertices are below 2^21 and primes below 2^32: products stay exact in int64, and the
            # mask makes them what uint32 arithmetic gives.
            index = index & 0xFFFFFFFF
            for axis in range(1, self.num_dims):
                index = index ^ ((vertex[..., axis] * HASH_PRIMES[axis]) & 0xFFFFFFFF)
        return index % size
