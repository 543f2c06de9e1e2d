"""Runs of small integers to bytes: packed bits, or one frequency table and a stream if shorter."""

from __future__ import annotations

import numpy as np

from shacira_nerfstudio.codec.bitio import BitReader, BitWriter, ByteReader, varint
from shacira_nerfstudio.codec.entropy.frequency_table import (
    FIXED,
    MAX_PRECISION,
    MAX_SYMBOL,
    MIN_PRECISION,
    PRECISION,
    FrequencyTable,
    TableSet,
)
from shacira_nerfstudio.codec.entropy.rans import MAX_LANES, Decoder, Segment, choose_lanes, encode

PACKED, CODED = 0, 1
MAX_WIDTH = (2 * MAX_SYMBOL).bit_length()


def encode_array(values: np.ndarray, *, fast: bool | None = None) -> bytes:
    """Encodes integers within ±4095; their number, at least 1, is not stored."""
    values = values.reshape(-1).astype(np.int64)
    packed, coded = _encode_packed(values), _encode_coded(values, fast)
    return min(packed, coded, key=len)


def decode_array(reader: ByteReader, count: int, *, fast: bool | None = None) -> np.ndarray:
    """Inverse of :func:`encode_array`, int16 [count]; the caller has bounded ``count``."""
    if reader.byte("coding", PACKED, CODED) == PACKED:
        return _decode_packed(reader, count)
    return _decode_coded(reader, count, fast)


def _encode_packed(values: np.ndarray) -> bytes:
    """Minimum, width of the rest in bits, then each value minus the minimum in that many bits."""
    low = int(values.min())
    width = (int(values.max()) - low).bit_length()
    bits = (values - low)[:, None] >> np.arange(width - 1, -1, -1) & 1
    head = bytes([PACKED]) + varint(low + MAX_SYMBOL) + bytes([width])
    return head + np.packbits(bits.astype(np.uint8)).tobytes()


def _decode_packed(reader: ByteReader, count: int) -> np.ndarray:
    low = reader.varint("minimum", 0, 2 * MAX_SYMBOL) - MAX_SYMBOL
    width = reader.byte("width", 0, MAX_WIDTH)
    raw = reader.array("u1", (count * width + 7) // 8, "packed values")
    bits = np.unpackbits(raw)
    if bits[count * width :].any():
        reader.fail("zeros behind the last packed value", "others")
    values = np.full(count, low, dtype=np.int32)
    for i in range(width):
        values += bits[i : count * width : width].astype(np.int32) << (width - 1 - i)
    if values.max() > MAX_SYMBOL:
        reader.fail(f"values within ±{MAX_SYMBOL}", int(values.max()))
    return values.astype(np.int16)


def _encode_coded(values: np.ndarray, fast: bool | None) -> bytes:
    low = int(values.min())
    counts = np.bincount(values - low)
    table = FrequencyTable.from_counts(counts, minimum=low)
    writer = BitWriter()
    table.write(writer)
    num_lanes = choose_lanes(table.cost(counts) >> FIXED, len(values))
    index, tables = np.zeros(len(values), dtype=np.int32), TableSet([table])
    segment = Segment.from_symbols(values, index, tables, fast=fast)
    stream = encode([segment], num_lanes=num_lanes, fast=fast)
    bits = writer.to_bytes()
    lengths = varint(num_lanes) + varint(len(bits)) + varint(len(stream))
    return bytes([CODED, PRECISION]) + lengths + bits + stream


def _decode_coded(reader: ByteReader, count: int, fast: bool | None) -> np.ndarray:
    precision = reader.byte("precision", MIN_PRECISION, MAX_PRECISION)
    num_lanes = reader.varint("lanes", 1, MAX_LANES)
    table_size, stream_size = reader.varint("bytes of table"), reader.varint("bytes of stream")
    bits = BitReader(reader.take(table_size, "table"), reader.section)
    table = FrequencyTable.read(bits, reader.section, precision)
    bits.finish()
    stream = reader.take(stream_size, "stream")
    decoder = Decoder(stream, num_lanes=num_lanes, section=reader.section, fast=fast)
    values = decoder.take(np.zeros(count, dtype=np.int32), TableSet([table]))
    decoder.finish()
    return values
