"""Frequency tables: what a symbol is worth, as integers that every machine agrees on.

A table covers the symbols ``minimum … minimum + K - 1`` with integer frequencies f_i that sum to
2^precision; f_i = 0 marks a symbol that does not occur. What a file stores are not the frequencies
but their *square-root frequencies* r_i, small integers: r_i = 0 for a symbol that does not occur,
else weight w_i = (r_i - 1)^2 and

    f_i = 1 + floor(w_i (2^precision - k) / Σ w),   k = number of symbols that occur,

where what is missing from the sum goes to the first largest f_i. The square root is the scale on
which an error of one step costs the same number of bits for frequent and for rare symbols, so few
and small numbers are enough. Everything is integer arithmetic, the encoder's choices included:
encoding what was decoded gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import isqrt

import numpy as np

from shacira_nerfstudio.codec.bitio import BitReader, BitWriter, SceneFormatError

PRECISION = 14
"""Frequencies in our files sum to 2^14: at most 0.01 bit lost on a symbol of probability 1/100."""

MIN_PRECISION, MAX_PRECISION = 8, 16
MAX_SQRT_FREQ = 1024
MAX_SYMBOL = 4095
"""Largest magnitude of a symbol. An alphabet then has at most 8191 of them, half of 2^14."""

FIXED = 16
"""Costs are integers in units of 2^-16 bit."""

_SCALES = (4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512)
"""Square-root frequencies of probability 1 that the encoder tries: steps of sqrt(2)."""


def log2_fixed(numbers: np.ndarray) -> np.ndarray:
    """``floor(2^16 log2 n)`` of integers from 1 to 2^53, by repeated squaring: exact on every
    machine.

    ``frexp`` and the scaling by 2^32 only move bits, so no rounding of a maths library enters.
    """
    mantissa, exponent = np.frexp(np.asarray(numbers, dtype=np.float64))
    x = np.ldexp(mantissa, 32).astype(np.uint64)
    result = exponent.astype(np.int64) - 1
    for _ in range(FIXED):
        x = x * x >> np.uint64(31)
        carry = x >> np.uint64(32)
        result = result * 2 + carry.astype(np.int64)
        x = x >> carry
    return result


@lru_cache(maxsize=8)
def frequency_costs(precision: int) -> np.ndarray:
    """Cost of a symbol of frequency 0 … 2^precision, in 2^-16 bit; frequency 0 costs 64 bits."""
    logs = log2_fixed(np.arange(1, (1 << precision) + 1))
    return np.concatenate([[64 << FIXED], (precision << FIXED) - logs])


def frequencies(sqrt_freqs: np.ndarray, precision: int) -> np.ndarray:
    """Frequencies of the given square roots: minimum 1 where one is not 0, sum 2^precision."""
    sqrt_freqs = np.asarray(sqrt_freqs, dtype=np.int64)
    present = sqrt_freqs > 0
    count = int(present.sum())
    if not 1 <= count <= 1 << precision:
        raise ValueError(f"expected 1 to {1 << precision} symbols that occur, got {count}")
    weights = np.where(present, (sqrt_freqs - 1) ** 2, 0)
    if not weights.any():
        weights = present.astype(np.int64)
    total = int(weights.sum())
    freqs = present + weights * ((1 << precision) - count) // total
    freqs[int(freqs.argmax())] += (1 << precision) - int(freqs.sum())
    return freqs.astype(np.uint32)


@dataclass(frozen=True)
class FrequencyTable:
    """One table; its alphabet starts and ends with a symbol that occurs."""

    minimum: int
    """First symbol of the alphabet."""
    sqrt_freqs: tuple[int, ...]
    """Square-root frequency of each symbol from ``minimum`` on, 0 to 1024."""
    precision: int = PRECISION
    freqs: np.ndarray = field(init=False, repr=False, compare=False)
    """uint32, one per symbol; they follow from the square roots."""

    def __post_init__(self) -> None:
        if not MIN_PRECISION <= self.precision <= MAX_PRECISION:
            raise ValueError(f"expected precision 8 to 16, got {self.precision}")
        if not self.sqrt_freqs or not -MAX_SYMBOL <= self.minimum <= self.maximum <= MAX_SYMBOL:
            raise ValueError(
                f"expected symbols in ±{MAX_SYMBOL}, got {self.minimum} to {self.maximum}"
            )
        sqrt_freqs = np.array(self.sqrt_freqs, dtype=np.int64)  # once: it may be long
        if not sqrt_freqs[0] or not sqrt_freqs[-1] or sqrt_freqs.max() > MAX_SQRT_FREQ:
            raise ValueError(
                f"expected square-root frequencies from 0 to {MAX_SQRT_FREQ}, not 0 at the ends"
            )
        object.__setattr__(self, "freqs", frequencies(sqrt_freqs, self.precision))

    @classmethod
    def from_counts(
        cls,
        counts: np.ndarray,
        *,
        minimum: int = 0,
        precision: int = PRECISION,
        previous: FrequencyTable | None = None,
    ) -> FrequencyTable:
        """The table that makes its own bits plus the coded symbols' bits fewest.

        Args:
            counts: How often each symbol from ``minimum`` on occurs, at least one of them once.
            previous: As in :meth:`write`.
        """
        counts = np.asarray(counts, dtype=np.int64)
        occurring = np.flatnonzero(counts)
        if not len(occurring):
            raise ValueError("expected a symbol that occurs, got none")
        counts = counts[occurring[0] : occurring[-1] + 1]
        minimum += int(occurring[0])
        best: tuple[int, FrequencyTable] | None = None
        max_scale = 4 * isqrt(int(counts.sum()))
        for scale in _SCALES:
            if best is not None and scale > max_scale:
                break
            table = cls(minimum, _sqrt_freqs(counts, scale, precision), precision)
            bits = table.cost(counts) + (table.num_stored_bits(previous) << FIXED)
            if best is None or bits < best[0]:
                best = bits, table
        assert best is not None
        return best[1]

    @property
    def maximum(self) -> int:
        """Last symbol of the alphabet."""
        return self.minimum + len(self.sqrt_freqs) - 1

    def cost(self, counts: np.ndarray) -> int:
        """Ideal length of the counted symbols under this table, in 2^-16 bit."""
        return int((counts * frequency_costs(self.precision)[self.freqs]).sum())

    def num_stored_bits(self, previous: FrequencyTable | None = None) -> int:
        writer = BitWriter()
        self.write(writer, previous)
        return writer.num_bits

    def write(self, writer: BitWriter, previous: FrequencyTable | None = None) -> None:
        """Stores minimum, length and square-root frequencies, each relative to what is expected.

        Args:
            previous: A table of similar symbols that a reader has by then, if there is one.
        """
        if previous is not None:
            self._write_relative(writer, previous)
            return
        writer.signed(self.minimum, 2)
        writer.golomb(len(self.sqrt_freqs) - 1, 2)
        before, zeros = 0, 0
        for value in self.sqrt_freqs:
            if value == 0:
                zeros += 1
                continue
            if zeros:
                _write_sqrt_freq(writer, 0, before)
                writer.golomb(zeros - 1, 1)
                before, zeros = 0, 0
            _write_sqrt_freq(writer, value, before)
            before = value

    def _write_relative(self, writer: BitWriter, previous: FrequencyTable) -> None:
        writer.signed(self.minimum - previous.minimum, 0)
        writer.signed(self.maximum - previous.maximum, 0)
        prediction, before, run = _Prediction(previous), 0, 0
        for i, value in enumerate(self.sqrt_freqs):
            if run:
                run -= 1
                continue
            expected = prediction.expected(self.minimum + i, before)
            # The outermost ones are not 0: there, what lies above 1 is stored.
            least = int(i in (0, len(self.sqrt_freqs) - 1))
            _write_sqrt_freq(writer, value - least, max(expected - least, 0))
            if value == 0 and expected == 0:
                while self.sqrt_freqs[i + run + 1] == 0:
                    run += 1
                writer.golomb(run, 0)
            before = value

    @classmethod
    def read(
        cls,
        reader: BitReader,
        section: str,
        precision: int,
        previous: FrequencyTable | None = None,
    ) -> FrequencyTable:
        """Inverse of :meth:`write`."""
        if previous is None:
            minimum = reader.signed(2)
            maximum = minimum + reader.golomb(2)
        else:
            minimum = previous.minimum + reader.signed(0)
            maximum = previous.maximum + reader.signed(0)
        if not -MAX_SYMBOL <= minimum <= maximum <= MAX_SYMBOL:
            raise SceneFormatError(
                section, f"symbols in ±{MAX_SYMBOL}", f"those from {minimum} to {maximum}"
            )
        length = maximum - minimum + 1
        if previous is None:
            sqrt_freqs = _read_sqrt_freqs(reader, length, section)
        else:
            sqrt_freqs = _read_relative(reader, minimum, length, previous, section)
        try:
            return cls(minimum, tuple(sqrt_freqs), precision)
        except ValueError as error:
            raise SceneFormatError(section, "a valid frequency table", error) from None


class _Prediction:
    """What a table leads to expect of the one after it."""

    def __init__(self, table: FrequencyTable) -> None:
        self._minimum, self._sqrt_freqs = table.minimum, table.sqrt_freqs

    def _at(self, symbol: int) -> int:
        index = symbol - self._minimum
        return self._sqrt_freqs[index] if 0 <= index < len(self._sqrt_freqs) else 0

    def expected(self, symbol: int, before: int) -> int:
        """The square-root frequency of a symbol, given that of the symbol before it: the same rise
        or fall as in the table."""
        here, there = self._at(symbol), self._at(symbol - 1)
        if there == 0:
            return (before + here + 1) // 2
        return min((here * (before + 2) + (there + 2) // 2) // (there + 2), MAX_SQRT_FREQ)


def _read_sqrt_freqs(reader: BitReader, length: int, section: str) -> list[int]:
    values: list[int] = []
    before = 0
    while len(values) < length:
        before = _read_sqrt_freq(reader, before)
        values += [before] if before else [0] * (reader.golomb(1) + 1)
        _check(len(values), length, before, section)
    return values


def _read_relative(
    reader: BitReader, minimum: int, length: int, previous: FrequencyTable, section: str
) -> list[int]:
    values: list[int] = []
    prediction, before = _Prediction(previous), 0
    while len(values) < length:
        expected = prediction.expected(minimum + len(values), before)
        least = int(len(values) in (0, length - 1))
        before = _read_sqrt_freq(reader, max(expected - least, 0)) + least
        values.append(before)
        if before == 0 and expected == 0:
            run = reader.golomb(0)
            _check(len(values) + run, length, 0, section)
            values += [0] * run
        _check(len(values), length, before, section)
    return values


def _check(count: int, length: int, value: int, section: str) -> None:
    if count > length or value > MAX_SQRT_FREQ:
        raise SceneFormatError(
            section, f"{length} square-root frequencies up to {MAX_SQRT_FREQ}", value
        )


def _sqrt_freqs(counts: np.ndarray, scale: int, precision: int) -> tuple[int, ...]:
    """Square-root frequencies that come closest to the counts, when ``scale`` means probability 1.

    Inverts ``f = 1 + w (2^precision - k) / Σ w`` with Σ w about scale²; isqrt rounds to the nearest
    square root.
    """
    total = int(counts.sum())
    room = total * ((1 << precision) - int((counts > 0).sum()))
    if room <= 0:
        return tuple(1 if count else 0 for count in counts.tolist())
    values = []
    for count in counts.tolist():
        weight_x4 = 4 * max((count << precision) - total, 0) * scale * scale // room
        values.append(1 + (isqrt(weight_x4) + 1) // 2 if count else 0)
    return tuple(values)


def _order(expected: int) -> int:
    """Golomb order of a value: about as many bits as it varies by around what is expected."""
    return max(expected.bit_length() - 2, 0)


def _write_sqrt_freq(writer: BitWriter, value: int, expected: int) -> None:
    writer.golomb(_fold(value - expected, expected), _order(expected))


def _read_sqrt_freq(reader: BitReader, expected: int) -> int:
    return expected + _unfold(reader.golomb(_order(expected)), expected)


def _fold(delta: int, expected: int) -> int:
    """Numbers differences 0, -1, 1, -2, 2, … without those that would make the value negative."""
    if delta > expected:
        return delta + expected
    return 2 * delta if delta >= 0 else -2 * delta - 1


def _unfold(number: int, expected: int) -> int:
    if number > 2 * expected:
        return number - expected
    return number >> 1 if number % 2 == 0 else -(number + 1 >> 1)


class TableSet:
    """Tables of one stream, laid end to end so that a coder can index all of them at once.

    Table t owns the *indices* ``first[t] … first[t + 1] - 1``, one for each symbol of its alphabet;
    index ``first[t] + a`` means symbol ``minimums[t] + a``.
    """

    def __init__(self, tables: Sequence[FrequencyTable]) -> None:
        if not tables or len({table.precision for table in tables}) != 1:
            raise ValueError("expected at least one table, all of one precision")
        self.tables = tuple(tables)
        self.precision = tables[0].precision
        sizes = [len(table.sqrt_freqs) for table in tables]
        self.first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        self.minimums = np.array([table.minimum for table in tables], dtype=np.int32)
        self.freqs = np.concatenate([table.freqs for table in tables])
        ends = np.concatenate([np.cumsum(table.freqs, dtype=np.uint32) for table in tables])
        self.starts = ends - self.freqs
        self.is_certain = np.array(sizes) == 1

    @property
    def layout(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each table's indices begin, int32 [num_tables + 1], and the symbol of the first of
        them, int32 [num_tables]."""
        return self.first, self.minimums

    @cached_property
    def lookup(self) -> np.ndarray:
        """Position in its alphabet of each slot's symbol, uint16 [num_tables · 2^precision]."""
        sizes = np.diff(self.first)
        positions = np.arange(len(self.freqs)) - np.repeat(self.first[:-1], sizes)
        return np.repeat(positions.astype(np.uint16), self.freqs)
