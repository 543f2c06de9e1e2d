"""Frequency tables: what a symbol is worth, as integers that every machine agrees on.

A table covers the symbols ``minimum … minimum + K - 1`` with integer frequencies f_i that sum to
2^precision; f_i = 0 marks a symbol that does not occur. What a file stores are not the frequencies
but their *roots* r_i, small integers on a square-root scale: r_i = 0 for a symbol that does not
occur, else weight w_i = (r_i - 1)^2 and

    f_i = 1 + floor(w_i (2^precision - k) / Σ w),   k = number of symbols that occur,

where what is missing from the sum goes to the first largest f_i. The square root is the scale on
which an error of one step costs the same number of bits for frequent and for rare symbols, so few
and small roots are enough. Everything is integer arithmetic, the encoder's choices included:
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
MAX_ROOT = 1024
MAX_SYMBOL = 4095
"""Largest magnitude of a symbol. An alphabet then has at most 8191 letters, half of 2^14."""

FIXED = 16
"""Costs are integers in units of 2^-16 bit."""

_ROOT_SCALES = (4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512)
"""Roots of probability 1 that the encoder tries: steps of sqrt(2)."""


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
def symbol_costs(precision: int) -> np.ndarray:
    """Cost of a symbol of frequency 0 … 2^precision, in 2^-16 bit; frequency 0 costs 64 bits."""
    logs = log2_fixed(np.arange(1, (1 << precision) + 1))
    return np.concatenate([[64 << FIXED], (precision << FIXED) - logs])


def frequencies(roots: np.ndarray, precision: int) -> np.ndarray:
    """Frequencies of the given roots: minimum 1 where a root is not 0, sum 2^precision."""
    roots = np.asarray(roots, dtype=np.int64)
    present = roots > 0
    count = int(present.sum())
    if not 1 <= count <= 1 << precision:
        raise ValueError(f"expected 1 to {1 << precision} symbols that occur, got {count}")
    weights = np.where(present, (roots - 1) ** 2, 0)
    if not weights.any():
        weights = present.astype(np.int64)
    total = int(weights.sum())
    freqs = present + weights * ((1 << precision) - count) // total
    freqs[int(freqs.argmax())] += (1 << precision) - int(freqs.sum())
    return freqs.astype(np.uint32)


@dataclass(frozen=True)
class FrequencyTable:
    """Roots of one table; the alphabet starts and ends with a symbol that occurs."""

    minimum: int
    """First symbol of the alphabet."""
    roots: tuple[int, ...]
    """One per symbol from ``minimum`` on, 0 to 1024."""
    precision: int = PRECISION
    freqs: np.ndarray = field(init=False, repr=False, compare=False)
    """uint32, one per root; they follow from the roots."""

    def __post_init__(self) -> None:
        last = self.minimum + len(self.roots) - 1
        if not MIN_PRECISION <= self.precision <= MAX_PRECISION:
            raise ValueError(f"expected precision 8 to 16, got {self.precision}")
        if not self.roots or not -MAX_SYMBOL <= self.minimum <= last <= MAX_SYMBOL:
            raise ValueError(f"expected symbols in ±{MAX_SYMBOL}, got {self.minimum} to {last}")
        roots = np.array(self.roots, dtype=np.int64)  # once: a damaged file may have many letters
        if not self.roots[0] or not self.roots[-1] or roots.max() > MAX_ROOT:
            raise ValueError(f"expected roots from 0 to {MAX_ROOT}, not 0 at the ends")
        object.__setattr__(self, "freqs", frequencies(roots, self.precision))

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
        reach = 4 * isqrt(int(counts.sum()))
        for scale in _ROOT_SCALES:
            if best is not None and scale > reach:
                break
            table = cls(minimum, _roots(counts, scale, precision), precision)
            bits = table.cost(counts) + (table.num_stored_bits(previous) << FIXED)
            if best is None or bits < best[0]:
                best = bits, table
        assert best is not None
        return best[1]

    @property
    def maximum(self) -> int:
        """Last symbol of the alphabet."""
        return self.minimum + len(self.roots) - 1

    def cost(self, counts: np.ndarray) -> int:
        """Ideal length of the counted symbols under this table, in 2^-16 bit."""
        return int((counts * symbol_costs(self.precision)[self.freqs]).sum())

    def num_stored_bits(self, previous: FrequencyTable | None = None) -> int:
        writer = BitWriter()
        self.write(writer, previous)
        return writer.num_bits

    def write(self, writer: BitWriter, previous: FrequencyTable | None = None) -> None:
        """Stores minimum, length and roots; each root relative to what is expected of it.

        Args:
            previous: A table of similar symbols that a reader has by then, if there is one.
        """
        if previous is not None:
            self._write_after(writer, previous)
            return
        writer.signed(self.minimum, 2)
        writer.golomb(len(self.roots) - 1, 2)
        before, zeros = 0, 0
        for root in self.roots:
            if root == 0:
                zeros += 1
                continue
            if zeros:
                _write_root(writer, 0, before)
                writer.golomb(zeros - 1, 1)
                before, zeros = 0, 0
            _write_root(writer, root, before)
            before = root

    def _write_after(self, writer: BitWriter, previous: FrequencyTable) -> None:
        writer.signed(self.minimum - previous.minimum, 0)
        writer.signed(self.maximum - previous.maximum, 0)
        above, before, run = _RootsAbove(previous), 0, 0
        for i, root in enumerate(self.roots):
            if run:
                run -= 1
                continue
            expected = above.expected(self.minimum + i, before)
            # The outermost roots are not 0: there, what lies above 1 is stored.
            least = int(i in (0, len(self.roots) - 1))
            _write_root(writer, root - least, max(expected - least, 0))
            if root == 0 and expected == 0:
                while self.roots[i + run + 1] == 0:
                    run += 1
                writer.golomb(run, 0)
            before = root

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
            roots = _read_roots(reader, length, section)
        else:
            roots = _read_roots_after(reader, minimum, length, previous, section)
        try:
            return cls(minimum, tuple(roots), precision)
        except ValueError as error:
            raise SceneFormatError(section, "a valid frequency table", error) from None


class _RootsAbove:
    """What a table leads to expect of the one after it."""

    def __init__(self, table: FrequencyTable) -> None:
        self._minimum, self._roots = table.minimum, table.roots

    def _at(self, symbol: int) -> int:
        index = symbol - self._minimum
        return self._roots[index] if 0 <= index < len(self._roots) else 0

    def expected(self, symbol: int, before: int) -> int:
        """The root of a symbol, given that of the one before it: the same rise or fall as here."""
        here, there = self._at(symbol), self._at(symbol - 1)
        if there == 0:
            return (before + here + 1) // 2
        return min((here * (before + 2) + (there + 2) // 2) // (there + 2), MAX_ROOT)


def _read_roots(reader: BitReader, length: int, section: str) -> list[int]:
    roots: list[int] = []
    before = 0
    while len(roots) < length:
        before = _read_root(reader, before)
        roots += [before] if before else [0] * (reader.golomb(1) + 1)
        _check_roots(len(roots), length, before, section)
    return roots


def _read_roots_after(
    reader: BitReader, minimum: int, length: int, previous: FrequencyTable, section: str
) -> list[int]:
    roots: list[int] = []
    above, before = _RootsAbove(previous), 0
    while len(roots) < length:
        expected = above.expected(minimum + len(roots), before)
        least = int(len(roots) in (0, length - 1))
        before = _read_root(reader, max(expected - least, 0)) + least
        roots.append(before)
        if before == 0 and expected == 0:
            run = reader.golomb(0)
            _check_roots(len(roots) + run, length, 0, section)
            roots += [0] * run
        _check_roots(len(roots), length, before, section)
    return roots


def _check_roots(count: int, length: int, root: int, section: str) -> None:
    if count > length or root > MAX_ROOT:
        raise SceneFormatError(section, f"{length} roots up to {MAX_ROOT}", root)


def _roots(counts: np.ndarray, scale: int, precision: int) -> tuple[int, ...]:
    """Roots whose frequencies come closest to the counts, when a root of ``scale`` means
    probability 1.

    Inverts ``f = 1 + w (2^precision - k) / Σ w`` with Σ w about scale²; isqrt rounds to the nearest
    root.
    """
    total = int(counts.sum())
    room = total * ((1 << precision) - int((counts > 0).sum()))
    if room <= 0:
        return tuple(1 if count else 0 for count in counts.tolist())
    roots = []
    for count in counts.tolist():
        weight_x4 = 4 * max((count << precision) - total, 0) * scale * scale // room
        roots.append(1 + (isqrt(weight_x4) + 1) // 2 if count else 0)
    return tuple(roots)


def _order(expected: int) -> int:
    """Golomb order of a root: about as many bits as it varies by around what is expected."""
    return max(expected.bit_length() - 2, 0)


def _write_root(writer: BitWriter, root: int, expected: int) -> None:
    writer.golomb(_fold(root - expected, expected), _order(expected))


def _read_root(reader: BitReader, expected: int) -> int:
    return expected + _unfold(reader.golomb(_order(expected)), expected)


def _fold(delta: int, expected: int) -> int:
    """Numbers differences 0, -1, 1, -2, 2, … without those that would make the root negative."""
    if delta > expected:
        return delta + expected
    return 2 * delta if delta >= 0 else -2 * delta - 1


def _unfold(number: int, expected: int) -> int:
    if number > 2 * expected:
        return number - expected
    return number >> 1 if number % 2 == 0 else -(number + 1 >> 1)


class TableSet:
    """Tables of one stream, laid end to end so that a coder can index all of them at once.

    Table t owns the letters ``first[t] … first[t + 1] - 1``; letter a of it means symbol
    ``symbols[first[t] + a]``.
    """

    def __init__(self, tables: Sequence[FrequencyTable]) -> None:
        if not tables or len({table.precision for table in tables}) != 1:
            raise ValueError("expected at least one table, all of one precision")
        self.tables = tuple(tables)
        self.precision = tables[0].precision
        sizes = [len(table.roots) for table in tables]
        self.first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        self.minimums = np.array([table.minimum for table in tables], dtype=np.int32)
        self.freqs = np.concatenate([table.freqs for table in tables])
        ends = np.concatenate([np.cumsum(table.freqs, dtype=np.uint32) for table in tables])
        self.starts = ends - self.freqs
        self.symbols = np.concatenate(
            [np.arange(n, dtype=np.int16) + t.minimum for n, t in zip(sizes, tables, strict=True)]
        ).astype(np.int16)
        self.is_certain = np.array([len(table.roots) == 1 for table in tables])

    @property
    def layout(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each table's letters begin, int32 [num_tables + 1], and the symbol of the first of
        them, int32 [num_tables]."""
        return self.first, self.minimums

    @cached_property
    def lookup(self) -> np.ndarray:
        """Letter of each slot within its table, uint16 [num_tables · 2^precision]."""
        sizes = np.diff(self.first)
        letters = np.arange(len(self.freqs)) - np.repeat(self.first[:-1], sizes)
        return np.repeat(letters.astype(np.uint16), self.freqs)
