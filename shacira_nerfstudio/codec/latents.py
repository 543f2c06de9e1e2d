"""One level's symbols to one LATN section and back: channel models, tables, one rANS stream.

Notation: a channel's *score* of an entry is

    support_weight · support + magnitude_weight · magnitude
        + previous_weight · min(Σ |q| of earlier channels, 31),

its class is the number of thresholds at or below the score, times (2 · value_reach + 1), plus the
previous channel's symbol clipped to ±value_reach and shifted to start at 0. One frequency table
serves one class of one channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.codec.contexts import MAX_ENTRY_MAGNITUDE, Features
from shacira_nerfstudio.codec.rans import MAX_LANES, Decoder, Segment, choose_lanes, encode
from shacira_nerfstudio.codec.tables import (
    FIXED,
    MAX_PRECISION,
    MIN_PRECISION,
    PRECISION,
    FrequencyTable,
    TableSet,
)
from shacira_nerfstudio.codec.wire import (
    BitReader,
    BitWriter,
    ByteReader,
    SceneFormatError,
    varint,
)

MAX_WEIGHT = 63
MAX_VALUE_REACH = 3
MAX_THRESHOLDS = 15
MAX_SCORE = MAX_WEIGHT * (8 + 8 * MAX_ENTRY_MAGNITUDE + MAX_ENTRY_MAGNITUDE)


@dataclass(frozen=True)
class ChannelModel:
    """How the entries of one channel fall into classes."""

    support_weight: int = 0
    magnitude_weight: int = 0
    previous_weight: int = 0
    value_reach: int = 0
    thresholds: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        return (len(self.thresholds) + 1) * (2 * self.value_reach + 1)

    def scores(self, features: Features, earlier: np.ndarray) -> np.ndarray:
        """Scores of the entries, int32 [n].

        Args:
            earlier: Symbols of the channels before this one, [n, channel].
        """
        score = np.zeros(len(earlier), dtype=np.int32)
        # Features are bytes: they must widen before they are multiplied.
        if self.support_weight:
            score += features.support.astype(np.int32) * self.support_weight
        if self.magnitude_weight:
            score += features.magnitude.astype(np.int32) * self.magnitude_weight
        if self.previous_weight:
            score += capped_magnitude(earlier) * self.previous_weight
        return score

    def classes(self, features: Features, earlier: np.ndarray) -> np.ndarray:
        """Class of each entry, int32 [n]."""
        if self.num_classes == 1:
            return np.zeros(len(earlier), dtype=np.int32)
        every_score = np.arange(MAX_SCORE + 1)
        class_of = np.searchsorted(self.thresholds, every_score, side="right").astype(np.int32)
        result = class_of[self.scores(features, earlier)]
        if self.value_reach:
            result = result * (2 * self.value_reach + 1) + self.clipped(earlier)
        return result

    def clipped(self, earlier: np.ndarray) -> np.ndarray:
        """The previous channel's symbols clipped to ±value_reach, from 0 on."""
        reach = self.value_reach
        if not reach:
            return np.zeros(len(earlier), dtype=np.int32)
        return np.clip(earlier[:, -1], -reach, reach).astype(np.int32) + reach

    def write(self, writer: BitWriter) -> None:
        for weight in (self.support_weight, self.magnitude_weight, self.previous_weight):
            writer.golomb(weight, 1)
        writer.bits(self.value_reach, 2)
        writer.bits(len(self.thresholds), 4)
        previous = 0
        for threshold in self.thresholds:
            writer.golomb(threshold - previous - 1, 4)
            previous = threshold

    @classmethod
    def read(cls, reader: BitReader, section: str, *, is_first: bool) -> ChannelModel:
        weights = [reader.golomb(1) for _ in range(3)]
        reach = reader.bits(2)
        thresholds, previous = [], 0
        for _ in range(reader.bits(4)):
            previous += reader.golomb(4) + 1
            thresholds.append(previous)
        if max(weights) > MAX_WEIGHT or previous > MAX_SCORE:
            raise SceneFormatError(
                section, f"weights to {MAX_WEIGHT}, thresholds to {MAX_SCORE}", (weights, previous)
            )
        if is_first and (weights[2] or reach):
            raise SceneFormatError(section, "a first channel without previous ones", weights)
        support, magnitude, before = weights
        return cls(support, magnitude, before, reach, tuple(thresholds))


def capped_magnitude(earlier: np.ndarray) -> np.ndarray:
    """``min(Σ |q|, 31)`` over channels, int32 [n]."""
    total = np.zeros(len(earlier), dtype=np.int32)
    for channel in range(earlier.shape[1]):
        total += np.abs(earlier[:, channel].astype(np.int32))
    return np.minimum(total, MAX_ENTRY_MAGNITUDE)


@dataclass(frozen=True)
class LevelParts:
    """Where the bytes of one LATN section go."""

    table_bytes: int
    """Channel models, frequency tables and their length."""
    stream_bytes: int


def encode_level(
    symbols: np.ndarray,
    features: Features,
    models: Sequence[ChannelModel],
    *,
    fast: bool | None = None,
) -> bytes:
    """Encodes the reached entries of one level.

    Args:
        symbols: [n, d].
        features: Of the same n entries.
        models: One per channel.
    """
    writer = BitWriter()
    segments, cost = [], 0
    for channel, model in enumerate(models):
        model.write(writer)
        classes = model.classes(features, symbols[:, :channel])
        values = symbols[:, channel].astype(np.int64)
        low = int(values.min()) if len(values) else 0
        width = int(values.max()) - low + 1 if len(values) else 1
        counts = np.bincount(classes * width + (values - low), minlength=model.num_classes * width)
        counts = counts.reshape(model.num_classes, width)
        tables, position = [], np.zeros(model.num_classes, dtype=np.int32)
        for number, row in enumerate(counts):
            is_used = bool(row.any())
            writer.bits(int(is_used), 1)
            if is_used:
                table = FrequencyTable.from_counts(row, minimum=low)
                table.write(writer)
                position[number] = len(tables)
                tables.append(table)
                begin = table.minimum - low
                cost += table.cost(row[begin : begin + len(table.roots)])
        if tables:
            segments.append(Segment.from_symbols(values, position[classes], TableSet(tables)))
    num_lanes = choose_lanes(cost >> FIXED, symbols.size)
    stream = encode(segments, num_lanes=num_lanes, fast=fast)
    packed = writer.to_bytes()
    return bytes([PRECISION]) + varint(num_lanes) + varint(len(packed)) + packed + stream


def decode_level(
    payload: memoryview,
    features: Features,
    num_channels: int,
    section: str,
    *,
    fast: bool | None = None,
) -> tuple[np.ndarray, LevelParts]:
    """Inverse of :func:`encode_level`.

    Returns:
        Symbols, int16 [n, d], and where the bytes went.
    """
    reader = ByteReader(payload, section)
    precision = reader.byte("precision", MIN_PRECISION, MAX_PRECISION)
    num_lanes = reader.varint("lanes", 1, MAX_LANES)
    size = reader.varint("bytes of tables")
    bits = BitReader(reader.take(size, "tables"), section)
    table_bytes = reader.position
    decoder = Decoder(
        reader.take(reader.num_left, "stream"), num_lanes=num_lanes, section=section, fast=fast
    )
    count = len(features.support)
    symbols = np.zeros((num_channels, count), dtype=np.int16)
    for channel in range(num_channels):
        model = ChannelModel.read(bits, section, is_first=channel == 0)
        tables, position = _read_tables(bits, model.num_classes, section, precision)
        classes = model.classes(features, symbols[:channel].T)
        index = position[classes]
        if (index < 0).any():
            raise SceneFormatError(section, "a table for every class that occurs", "none")
        if tables:
            symbols[channel] = decoder.take(index, TableSet(tables))
    bits.finish()
    decoder.finish()
    return symbols.T, LevelParts(table_bytes, len(payload) - table_bytes)


def _read_tables(
    bits: BitReader, num_classes: int, section: str, precision: int
) -> tuple[list[FrequencyTable], np.ndarray]:
    """Tables of the classes that have one, and each class's position among them or -1."""
    tables: list[FrequencyTable] = []
    position = np.full(num_classes, -1, dtype=np.int32)
    for number in range(num_classes):
        if bits.bits(1):
            position[number] = len(tables)
            tables.append(FrequencyTable.read(bits, section, precision))
    return tables, position
