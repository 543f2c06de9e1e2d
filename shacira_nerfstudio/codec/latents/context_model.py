"""How the entries of one pass over one channel fall into classes; a class has one frequency table.

A channel is coded in one pass over all entries, or in two: entries of even numbers, then those of
odd ones. The *partner* of an entry of the second pass is the entry whose number differs in the last
bit only; its symbol is decoded by then. Partners lie side by side along the first axis, in hashed
levels as in dense ones. In hashed levels, and in dense ones whose resolutions are odd along all
axes but the last, the passes are the two colours of a chessboard: all neighbours of an odd entry's
vertices are decoded as well.

The *score* of an entry is

    touched_cells_weight · touched_cells + parent_weight · parent_magnitude
        + grandparent_weight · grandparent_magnitude
        + previous_weight · min(Σ |q| of earlier channels, 31)
        + partner_weight · min(|q'|, 31) + neighbour_weight · neighbour_magnitude

where q' is the partner's symbol of the same channel. The class of an entry is

    ((thresholds at or below the score) · (2 r + 1) + r + previous channel's q clipped to ±r)
        · (2 u + 1) + u + q' clipped to ±u

with r = previous_reach and u = partner_reach.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from shacira_nerfstudio.codec.bitio import BitReader, BitWriter, SceneFormatError
from shacira_nerfstudio.codec.latents.features import MAX_ENTRY_MAGNITUDE

MAX_WEIGHT = 63
MAX_REACH = 3
MAX_THRESHOLDS = 15
_CORNERS, _FACES = 8, 6
MAX_SCORE = MAX_WEIGHT * (_CORNERS + (2 * _CORNERS + _FACES + 2) * MAX_ENTRY_MAGNITUDE)


@dataclass(frozen=True)
class PassFeatures:
    """What encoder and decoder know before a pass; one element for each entry of it."""

    touched_cells: np.ndarray
    """uint8, as in ``features.Features``."""
    parent_magnitude: np.ndarray
    """uint8, likewise."""
    grandparent_magnitude: np.ndarray
    """uint8, likewise."""
    earlier_magnitude: np.ndarray
    """uint8: min(Σ |q| of earlier channels, 31)."""
    previous: np.ndarray
    """int16: symbols of the previous channel, 0 in the first one."""
    partner: np.ndarray
    """int16: symbols of the partners, 0 in a first pass."""
    neighbour_magnitude: np.ndarray
    """uint8: ``features.neighbour_magnitudes``, 0 in a first pass."""

    def contiguous(self) -> PassFeatures:
        """The same side by side in memory."""
        arrays = (getattr(self, field.name) for field in fields(self))
        return PassFeatures(*(np.ascontiguousarray(array) for array in arrays))

    def __getitem__(self, rows: slice) -> PassFeatures:
        return PassFeatures(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class ContextModel:
    """Weights, reaches and thresholds of one pass."""

    touched_cells_weight: int = 0
    parent_weight: int = 0
    previous_weight: int = 0
    partner_weight: int = 0
    grandparent_weight: int = 0
    neighbour_weight: int = 0
    previous_reach: int = 0
    partner_reach: int = 0
    thresholds: tuple[int, ...] = ()

    @property
    def num_values(self) -> int:
        """Classes that share a range of the score."""
        return (2 * self.previous_reach + 1) * (2 * self.partner_reach + 1)

    @property
    def num_classes(self) -> int:
        return (len(self.thresholds) + 1) * self.num_values

    @property
    def _weights(self) -> tuple[int, ...]:
        """In the order in which they are stored."""
        return (
            self.touched_cells_weight,
            self.parent_weight,
            self.previous_weight,
            self.partner_weight,
            self.grandparent_weight,
            self.neighbour_weight,
        )

    @property
    def weights_of_features(self) -> tuple[int, ...]:
        """Of touched cells, parent, grandparent, neighbours, earlier channels and partner."""
        return (
            self.touched_cells_weight,
            self.parent_weight,
            self.grandparent_weight,
            self.neighbour_weight,
            self.previous_weight,
            self.partner_weight,
        )

    def scores(self, features: PassFeatures) -> np.ndarray:
        """Scores of the entries, int32 [n]."""
        score = np.zeros(len(features.touched_cells), dtype=np.int32)
        terms = (
            (self.touched_cells_weight, features.touched_cells),
            (self.parent_weight, features.parent_magnitude),
            (self.grandparent_weight, features.grandparent_magnitude),
            (self.neighbour_weight, features.neighbour_magnitude),
            (self.previous_weight, features.earlier_magnitude),
        )
        for weight, feature in terms:
            if weight:
                # Features are bytes: they must widen before they are multiplied.
                score += feature.astype(np.int32) * weight
        if self.partner_weight:
            magnitudes = np.minimum(np.abs(features.partner), MAX_ENTRY_MAGNITUDE)
            score += magnitudes.astype(np.int32) * self.partner_weight
        return score

    def values(self, features: PassFeatures) -> np.ndarray:
        """The part of the class that clipped symbols decide, int32 [n]."""
        result = np.zeros(len(features.touched_cells), dtype=np.int32)
        reaches = (
            (features.previous, self.previous_reach),
            (features.partner, self.partner_reach),
        )
        for symbols, reach in reaches:
            if reach:
                result = result * (2 * reach + 1) + (np.clip(symbols, -reach, reach) + reach)
        return result

    def classes(self, features: PassFeatures) -> np.ndarray:
        """Class of each entry, int32 [n]."""
        result = self.values(features)
        if self.thresholds:
            scores = self.scores(features)
            every_score = np.arange(int(scores.max(initial=0)) + 1)
            range_of = np.searchsorted(self.thresholds, every_score, side="right")
            result += range_of.astype(np.int32)[scores] * self.num_values
        return result

    def write(self, writer: BitWriter) -> None:
        for weight in self._weights:
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
        cls, reader: BitReader, section: str, *, has_previous: bool, has_partner: bool
    ) -> ContextModel:
        weights = [reader.golomb(1) for _ in range(6)]
        previous_reach, partner_reach = reader.bits(2), reader.bits(2)
        thresholds, previous = [], 0
        for _ in range(reader.bits(4)):
            previous += reader.golomb(4) + 1
            thresholds.append(previous)
        if max(weights) > MAX_WEIGHT or previous > MAX_SCORE:
            expected = f"weights to {MAX_WEIGHT}, thresholds to {MAX_SCORE}"
            raise SceneFormatError(section, expected, (weights, previous))
        model = cls(
            *weights,
            previous_reach=previous_reach,
            partner_reach=partner_reach,
            thresholds=tuple(thresholds),
        )
        if not has_previous and (model.previous_weight or model.previous_reach):
            raise SceneFormatError(section, "a first channel without previous ones", model)
        if not has_partner and (
            model.partner_weight or model.partner_reach or model.neighbour_weight
        ):
            raise SceneFormatError(section, "a first pass without partners", model)
        return model
