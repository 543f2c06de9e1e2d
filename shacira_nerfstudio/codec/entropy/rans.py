"""Range asymmetric numeral systems: symbols to bytes and back, in parallel lanes.

Duda, "Asymmetric numeral systems", 2013; the interleaving follows Giesen, "Interleaved entropy
coders", 2014.

Notation: p = precision, K = number of lanes, f and c = frequency of a symbol and the sum of those
before it, x = state of a lane, always in [2^16, 2^32) between two steps. A stream is a row of
*segments*; symbol i of a segment belongs to lane i mod K, and every segment starts at lane 0.
Decoding one symbol is

    s = x mod 2^p → symbol, f, c
    x = f · floor(x / 2^p) + s - c
    if x < 2^16: x = 2^16 x + next word

and lanes take their words in order. Encoding does the same backwards, from states 2^16 and from the
last symbol, so a decoder must end with every state at 2^16 and no word left: damage rarely passes
that check. Symbols of a table with a single symbol cost nothing and never reach the coder.

The functions in numpy define the bytes; ``rans_numba`` gives the same ones faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.codec.compiled import load_kernels
from shacira_nerfstudio.codec.entropy.frequency_table import TableSet

START = 1 << 16
"""State before the first symbol is encoded, and after the last is decoded."""

MAX_LANES = 1024

_KERNELS = "shacira_nerfstudio.codec.entropy.rans_numba"


def choose_lanes(num_bits: int, num_symbols: int) -> int:
    """Lanes of a stream: one per 875 bytes, but a few more if it is long and cheap.

    Some 3 bytes of each state carry nothing, 0.35 % of the stream.
    """
    return max(1, min(256, num_bits // 7000), min(8, num_symbols >> 14))


@dataclass(frozen=True)
class Segment:
    """Symbols as a coder sees them: indices that own slots, ``freqs`` of all 2^precision."""

    indices: np.ndarray
    """int32 [n], from 0 on: which element of the arrays below each symbol has."""
    freqs: np.ndarray
    """uint32, slots of each index; those of indices that occur are from 1 to 2^precision."""
    starts: np.ndarray
    """uint32, the first of these slots."""
    precision: int

    @classmethod
    def from_symbols(
        cls,
        values: np.ndarray,
        table_index: np.ndarray,
        tables: TableSet,
        *,
        fast: bool | None = None,
    ) -> Segment:
        """Symbols that follow frequency tables; those of tables with one symbol are left out.

        Args:
            table_index: Position of each value's table in ``tables``.
        """
        if values.dtype != np.int16:  # the kernel is compiled for these two only
            values = values.astype(np.int64)
        kernels = load_kernels(_KERNELS, fast)
        find_indices = kernels.find_indices if kernels else _find_indices
        indices, all_occur = find_indices(
            values, table_index.astype(np.int32, copy=False), *tables.layout, tables.freqs
        )
        if not all_occur:
            raise ValueError("expected symbols that occur in their table, got others")
        return cls(indices, tables.freqs, tables.starts, tables.precision)

    @classmethod
    def from_bits(cls, bits: np.ndarray, freqs_of_one: np.ndarray, precision: int) -> Segment:
        """Bits with a probability each; a 0 has the lower slots, a 1 the upper ones."""
        freqs_of_zero = ((1 << precision) - freqs_of_one).astype(np.uint32)
        freqs = np.where(bits, freqs_of_one, freqs_of_zero).astype(np.uint32)
        starts = np.where(bits, freqs_of_zero, 0).astype(np.uint32)
        return cls(np.arange(len(bits), dtype=np.int32), freqs, starts, precision)


def _find_indices(
    values: np.ndarray,
    table_index: np.ndarray,
    first: np.ndarray,
    minimums: np.ndarray,
    freqs: np.ndarray,
) -> tuple[np.ndarray, bool]:
    """Indices of the symbols that are coded, int32, and whether every symbol has slots."""
    begin, end = first[table_index], first[1:][table_index]
    indices = begin + (values.astype(np.int64) - minimums[table_index])
    is_inside = (indices >= begin) & (indices < end)
    if not is_inside.all() or not freqs[indices].all():
        return np.zeros(0, dtype=np.int32), False
    return indices[end - begin > 1].astype(np.int32), True


def encode(segments: Sequence[Segment], *, num_lanes: int, fast: bool | None = None) -> bytes:
    """Encodes segments into one stream.

    Returns:
        K states of 32 bits, then the words of 16 bits in the order a decoder takes them,
        little-endian. Empty if there is no symbol at all.
    """
    if not 1 <= num_lanes <= MAX_LANES:
        raise ValueError(f"expected 1 to {MAX_LANES} lanes, got {num_lanes}")
    if not any(len(segment.indices) for segment in segments):
        return b""
    kernels = load_kernels(_KERNELS, fast)
    push = kernels.push if kernels else _push
    states = np.full(num_lanes, START, dtype=np.uint64)
    words = [push(s.indices, s.freqs, s.starts, s.precision, states) for s in reversed(segments)]
    in_order = np.concatenate(words[::-1])
    return states.astype("<u4").tobytes() + in_order.astype("<u2", copy=False).tobytes()


def _push(
    indices: np.ndarray, freqs: np.ndarray, starts: np.ndarray, precision: int, states: np.ndarray
) -> np.ndarray:
    """Encodes one segment onto ``states`` [K], in place; returns its words in a decoder's order."""
    num_lanes = len(states)
    f, c = freqs.astype(np.uint64)[indices], starts.astype(np.uint64)[indices]
    # Rows are short: what can be done once for all of them is not done in the loop.
    rows = (_rows(part, num_lanes) for part in (f << np.uint64(32 - precision), f, c))
    whole, word_bits = np.uint64(1 << precision), np.uint64(16)
    words = [np.zeros(0, dtype=np.uint64)]
    for bound, f, c in reversed(list(zip(*rows, strict=True))):
        x = states[: len(f)]
        full = (x >= bound).nonzero()[0]
        if len(full):
            moved = x[full]
            words.append(moved)  # its low 16 bits
            x[full] = moved >> word_bits
        # x' = 2^p quotient + (x - quotient f) + c
        quotient = x // f
        quotient *= whole - f
        x += quotient
        x += c
    return np.concatenate(words[::-1]).astype(np.uint16)


def _rows(values: np.ndarray, num_lanes: int) -> list[np.ndarray]:
    """One array per row of lanes; the last may be shorter."""
    num_whole = len(values) // num_lanes
    whole = values[: num_whole * num_lanes].reshape(num_whole, num_lanes)
    rest = values[num_whole * num_lanes :]
    return [*whole, *([rest] if len(rest) else [])]


class Decoder:
    """Takes the segments of one stream, in the order they were given to :func:`encode`."""

    def __init__(
        self,
        payload: bytes | memoryview,
        *,
        num_lanes: int,
        section: str = "stream",
        fast: bool | None = None,
    ) -> None:
        self._section = section
        kernels = load_kernels(_KERNELS, fast)
        self._pull = kernels.pull if kernels else _pull
        self._pull_bits = kernels.pull_bits if kernels else _pull_bits
        if len(payload) and (len(payload) < 4 * num_lanes or len(payload) % 2):
            raise SceneFormatError(
                section, f"{num_lanes} states and whole words", f"{len(payload)} bytes"
            )
        count = num_lanes if len(payload) else 0
        self._states = np.frombuffer(payload, "<u4", count).astype(np.uint64)
        self._words = np.frombuffer(payload, "<u2", offset=4 * count).astype(np.uint16)
        self._position = 0
        if (self._states < START).any():
            raise SceneFormatError(section, f"states of at least {START}", int(self._states.min()))

    def take(self, table_index: np.ndarray, tables: TableSet) -> np.ndarray:
        """Decodes the next segment.

        Args:
            table_index: Which table each symbol has, int [n].

        Returns:
            Symbols, int16 [n].
        """
        if not len(table_index):
            return np.zeros(0, dtype=np.int16)
        table_index = table_index.astype(np.int32, copy=False)
        if not len(self._states):
            # Without a stream only what is certain can be known.
            if not tables.is_certain[table_index].all():
                raise SceneFormatError(self._section, "a stream of coded symbols", "no stream")
            return tables.minimums[table_index].astype(np.int16)
        arrays = *tables.layout, tables.lookup, tables.freqs, tables.starts, tables.precision
        return self._run(self._pull, table_index, *arrays)

    def take_bits(self, freqs_of_one: np.ndarray, precision: int) -> np.ndarray:
        """Decodes the next segment of bits, bool [n]."""
        if not len(freqs_of_one):
            return np.zeros(0, dtype=bool)
        if not len(self._states):
            raise SceneFormatError(self._section, f"{len(freqs_of_one)} coded bits", "no stream")
        freqs_of_zero = ((1 << precision) - freqs_of_one).astype(np.uint32)
        return self._run(self._pull_bits, freqs_of_zero, precision)

    def _run(self, pull: Callable, *arguments) -> np.ndarray:
        symbols, self._position = pull(*arguments, self._states, self._words, self._position)
        if self._position > len(self._words):
            raise SceneFormatError(self._section, "words for every symbol", "the end of the stream")
        return symbols

    def finish(self) -> None:
        """Checks that the stream ends exactly where its encoder began."""
        if (self._states != START).any():
            raise SceneFormatError(self._section, f"final states of {START}", "others")
        if self._position != len(self._words):
            left = len(self._words) - self._position
            raise SceneFormatError(self._section, "the end of the stream", f"{left} more words")


def _pull(
    table_index: np.ndarray,
    first: np.ndarray,
    minimums: np.ndarray,
    lookup: np.ndarray,
    freqs: np.ndarray,
    starts: np.ndarray,
    precision: int,
    states: np.ndarray,
    words: np.ndarray,
    position: int,
) -> tuple[np.ndarray, int]:
    """Decodes one segment from ``states`` [K], in place.

    Returns:
        Symbols, int16 [n], and the position of the next word; one past the last word means that
        they ran out.
    """
    is_certain = np.diff(first) == 1
    if is_certain.any():
        symbols = minimums[table_index].astype(np.int16)
        coded = np.flatnonzero(~is_certain[table_index])
        table_index = table_index[coded]
    else:
        symbols, coded = np.zeros(len(table_index), dtype=np.int16), slice(None)
    num_lanes = len(states)
    mask, shift = np.uint64((1 << precision) - 1), np.uint64(precision)
    # Rows are short: what can be done once for all of them is not done in the loop.
    freqs, starts = freqs.astype(np.uint64), starts.astype(np.uint64)
    begins = first[table_index]
    indices = begins.copy()
    bases = table_index.astype(np.int64) << precision
    rows = (_rows(part, num_lanes) for part in (begins, bases, indices))
    for begin, base, decoded in zip(*rows, strict=True):
        x = states[: len(base)]
        slot = x & mask
        index = begin + lookup.take(base + slot.view(np.int64))
        decoded[:] = index
        x >>= shift
        x *= freqs.take(index)
        slot -= starts.take(index)  # from 0 on: the index owns this slot
        x += slot
        position = _refill(x, words, position)
        if position > len(words):
            break
    symbols[coded] = minimums[table_index] + (indices - begins)
    return symbols, position


def _pull_bits(
    freqs_of_zero: np.ndarray,
    precision: int,
    states: np.ndarray,
    words: np.ndarray,
    position: int,
) -> tuple[np.ndarray, int]:
    """Decodes one segment of bits from ``states`` [K], in place; otherwise as :func:`_pull`."""
    num_lanes = len(states)
    bits = np.zeros(len(freqs_of_zero), dtype=bool)
    mask, shift = np.uint64((1 << precision) - 1), np.uint64(precision)
    zeros = freqs_of_zero.astype(np.uint64)
    for begin in range(0, len(bits), num_lanes):
        zero = zeros[begin : begin + num_lanes]
        x = states[: len(zero)]
        slot = x & mask
        bit = slot >= zero
        bits[begin : begin + num_lanes] = bit
        freq = np.where(bit, (mask + np.uint64(1)) - zero, zero)
        x[:] = freq * (x >> shift) + slot - np.where(bit, zero, np.uint64(0))
        position = _refill(x, words, position)
        if position > len(words):
            break
    return bits, position


def _refill(states: np.ndarray, words: np.ndarray, position: int) -> int:
    """Gives a word to every state below 2^16, in order of lanes; returns the next position."""
    low = (states < START).nonzero()[0]
    end = position + len(low)
    if end > len(words):
        return len(words) + 1
    if end > position:
        states[low] = states[low] << np.uint64(16) | words[position:end]
    return end
