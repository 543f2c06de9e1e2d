"""The occupancy grid to an OCCU section and back, without loss.

The grid is coded coarse to fine: a block is occupied when one of its 4^D cells is, blocks of blocks
likewise, until at most 8 remain along each axis; only cells of occupied blocks are coded. Within a
grid, the cells with equal ``x + 2 y + 4 z`` form a *wavefront*, and wavefronts follow each other.
Those of a cell's 3^D - 1 neighbours that come before it in raster order (z slowest) lie on earlier
wavefronts, so a whole wavefront decodes at once, and its frequencies come from what the wavefronts
before it held: per pattern of these neighbours, how many cells were occupied. No table is stored.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from shacira_nerfstudio.codec.bitio import ByteReader, varint
from shacira_nerfstudio.codec.compiled import load_kernels
from shacira_nerfstudio.codec.entropy.frequency_table import FIXED, frequency_costs
from shacira_nerfstudio.codec.entropy.rans import (
    MAX_LANES,
    Decoder,
    Segment,
    choose_lanes,
    encode,
)
from shacira_nerfstudio.codec.scene import MAX_CELLS, MAX_CELLS_PER_AXIS

BLOCK = 4
COARSEST = 8
PRECISION = 16
"""Empty space is very sure of itself: 2^16 lets an expected bit cost 2^-16 bit."""

MAX_FILE_CELLS = 1 << 21, 512
"""A file may ask for 2^21 cells or for 512 per byte of its own, whichever is more: 256 along each
axis are allowed from 32 kB on."""


def max_cells(file_bytes: int) -> int:
    """Most cells that a file of this length may ask for."""
    return min(MAX_CELLS, max(MAX_FILE_CELLS[0], MAX_FILE_CELLS[1] * file_bytes))


def encode_occupancy(occupancy: np.ndarray, *, fast: bool | None = None) -> bytes:
    """Encodes bool [G_0, G_1] or [G_0, G_1, G_2]."""
    segments: list[Segment] = []
    cost = 0

    def take(bits: np.ndarray, freqs_of_one: np.ndarray) -> np.ndarray:
        nonlocal cost
        segments.append(Segment.from_bits(bits, freqs_of_one, PRECISION))
        cost += int(frequency_costs(PRECISION)[segments[-1].freqs].sum())
        return bits

    pyramid = [occupancy]
    while max(pyramid[-1].shape) > COARSEST:
        pyramid.append(_blocks(pyramid[-1]))
    possible = np.ones_like(pyramid[-1])
    for grid in reversed(pyramid):
        possible = _cells(possible, grid.shape)
        flat = grid.reshape(-1)
        _walk(possible, lambda cells, freqs, flat=flat: take(flat[cells], freqs), fast)
        possible = grid
    num_lanes = choose_lanes(cost >> FIXED, sum(len(segment.indices) for segment in segments))
    stream = encode(segments, num_lanes=num_lanes, fast=fast)
    is_cube = len(set(occupancy.shape)) == 1
    shape = occupancy.shape[:1] if is_cube else (0, *occupancy.shape)
    return b"".join(varint(length) for length in (*shape, num_lanes)) + stream


def decode_occupancy(
    payload: memoryview, num_dims: int, *, max_cells: int = MAX_CELLS, fast: bool | None = None
) -> np.ndarray:
    """Inverse of :func:`encode_occupancy`.

    Args:
        max_cells: Larger grids are refused before anything is allocated.
    """
    reader = ByteReader(payload, "OCCU")
    shape = _read_shape(reader, num_dims)
    if math.prod(shape) > max_cells:
        reader.fail(f"at most {max_cells} cells", " x ".join(map(str, shape)))
    num_lanes = reader.varint("lanes", 1, MAX_LANES)
    stream = reader.take(reader.num_left, "stream")
    decoder = Decoder(stream, num_lanes=num_lanes, section="OCCU", fast=fast)
    shapes = [shape]
    while max(shapes[-1]) > COARSEST:
        shapes.append(tuple(-(-length // BLOCK) for length in shapes[-1]))
    grid = np.ones(shapes[-1], dtype=bool)
    for each in reversed(shapes):
        grid = _walk(_cells(grid, each), lambda _, freqs: decoder.take_bits(freqs, PRECISION), fast)
    decoder.finish()
    return grid


def _read_shape(reader: ByteReader, num_dims: int) -> tuple[int, ...]:
    side = reader.varint("cells per axis", 0, MAX_CELLS_PER_AXIS)
    if side:
        return (side,) * num_dims
    shape = tuple(reader.varint("cells per axis", 1, MAX_CELLS_PER_AXIS) for _ in range(num_dims))
    if len(set(shape)) == 1:
        reader.fail("axes of different numbers of cells", shape)
    return shape


def _blocks(grid: np.ndarray) -> np.ndarray:
    """Whether any cell of each block is occupied."""
    for _ in range(grid.ndim):
        # Each round treats the first axis and turns it to the end.
        starts = np.arange(0, len(grid), BLOCK)
        grid = np.moveaxis(np.logical_or.reduceat(grid, starts, axis=0), 0, -1)
    return np.ascontiguousarray(grid)


def _cells(blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The block of each cell; a grid of the same shape stays as it is."""
    if blocks.shape == shape:
        return blocks
    for axis in range(blocks.ndim):
        blocks = blocks.repeat(BLOCK, axis=axis)
    return np.ascontiguousarray(blocks[tuple(slice(0, length) for length in shape)])


def _walk(
    possible: np.ndarray,
    take: Callable[[np.ndarray, np.ndarray], np.ndarray],
    fast: bool | None,
) -> np.ndarray:
    """Visits the possible cells wavefront by wavefront.

    Args:
        take: Given the flat positions of a wavefront's cells and their frequency of being occupied,
            says which are.

    Returns:
        All cells; impossible ones are free.
    """
    num_dims = possible.ndim
    # A frame of free cells spares the neighbours' bounds.
    frame = tuple(length + 2 for length in possible.shape)
    framed = np.zeros(math.prod(frame), dtype=np.uint8)
    strides = [math.prod(frame[axis + 1 :]) for axis in range(num_dims)]
    neighbours = [
        sum(stride * shift for stride, shift in zip(strides, shifts, strict=True))
        for shifts in itertools.product((-1, 0, 1), repeat=num_dims)
        if shifts[::-1] < (0,) * num_dims
    ]
    shifts = np.array(neighbours, dtype=np.int64)
    seen = np.zeros((1 << len(shifts), 2), dtype=np.int64)
    twin = load_kernels("shacira_nerfstudio.codec.sections.occupancy_numba", fast)
    expect, learn = (twin.expect, twin.learn) if twin else (_expect, _learn)
    for cells, framed_cells in _wavefronts(possible, strides):
        patterns, freqs_of_one = expect(framed, framed_cells, shifts, seen)
        bits = take(cells, freqs_of_one)
        framed[framed_cells] = bits
        learn(patterns, bits, seen)
    return framed.reshape(frame)[(slice(1, -1),) * num_dims].astype(bool)


def _expect(
    framed: np.ndarray, cells: np.ndarray, shifts: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pattern of earlier neighbours of each cell of a wavefront, and its frequency of being
    occupied.

    The frequency is (occupied + 0.4) / (all + 0.8) of the cells ``seen`` with this pattern, times
    2^16, rounded down, from 1 to 2^16 - 1.
    """
    patterns = np.zeros(len(cells), dtype=np.int64)
    for shift in shifts.tolist():
        patterns = patterns * 2 + framed[cells + shift]
    free, occupied = seen[patterns].T
    freqs = ((5 * occupied + 2) << PRECISION) // (5 * (occupied + free) + 4)
    return patterns, np.clip(freqs, 1, (1 << PRECISION) - 1)


def _learn(patterns: np.ndarray, bits: np.ndarray, seen: np.ndarray) -> None:
    """Counts a wavefront's cells: ``seen`` holds free and occupied ones per pattern."""
    np.add.at(seen.reshape(-1), patterns * 2 + bits, 1)


def _wavefronts(
    possible: np.ndarray, strides: list[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per wavefront: flat positions of its possible cells, ascending, and those in the framed
    grid."""
    flat = np.flatnonzero(possible).astype(np.int32)
    rest, axes = flat, []
    for length in possible.shape[::-1]:  # as np.unravel_index, in half the memory
        rest, axis = np.divmod(rest, np.int32(length))
        axes.insert(0, axis)
    number, framed = np.zeros_like(axes[0]), np.zeros_like(axes[0])
    for i, (axis, stride) in enumerate(zip(axes, strides, strict=True)):
        number += axis << i
        framed += (axis + 1) * stride
    # MAX_CELLS_PER_AXIS keeps the numbers below 2^16, where numpy sorts by radix.
    order = np.argsort(number.astype(np.uint16), kind="stable")
    ends = np.flatnonzero(np.diff(number[order], append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        cells = order[begin:end]
        yield flat[cells], framed[cells]
        begin = end
