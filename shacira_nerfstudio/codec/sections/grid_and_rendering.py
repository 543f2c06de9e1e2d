"""Three small sections, each to bytes and back: GRID, RNDR and psnr."""

from __future__ import annotations

import math

import numpy as np

from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint
from shacira_nerfstudio.codec.scene import (
    BACKGROUNDS,
    CONTRACTIONS,
    MAX_LATENT_DIM,
    RenderSettings,
)
from shacira_nerfstudio.grid import MAX_NUM_LEVELS, MAX_RESOLUTION, TABLE_ALIGNMENT, GridSpec

RESOLUTION_PER_AXIS = 128
"""Added to the number of axes where a level stores a resolution for each of them."""

DENSE_SIZE, OTHER_SIZE = 0, 255
MIN_LOG2_SIZE, MAX_LOG2_SIZE = 3, 28

_NUMBERS = ("near", "far", "step_size", "knee", "early_stop")


def encode_grid(grid: GridSpec, latent_dim: int) -> bytes:
    is_equal = all(len(set(axes)) == 1 for axes in grid.resolutions)
    shape = grid.num_dims + (0 if is_equal else RESOLUTION_PER_AXIS)
    parts, coarser = [bytes([shape, grid.num_levels, latent_dim])], (0,) * grid.num_dims
    for axes, size in zip(grid.resolutions, grid.table_sizes, strict=True):
        steps = [n - before for n, before in zip(axes, coarser, strict=True)]
        parts += [varint(step) for step in (steps[:1] if is_equal else steps)]
        code = _size_code(math.prod(axes), size)
        parts.append(bytes([code]) + (varint(size) if code == OTHER_SIZE else b""))
        coarser = axes
    return b"".join(parts)


def decode_grid(payload: memoryview) -> tuple[GridSpec, int]:
    """Returns the grid and the number of channels."""
    reader = ByteReader(payload, "GRID")
    shape = reader.byte("axes")
    num_dims = reader.within(shape % RESOLUTION_PER_AXIS, "axes", 2, 3)
    num_levels = reader.byte("levels", 1, MAX_NUM_LEVELS)
    latent_dim = reader.byte("channels", 1, MAX_LATENT_DIM)
    is_equal = shape < RESOLUTION_PER_AXIS
    resolutions, sizes, axes = [], [], (0,) * num_dims
    for _ in range(num_levels):
        count = 1 if is_equal else num_dims
        steps = [reader.varint("step of a resolution", 0, MAX_RESOLUTION) for _ in range(count)]
        steps = steps * num_dims if is_equal else steps
        axes = tuple(n + step for n, step in zip(axes, steps, strict=True))
        resolutions.append(axes)
        sizes.append(_read_size(reader, math.prod(axes)))
    reader.finish()
    if not is_equal and all(len(set(axes)) == 1 for axes in resolutions):
        reader.fail("axes of different resolutions", "equal ones")
    try:
        return GridSpec(num_dims, tuple(resolutions), tuple(sizes)), latent_dim
    except ValueError as error:
        raise SceneFormatError("GRID", "a valid grid", error) from None


def _size_code(num_vertices: int, size: int) -> int:
    """How a table size is stored: as the smallest for a dense level, else as a power of two, else
    as itself."""
    if size == _dense_size(num_vertices):
        return DENSE_SIZE
    log2 = size.bit_length() - 1
    return log2 if size == 1 << log2 and MIN_LOG2_SIZE <= log2 <= MAX_LOG2_SIZE else OTHER_SIZE


def _read_size(reader: ByteReader, num_vertices: int) -> int:
    code = reader.byte("code of a table size")
    if code == DENSE_SIZE:
        return _dense_size(num_vertices)
    if MIN_LOG2_SIZE <= code <= MAX_LOG2_SIZE:
        size = 1 << code
    elif code == OTHER_SIZE:
        size = reader.varint("table size")
    else:
        reader.fail("a code of a table size", code)
    if _size_code(num_vertices, size) != code:
        reader.fail("the shortest form of a table size", f"code {code} for {size}")
    return size


def _dense_size(num_vertices: int) -> int:
    return -(-num_vertices // TABLE_ALIGNMENT) * TABLE_ALIGNMENT


def encode_rendering(rendering: RenderSettings) -> bytes:
    codes = [CONTRACTIONS.index(rendering.contraction), BACKGROUNDS.index(rendering.background)]
    numbers = [getattr(rendering, name) for name in _NUMBERS]
    floats = np.array([*rendering.box.ravel(), *numbers, *rendering.background_color], dtype="<f4")
    return bytes(codes) + floats.tobytes()


def decode_rendering(payload: memoryview, num_dims: int) -> RenderSettings:
    reader = ByteReader(payload, "RNDR")
    contraction = CONTRACTIONS[reader.byte("contraction", 0, len(CONTRACTIONS) - 1)]
    background = BACKGROUNDS[reader.byte("background", 0, len(BACKGROUNDS) - 1)]
    box = reader.array("<f4", 2 * num_dims, "box").reshape(2, num_dims)
    numbers = dict(
        zip(_NUMBERS, reader.array("<f4", len(_NUMBERS), "numbers").tolist(), strict=True)
    )
    color = tuple(reader.array("<f4", 3, "background colour").tolist())
    reader.finish()
    try:
        return RenderSettings(
            contraction=contraction,
            box=box,
            background=background,
            background_color=color,
            **numbers,
        )
    except ValueError as error:
        raise SceneFormatError("RNDR", "valid render settings", error) from None


def encode_prefix_psnr(prefix_psnr: tuple[int, ...]) -> bytes:
    return np.array(prefix_psnr, dtype="<u2").tobytes()


def decode_prefix_psnr(payload: memoryview, num_levels: int) -> tuple[int, ...]:
    reader = ByteReader(payload, "psnr")
    values = reader.array("<u2", num_levels, "PSNR").tolist()
    reader.finish()
    return tuple(values)
