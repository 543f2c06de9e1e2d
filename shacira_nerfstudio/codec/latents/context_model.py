"""How the entries of one pass over one channel fall into classes; a class has one frequency table.

Notation: the *score* of an entry is

    support_weight · support + magnitude_weight · magnitude + ancestry_weight · ancestry
        + previous_weight · min(Σ |q| of earlier channels, 31)
        + partner_weight · min(|q'|, 31) + neighbour_weight · neighbours

where q' is the symbol of its *partner*, the entry whose number differs in the last bit only, in the
same channel. Partners lie side by side along the first axis, in hashed levels as in dense ones. A
channel is coded in one pass over all entries, without partners, or in two: entries of even numbers,
then those of odd ones, whose partners are known by then. In hashed levels and in dense ones of odd
resolution these are the two colours of a chessboard: all neighbours of an odd entry's vertices are
known as well. Ancestry and neighbours came with format version 2. The class of an entry is

    ((thresholds at or below the score) · (2 r + 1) + r + previous channel's q clipped to ±r)
        · (2 u + 1) + u + partner's q' clipped to ±u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shacira_nerfstudio.codec.container import VERSION
from shacira_nerfstudio.codec.latents.features import MAX_ENTRY_MAGNITUDE, Features
from shacira_nerfstudio.codec.bitio import BitReader, BitWriter, SceneFormatError

MAX_WEIGHT = 63
MAX_REACH = 3
MAX_THRESHOLDS = 15
_CORNERS, _FACES = 8, 6
MAX_SCORES = (
    MAX_WEIGHT * (_CORNERS + (_CORNERS + 2) * MAX_ENTRY_MAGNITUDE),
    MAX_WEIGHT * (_CORNERS + (2 * _CORNERS + _FACES + 2) * MAX_ENTRY_MAGNITUDE),
)
"""Largest score in format version 1, and from version 2 on."""


@dataclass(frozen=True)
class Known:
    """What both sides know of the entries of a pass; all arrays have one element per entry."""

    support: np.ndarray
    """uint8, as in ``contexts.Features``."""
    magnitude: np.ndarray
    """uint8, likewise."""
    before: np.ndarray
    """uint8: min(Σ |q| of earlier channels, 31)."""
    previous: np.ndarray
    """int16: symbols of the previous channel, 0 in the first one."""
    partner: np.ndarray
    """int16: symbols of the partners, 0 in a first pass."""
    ancestry: np.ndarray
    """uint8, as in ``contexts.Features``."""
    neighbours: np.ndarray
    """uint8: what ``contexts.neighbour_sizes`` says, 0 in a first pass."""

    def __getitem__(self, rows: slice) -> Known:
        parts = self.support, self.magnitude, self.before, self.previous, self.partner
        return Known(*(part[rows] for part in (*parts, self.ancestry, self.neighbours)))


@dataclass(frozen=True)
class PassModel:
    """Weights, reaches and thresholds of one pass."""

    support_weight: int = 0
    magnitude_weight: int = 0
    previous_weight: int = 0
    partner_weight: int = 0
    previous_reach: int = 0
    partner_reach: int = 0
    thresholds: tuple[int, ...] = ()
    ancestry_weight: int = 0
    neighbour_weight: int = 0

    @property
    def num_values(self) -> int:
        """Classes that share a range of the score."""
        return (2 * self.previous_reach + 1) * (2 * self.partner_reach + 1)

    @property
    def num_classes(self) -> int:
        return (len(self.thresholds) + 1) * self.num_values

    def scores(self, known: Known) -> np.ndarray:
        """Scores of the entries, int32 [n]."""
        score = np.zeros(len(known.support), dtype=np.int32)
        # Features are bytes: they must widen before they are multiplied.
        if self.support_weight:
            score += known.support.astype(np.int32) * self.support_weight
        if self.magnitude_weight:
            score += known.magnitude.astype(np.int32) * self.magnitude_weight
        if self.ancestry_weight:
            score += known.ancestry.astype(np.int32) * self.ancestry_weight
        if self.neighbour_weight:
            score += known.neighbours.astype(np.int32) * self.neighbour_weight
        if self.previous_weight:
            score += known.before.astype(np.int32) * self.previous_weight
        if self.partner_weight:
            sizes = np.minimum(np.abs(known.partner), MAX_ENTRY_MAGNITUDE)
            score += sizes.astype(np.int32) * self.partner_weight
        return score

    def values(self, known: Known) -> np.ndarray:
        """The part of the class that clipped symbols decide, int32 [n]."""
        result = np.zeros(len(known.support), dtype=np.int32)
        reaches = (known.previous, self.previous_reach), (known.partner, self.partner_reach)
        for symbols, reach in reaches:
            if reach:
                result = result * (2 * reach + 1) + (np.clip(symbols, -reach, reach) + reach)
        return result

    def classes(self, known: Known) -> np.ndarray:
        """Class of each entry, int32 [n]."""
        result = self.values(known)
        if self.thresholds:
            scores = self.scores(known)
            every_score = np.arange(int(scores.max(initial=0)) + 1)
            range_of = np.searchsorted(self.thresholds, every_score, side="right")
            result += range_of.astype(np.int32)[scores] * self.num_values
        return result

    def write(self, writer: BitWriter, *, version: int = VERSION) -> None:
        weights = [self.support_weight, self.magnitude_weight]
        weights += [self.previous_weight, self.partner_weight]
        newer = [self.ancestry_weight, self.neighbour_weight]
        if version == 1 and any(newer):
            raise ValueError(f"expected no ancestry and neighbours in version 1, got {newer}")
        for weight in weights + newer if version > 1 else weights:
            writer.golomb(weight, 1)
        writer.bits(self.previous_reach, 2)
        writer.bits(self.partner_reach, 2)
        writer.bits(len(self.thresholds), 4)
        previous = 0
        for threshold in self.thresholds:
            writer.golomb(threshold - previous - 1, 4)
            previous = threshold

    @classmethod
    def read(
        cls,
        reader: BitReader,
        section: str,
        *,
        has_previous: bool,
        has_partner: bool,
        version: int = VERSION,
    ) -> PassModel:
        weights = [reader.golomb(1) for _ in range(4)]
        newer = [reader.golomb(1) for _ in range(2)] if version > 1 else [0, 0]
        reaches = [reader.bits(2) for _ in range(2)]
        thresholds, previous = [], 0
        for _ in range(reader.bits(4)):
            previous += reader.golomb(4) + 1
            thresholds.append(previous)
        most = MAX_SCORES[version > 1]
        if max(weights + newer) > MAX_WEIGHT or previous > most:
            found = (weights + newer, previous)
            raise SceneFormatError(section, f"weights to {MAX_WEIGHT}, thresholds to {most}", found)
        if not has_previous and (weights[2] or reaches[0]):
            raise SceneFormatError(section, "a first channel without previous ones", weights)
        if not has_partner and (weights[3] or reaches[1] or newer[1]):
            raise SceneFormatError(section, "a first pass without partners", weights)
        numbers = *weights, *reaches, tuple(thresholds), *newer
        return cls(*numbers)  # pyright: ignore[reportCallIssue, reportArgumentType]


class LevelRows:
    """The reached entries of one level, and what the passes over them know.

    Args:
        features: Of the reached entries, [n].
        entries: Their numbers in the level's table, ascending; None means 0 … n - 1.
        version: Of the format.
        neighbours: From entries, numbers or a slice, and the sizes of one channel's symbols there,
            uint8, to the neighbours of all entries, uint8 [T]; None where there are none.
    """

    def __init__(
        self,
        features: Features,
        entries: np.ndarray | None = None,
        *,
        version: int = VERSION,
        neighbours: Callable[[slice | np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self._features = features
        self._neighbours = neighbours
        self.version = version
        self.count = len(features.support)
        self._entries = entries

    @cached_property
    def _halves(self) -> tuple[slice | np.ndarray, slice | np.ndarray]:
        """Rows of entries of even numbers, and of odd ones."""
        if self._entries is None:
            return slice(0, None, 2), slice(1, None, 2)
        is_odd = (self._entries & 1).astype(bool)
        return np.flatnonzero(~is_odd), np.flatnonzero(is_odd)

    def _partners(self, symbols: np.ndarray) -> np.ndarray:
        """Symbols of one channel that the partners of odd entries have, int16."""
        odd = self._halves[1]
        if self._entries is None or isinstance(odd, slice):
            return symbols[0 : self.count - 1 : 2]
        # Numbers ascend: a partner that is reached is the row before. One that is not holds 0.
        has_partner = self._entries[odd - 1] == self._entries[odd] - 1
        return np.where(has_partner, symbols[odd - 1], 0).astype(np.int16)

    def passes(self, is_split: bool) -> tuple[slice | np.ndarray, ...]:
        """Rows of each pass over a channel."""
        return self._halves if is_split else (slice(None),)

    def classes(
        self, model: PassModel, symbols: np.ndarray, channel: int, number: int, *, is_split: bool
    ) -> np.ndarray:
        """Class under a model of each entry of pass ``number`` over a channel, int32; see
        :meth:`known`."""
        wanted = model.neighbour_weight > 0
        return model.classes(
            self.known(symbols, channel, number, is_split=is_split, with_neighbours=wanted)
        )

    def known(
        self,
        symbols: np.ndarray,
        channel: int,
        number: int,
        *,
        is_split: bool,
        with_neighbours: bool = True,
    ) -> Known:
        """What is known before pass ``number`` over a channel.

        Args:
            symbols: int16 [d, n], right for earlier channels and passes.
            with_neighbours: False spares the walk where no model asks for them.
        """
        rows = self.passes(is_split)[number]
        support = self._features.support[rows]
        nothing = np.zeros(len(support), dtype=np.int16)
        neighbours = before = np.zeros(len(support), dtype=np.uint8)
        if channel:
            sizes = np.zeros(len(support), dtype=np.int32)
            for earlier in symbols[:channel]:
                sizes += np.abs(earlier[rows])
            before = np.minimum(sizes, MAX_ENTRY_MAGNITUDE).astype(np.uint8)
        partner = self._partners(symbols[channel]) if number else nothing
        if number and with_neighbours and self._neighbours is not None:
            even, odd = self._halves
            if self._entries is not None:
                even, odd = self._entries[even], self._entries[odd]
            sizes = np.minimum(np.abs(symbols[channel][self._halves[0]]), MAX_ENTRY_MAGNITUDE)
            neighbours = self._neighbours(even, sizes.astype(np.uint8))[odd]
        return Known(
            support,
            self._features.magnitude[rows],
            before,
            symbols[channel - 1][rows] if channel else nothing,
            partner,
            self._features.ancestry[rows],
            neighbours,
        )
