"""The baseline's file: parameters as half floats, then a general-purpose compressor.

What one does with a checkpoint when there is no codec. The occupancy grid is left out, in the
baseline's favour: it is no parameter.
"""

from __future__ import annotations

import importlib.util
import lzma
from collections.abc import Mapping

import numpy as np

ZSTD, XZ = "zstd-19", "xz-6"
_HEAD_BYTES = 8


def pack_halves(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, dict[str, int], str]:
    """Named float arrays to bytes.

    Returns:
        The bytes, how many of them each array takes, and which compressor was used: zstd where the
        package `zstandard` is installed, else xz of the standard library, which is the stronger
        one.
    """
    streams, by_name = [], {}
    compressor = ZSTD if importlib.util.find_spec("zstandard") else XZ
    for name, array in arrays.items():
        halves = np.ascontiguousarray(array, "<f2").tobytes()
        stream = _compress(halves, compressor)
        streams.append(len(stream).to_bytes(_HEAD_BYTES, "little") + stream)
        by_name[name] = len(streams[-1])
    return b"".join(streams), by_name, compressor


def unpack_halves(
    data: bytes, shapes: Mapping[str, tuple[int, ...]], compressor: str
) -> dict[str, np.ndarray]:
    """The arrays back, as single floats of the given shapes, in the order they were packed in."""
    arrays, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + _HEAD_BYTES + int.from_bytes(data[begin : begin + _HEAD_BYTES], "little")
        halves = _decompress(data[begin + _HEAD_BYTES : end], compressor)
        arrays[name] = np.frombuffer(halves, "<f2").astype(np.float32).reshape(shape)
        begin = end
    if begin != len(data):
        raise ValueError(f"expected {begin} bytes for {len(shapes)} arrays, found {len(data)}")
    return arrays


def _compress(data: bytes, compressor: str) -> bytes:
    if compressor != ZSTD:
        return lzma.compress(data, preset=6)
    import zstandard  # pyright: ignore[reportMissingImports]

    return zstandard.ZstdCompressor(level=19).compress(data)


def _decompress(data: bytes, compressor: str) -> bytes:
    if compressor != ZSTD:
        return lzma.decompress(data)
    import zstandard  # pyright: ignore[reportMissingImports]

    return zstandard.ZstdDecompressor().decompress(data)
