"""The small sections: GRID, RNDR, WGTS and psnr, each to bytes and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

from shacira_nerfstudio.codec.entropy.int_array import decode_array, encode_array
from shacira_nerfstudio.codec.container import VERSION
from shacira_nerfstudio.codec.scene import (
    BACKGROUNDS,
    CONTRACTIONS,
    MAX_LATENT_DIM,
    QuantizedTensor,
    RenderSettings,
)
from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint
from shacira_nerfstudio.grid import MAX_NUM_LEVELS, MAX_RESOLUTION, GridSpec

MAX_WEIGHTS = 1 << 22
"""All weights of a file; a constant tensor costs no bytes, so a file's length cannot bound them."""

MAX_TENSORS = 4096
DENSE_SIZE, OTHER_SIZE = 0, 255
MIN_LOG2_SIZE, MAX_LOG2_SIZE = 3, 28
PER_TENSOR, PER_ROW, SAME_PER_ROW = 0, 1, 2
"""How steps are stored: one; one per row; one per row, but all equal and stored once."""

_NUMBERS = ("near", "far", "step_size", "knee", "early_stop")


def encode_grid(grid: GridSpec, latent_dim: int, *, version: int = VERSION) -> bytes:
    head = bytes([grid.num_dims, grid.num_levels, latent_dim])
    pairs = list(zip(grid.resolutions, grid.table_sizes, strict=True))
    if version < 3:
        return head + b"".join(struct.pack("<II", *pair) for pair in pairs)
    previous = 0
    for resolution, size in pairs:
        code = _size_code(resolution**grid.num_dims, size)
        head += varint(resolution - previous) + bytes([code])
        if code == OTHER_SIZE:
            head += varint(size)
        previous = resolution
    return head


def decode_grid(payload: memoryview, *, version: int = VERSION) -> tuple[GridSpec, int]:
    """Returns the grid and the number of channels."""
    reader = ByteReader(payload, "GRID")
    num_dims = reader.byte("axes", 2, 3)
    num_levels = reader.byte("levels", 1, MAX_NUM_LEVELS)
    latent_dim = reader.byte("channels", 1, MAX_LATENT_DIM)
    if version < 3:
        pairs = reader.array("<u4", 2 * num_levels, "levels").reshape(-1, 2).tolist()
    else:
        pairs, resolution = [], 0
        for _ in range(num_levels):
            resolution += reader.varint("step of the resolution", 0, MAX_RESOLUTION)
            pairs.append((resolution, _read_size(reader, resolution**num_dims)))
    reader.finish()
    resolutions, sizes = zip(*pairs, strict=True)
    try:
        return GridSpec(num_dims, resolutions, sizes), latent_dim
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
    """A table size is a multiple of 8."""
    return -(-num_vertices // 8) * 8


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


def encode_weights(weights: Mapping[str, QuantizedTensor], *, fast: bool | None = None) -> bytes:
    """Tensors in order of their names."""
    parts = [varint(len(weights))]
    for name in sorted(weights):
        tensor = weights[name]
        steps = tensor.steps.astype("<f4")
        mode = PER_TENSOR if len(steps) == 1 else PER_ROW
        if mode == PER_ROW and (steps == steps[0]).all():
            mode, steps = SAME_PER_ROW, steps[:1]
        shape = b"".join(varint(length) for length in tensor.values.shape)
        head = bytes([len(name)]) + name.encode() + bytes([tensor.values.ndim]) + shape
        parts += [head, bytes([mode]), steps.tobytes(), encode_array(tensor.values, fast=fast)]
    return b"".join(parts)


def decode_weights(payload: memoryview, *, fast: bool | None = None) -> dict[str, QuantizedTensor]:
    reader = ByteReader(payload, "WGTS")
    weights: dict[str, QuantizedTensor] = {}
    previous, left = "", MAX_WEIGHTS
    for _ in range(reader.varint("tensors", 0, MAX_TENSORS)):
        name = bytes(reader.take(reader.byte("length of a name", 1), "name")).decode("latin-1")
        if name <= previous:
            reader.fail(f"a name after {previous!r}", repr(name))
        shape = [reader.varint("length of an axis", 1) for _ in range(reader.byte("axes", 1, 3))]
        count = 1
        for length in shape:
            count *= length
        left -= count
        if left < 0:
            reader.fail(f"at most {MAX_WEIGHTS} weights", f"shape {shape} of {name!r}")
        mode = reader.byte("steps", PER_TENSOR, SAME_PER_ROW)
        if mode != PER_TENSOR and shape[0] == 1:
            reader.fail("one step for a tensor of one row", mode)
        steps = reader.array("<f4", shape[0] if mode == PER_ROW else 1, "steps")
        if mode == SAME_PER_ROW:
            steps = np.repeat(steps, shape[0])
        values = decode_array(reader, count, fast=fast).reshape(shape)
        try:
            weights[name] = QuantizedTensor(values, steps)
        except ValueError as error:
            raise SceneFormatError("WGTS", f"a valid tensor {name!r}", error) from None
        previous = name
    reader.finish()
    return weights


def encode_prefix_psnr(prefix_psnr: tuple[int, ...]) -> bytes:
    return np.array(prefix_psnr, dtype="<u2").tobytes()


def decode_prefix_psnr(payload: memoryview, num_levels: int) -> tuple[int, ...]:
    reader = ByteReader(payload, "psnr")
    values = reader.array("<u2", num_levels, "PSNR").tolist()
    reader.finish()
    return tuple(values)
