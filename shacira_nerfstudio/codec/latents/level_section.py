"""One level's symbols to one LATN section and back: models, frequency tables, one rANS stream.

Channels follow each other, each in one or two passes, see ``context_model``. A pass is one segment
of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.codec.bitio import (
    BitReader,
    BitWriter,
    ByteReader,
    SceneFormatError,
    varint,
)
from shacira_nerfstudio.codec.entropy.frequency_table import (
    FIXED,
    MAX_PRECISION,
    MIN_PRECISION,
    PRECISION,
    FrequencyTable,
    TableSet,
)
from shacira_nerfstudio.codec.entropy.rans import MAX_LANES, Decoder, Segment, choose_lanes, encode
from shacira_nerfstudio.codec.latents.context_model import ContextModel
from shacira_nerfstudio.codec.latents.level_contexts import LevelCoding

MAX_TABLE_SYMBOLS = 1 << 17, 128
"""The alphabets of a level's tables have at most 2^17 symbols together, and 128 more for every byte
that these tables take. One table for every channel is always allowed."""

_Pass = tuple[int, slice | np.ndarray, np.ndarray, TableSet | None]
"""Channel of a pass, its rows, the table of each and these tables; None if it has no table."""


@dataclass(frozen=True)
class LevelParts:
    """Where the bytes of one LATN section go."""

    table_bytes: int
    """Models, frequency tables and their length."""
    stream_bytes: int


def encode_level(
    symbols: np.ndarray,
    coding: LevelCoding,
    models: Sequence[Sequence[ContextModel]],
    *,
    fast: bool | None = None,
) -> bytes:
    """Encodes the coded entries of one level.

    Args:
        symbols: [n, d].
        models: Per channel those of its one or two passes.
    """
    by_channel = np.ascontiguousarray(symbols.T)
    writer = BitWriter()
    segments, cost, num_symbols = [], 0, 0
    for channel, passes in enumerate(models):
        is_split = len(passes) > 1
        writer.bits(int(is_split), 1)
        for number, model in enumerate(passes):
            model.write(writer)
            classes = coding.classes(model, by_channel, channel, number, is_split=is_split)
            values = by_channel[channel][coding.passes(is_split)[number]].astype(np.int64)
            tables, index, bits = _write_tables(writer, values, classes, model.num_classes)
            cost += bits
            num_symbols += sum(len(table.sqrt_freqs) for table in tables)
            if tables:
                segments.append(Segment.from_symbols(values, index, TableSet(tables), fast=fast))
    packed = writer.to_bytes()
    if num_symbols > _max_symbols(packed):
        return encode_level(symbols, coding, [(ContextModel(),)] * len(by_channel), fast=fast)
    num_lanes = choose_lanes(cost >> FIXED, symbols.size)
    stream = encode(segments, num_lanes=num_lanes, fast=fast)
    return bytes([PRECISION]) + varint(num_lanes) + varint(len(packed)) + packed + stream


def _max_symbols(packed: bytes | memoryview) -> int:
    return MAX_TABLE_SYMBOLS[0] + MAX_TABLE_SYMBOLS[1] * len(packed)


def _write_tables(
    writer: BitWriter, values: np.ndarray, classes: np.ndarray, num_classes: int
) -> tuple[list[FrequencyTable], np.ndarray, int]:
    """Makes and writes the tables of the classes that occur.

    Returns:
        The tables, each value's position among them, and what the values cost in 2^-16 bit.
    """
    low = int(values.min()) if len(values) else 0
    width = int(values.max()) - low + 1 if len(values) else 1
    counts = np.bincount(classes * width + (values - low), minlength=num_classes * width)
    tables, position, cost = [], np.zeros(num_classes, dtype=np.int32), 0
    for number, row in enumerate(counts.reshape(num_classes, width)):
        is_used = bool(row.any())
        writer.bits(int(is_used), 1)
        if is_used:
            previous = tables[-1] if tables else None
            table = FrequencyTable.from_counts(row, minimum=low, previous=previous)
            table.write(writer, previous)
            position[number] = len(tables)
            tables.append(table)
            begin = table.minimum - low
            cost += table.cost(row[begin : begin + len(table.sqrt_freqs)])
    return tables, position[classes], cost


def decode_level(
    payload: memoryview,
    coding: LevelCoding,
    num_channels: int,
    section: str,
    *,
    fast: bool | None = None,
) -> tuple[np.ndarray, LevelParts]:
    """Inverse of :func:`encode_level`.

    Returns:
        Symbols, int16 [n, d], and where the bytes went.
    """
    parts = _Parts(payload, section)
    decoder = Decoder(parts.stream, num_lanes=parts.num_lanes, section=section, fast=fast)
    symbols = np.zeros((num_channels, coding.count), dtype=np.int16)
    for channel, chosen, index, tables in parts.passes(coding, symbols):
        if tables is not None:
            symbols[channel][chosen] = decoder.take(index, tables)
    decoder.finish()
    return symbols.T, LevelParts(parts.table_bytes, len(parts.stream))


def cross_entropy(payload: memoryview, coding: LevelCoding, symbols: np.ndarray) -> float:
    """Bits that a level's symbols [n, d] take under the tables stored in its section: what no
    coder can go below."""
    by_channel = np.ascontiguousarray(symbols.T)
    parts, total = _Parts(payload, "LATN"), 0.0
    for channel, chosen, index, tables in parts.passes(coding, by_channel):
        if tables is not None:
            values = by_channel[channel][chosen]
            freqs = tables.freqs[values - tables.minimums[index] + tables.first[index]]
            total += float((tables.precision - np.log2(freqs)).sum())
    return total


class _Parts:
    """A section taken apart, but for what its stream holds."""

    def __init__(self, payload: memoryview, section: str) -> None:
        reader = ByteReader(payload, section)
        self._section = section
        self._precision = reader.byte("precision", MIN_PRECISION, MAX_PRECISION)
        self.num_lanes = reader.varint("lanes", 1, MAX_LANES)
        size = reader.varint("bytes of tables")
        packed = reader.take(size, "tables")
        self._bits = BitReader(packed, section)
        self._max_symbols = self._symbols_left = _max_symbols(packed)
        self.table_bytes = reader.position
        self.stream = reader.take(reader.num_left, "stream")

    def passes(self, coding: LevelCoding, symbols: np.ndarray) -> Iterator[_Pass]:
        """The passes in their order.

        Args:
            symbols: int16 [d, n]; those of a pass must be right before the next one is asked for.
        """
        for channel in range(len(symbols)):
            is_split = bool(self._bits.bits(1))
            for number, chosen in enumerate(coding.passes(is_split)):
                model = ContextModel.read(
                    self._bits,
                    self._section,
                    has_previous=channel > 0,
                    has_partner=number > 0,
                )
                tables, position = self._read_tables(model.num_classes)
                classes = coding.classes(model, symbols, channel, number, is_split=is_split)
                index = position[classes]
                if (index < 0).any():
                    raise SceneFormatError(
                        self._section, "a table for every class that occurs", "none"
                    )
                yield channel, chosen, index, TableSet(tables) if tables else None
        self._bits.finish()

    def _read_tables(self, num_classes: int) -> tuple[list[FrequencyTable], np.ndarray]:
        """Tables of the classes that have one, and each class's position among them or -1."""
        tables: list[FrequencyTable] = []
        position = np.full(num_classes, -1, dtype=np.int32)
        for number in range(num_classes):
            if self._bits.bits(1):
                position[number] = len(tables)
                previous = tables[-1] if tables else None
                table = FrequencyTable.read(self._bits, self._section, self._precision, previous)
                tables.append(table)
                self._symbols_left -= len(table.sqrt_freqs)
                if self._symbols_left < 0:
                    raise SceneFormatError(
                        self._section, f"at most {self._max_symbols} symbols in tables", "more"
                    )
        return tables, position
