"""The occupancy grid to an OCCU section and back, without loss.

The grid is coded coarse to fine: a block is occupied when one of its 4^D cells is, blocks of blocks
likewise, until at most 8 remain per axis; only cells of occupied blocks are coded. Within a grid,
the cells with equal ``x + 2 y + 4 z`` form a *front* and fronts follow each other. Those
of a cell's 3^D - 1 neighbours that come before it in raster order (z slowest) lie on earlier
fronts, so a whole front decodes at once, and its frequencies come from what the fronts before it
held: per pattern of these neighbours, how many cells were occupied. No table is stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from shacira_nerfstudio.codec.entropy.rans import (
    MAX_LANES,
    Decoder,
    Segment,
    choose_lanes,
    encode,
    kernels,
)
from shacira_nerfstudio.codec.entropy.frequency_table import FIXED, symbol_costs
from shacira_nerfstudio.codec.bitio import ByteReader, varint

BLOCK = 4
COARSEST = 8
PRECISION = 16
"""Empty space is very sure of itself: 2^16 lets an expected bit cost 2^-16 bit."""

MAX_CELLS = 1 << 24


def encode_occupancy(occupancy: np.ndarray, *, fast: bool | None = None) -> bytes:
    """Encodes bool [G] * D."""
    segments: list[Segment] = []
    cost = 0

    def take(bits: np.ndarray, freqs_of_one: np.ndarray) -> np.ndarray:
        nonlocal cost
        segments.append(Segment.from_bits(bits, freqs_of_one, PRECISION))
        cost += int(symbol_costs(PRECISION)[segments[-1].freqs].sum())
        return bits

    pyramid = [occupancy]
    while len(pyramid[-1]) > COARSEST:
        pyramid.append(_blocks(pyramid[-1]))
    possible = np.ones_like(pyramid[-1])
    for grid in reversed(pyramid):
        possible = _cells(possible, len(grid))
        flat = grid.reshape(-1)
        _walk(possible, lambda front, freqs, flat=flat: take(flat[front], freqs), fast)
        possible = grid
    num_lanes = choose_lanes(cost >> FIXED, sum(len(segment.letters) for segment in segments))
    stream = encode(segments, num_lanes=num_lanes, fast=fast)
    return varint(len(occupancy)) + varint(num_lanes) + stream


def decode_occupancy(
    payload: memoryview, num_dims: int, *, max_cells: int = MAX_CELLS, fast: bool | None = None
) -> np.ndarray:
    """Inverse of :func:`encode_occupancy`.

    Args:
        max_cells: Larger grids are refused before anything is allocated.
    """
    reader = ByteReader(payload, "OCCU")
    side = reader.varint("cells per axis", 1, MAX_CELLS)
    if side**num_dims > max_cells:
        reader.fail(f"at most {max_cells} cells", f"{side}^{num_dims}")
    num_lanes = reader.varint("lanes", 1, MAX_LANES)
    stream = reader.take(reader.num_left, "stream")
    decoder = Decoder(stream, num_lanes=num_lanes, section="OCCU", fast=fast)
    sides = [side]
    while sides[-1] > COARSEST:
        sides.append(-(-sides[-1] // BLOCK))
    grid = np.ones((sides[-1],) * num_dims, dtype=bool)
    for size in reversed(sides):
        grid = _walk(_cells(grid, size), lambda _, freqs: decoder.take_bits(freqs, PRECISION), fast)
    decoder.finish()
    return grid


def _blocks(grid: np.ndarray) -> np.ndarray:
    """Whether any cell of each block is occupied."""
    for _ in range(grid.ndim):
        # Each round treats the first axis and turns it to the end.
        starts = np.arange(0, len(grid), BLOCK)
        grid = np.moveaxis(np.logical_or.reduceat(grid, starts, axis=0), 0, -1)
    return np.ascontiguousarray(grid)


def _cells(blocks: np.ndarray, side: int) -> np.ndarray:
    """The block of each cell; a grid of the same size stays as it is."""
    if len(blocks) == side:
        return blocks
    for axis in range(blocks.ndim):
        blocks = blocks.repeat(BLOCK, axis=axis)
    return np.ascontiguousarray(blocks[(slice(0, side),) * blocks.ndim])


def _walk(
    possible: np.ndarray,
    take: Callable[[np.ndarray, np.ndarray], np.ndarray],
    fast: bool | None,
) -> np.ndarray:
    """Visits the possible cells front by front.

    Args:
        take: Given the flat positions of a front's cells and their frequency of being occupied,
        says which are.

    Returns:
        All cells; impossible ones are free.
    """
    side, num_dims = len(possible), possible.ndim
    # A frame of free cells spares the neighbours' bounds.
    framed = np.zeros((side + 2) ** num_dims, dtype=np.uint8)
    steps = [(side + 2) ** (num_dims - 1 - axis) for axis in range(num_dims)]
    neighbours = [
        sum(step * shift for step, shift in zip(steps, shifts, strict=True))
        for shifts in itertools.product((-1, 0, 1), repeat=num_dims)
        if shifts[::-1] < (0,) * num_dims
    ]
    shifts = np.array(neighbours, dtype=np.int64)
    seen = np.zeros((1 << len(shifts), 2), dtype=np.int64)
    twin = kernels(fast)
    expect, learn = (twin.expect, twin.learn) if twin else (_expect, _learn)
    for front, framed_front in _fronts(possible, steps):
        patterns, freqs_of_one = expect(framed, framed_front, shifts, seen)
        bits = take(front, freqs_of_one)
        framed[framed_front] = bits
        learn(patterns, bits, seen)
    inner = framed.reshape((side + 2,) * num_dims)[(slice(1, -1),) * num_dims]
    return inner.astype(bool)


def _expect(
    framed: np.ndarray, front: np.ndarray, shifts: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pattern of earlier neighbours of each cell of a front, and its frequency of being occupied.

    The frequency is (occupied + 0.4) / (all + 0.8) of the cells ``seen`` with this pattern, times
    2^16, rounded down, from 1 to 2^16 - 1.
    """
    patterns = np.zeros(len(front), dtype=np.int64)
    for shift in shifts.tolist():
        patterns = patterns * 2 + framed[front + shift]
    free, occupied = seen[patterns].T
    freqs = ((5 * occupied + 2) << PRECISION) // (5 * (occupied + free) + 4)
    return patterns, np.clip(freqs, 1, (1 << PRECISION) - 1)


def _learn(patterns: np.ndarray, bits: np.ndarray, seen: np.ndarray) -> None:
    """Counts a front's cells: ``seen`` holds free and occupied ones per pattern."""
    np.add.at(seen.reshape(-1), patterns * 2 + bits, 1)


def _fronts(possible: np.ndarray, steps: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per front: flat positions of its possible cells, ascending, and those in the framed grid."""
    flat = np.flatnonzero(possible).astype(np.int32)
    axes = np.unravel_index(flat, possible.shape)
    number = sum((axis << i for i, axis in enumerate(axes)), start=np.zeros_like(axes[0]))
    framed = sum(
        ((axis + 1) * step for axis, step in zip(axes, steps, strict=True)),
        start=np.zeros_like(axes[0]),
    )
    # MAX_CELLS keeps front numbers below 2^16, where numpy sorts by radix.
    order = np.argsort(number.astype(np.uint16), kind="stable")
    ends = np.flatnonzero(np.diff(number[order], append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        front = order[begin:end]
        yield flat[front], framed[front]
        begin = end
