"""What encoder and decoder know of a scene's levels, level by level and pass by pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np

from shacira_nerfstudio.codec.latents.context_model import ContextModel, PassFeatures
from shacira_nerfstudio.codec.latents.features import (
    MAX_ENTRY_MAGNITUDE,
    Features,
    entry_magnitudes,
    level_features,
    neighbour_magnitudes,
)
from shacira_nerfstudio.codec.latents.level_kinds import level_kinds, levels_with_neighbours
from shacira_nerfstudio.codec.latents.level_slabs import TouchedSlabs
from shacira_nerfstudio.grid import GridSpec


class CodingContext:
    """What is known of a scene's levels before each of them is coded; levels come in their order.

    Args:
        occupancy: As in :func:`features.reached_entries`.
        fast: As in :func:`encode_scene`.
    """

    def __init__(
        self,
        grid: GridSpec,
        occupancy: np.ndarray | None,
        latent_dim: int,
        *,
        fast: bool | None = None,
    ) -> None:
        self._grid, self._occupancy, self._fast = grid, occupancy, fast
        self._kinds = level_kinds(grid, occupancy)
        self._has_neighbours = levels_with_neighbours(grid, self._kinds.has_features, latent_dim)
        self._parent: np.ndarray | None = None

    def level(self, level: int, coarser_symbols: np.ndarray | None) -> LevelCoding:
        """What is known of a level.

        Args:
            coarser_symbols: Of the next coarser level, int16 [T, d]; None at the coarsest.
        """
        grid, occupancy, fast = self._grid, self._occupancy, self._fast
        grandparent = self._parent
        self._parent = None if coarser_symbols is None else entry_magnitudes(coarser_symbols)
        size, entries, neighbours = grid.table_sizes[level], None, None
        if not self._kinds.has_features[level]:
            return LevelCoding(Features.zeros(size))
        slabs = TouchedSlabs(grid, level, occupancy)
        features = level_features(slabs, self._parent, grandparent, fast=fast)
        if occupancy is not None and not self._kinds.is_saturated[level]:
            entries = np.flatnonzero(features.touched_cells)
            features = features[entries]
        if self._has_neighbours[level]:
            neighbours = partial(neighbour_magnitudes, slabs, fast=fast)
        return LevelCoding(features, entries, neighbours, table_size=size)


class LevelCoding:
    """The coded entries of one level, and what is known before each pass over them.

    Args:
        features: Of the coded entries, [n].
        entries: Their numbers in the level's table, ascending; None means all of it.
        neighbours: From magnitudes of one channel's symbols, uint8 [T], 0 where they are not known,
            to the neighbours' magnitudes, uint8 [T]; None in a level without that feature.
    """

    def __init__(
        self,
        features: Features,
        entries: np.ndarray | None = None,
        neighbours: Callable[[np.ndarray], np.ndarray] | None = None,
        *,
        table_size: int | None = None,
    ) -> None:
        self._features = features
        self._neighbours = neighbours
        self.entries = entries
        self.count = len(features.touched_cells)
        self._table_size = self.count if table_size is None else table_size

    @cached_property
    def _halves(self) -> tuple[slice | np.ndarray, slice | np.ndarray]:
        """Rows of entries of even numbers, and of odd ones."""
        if self.entries is None:
            return slice(0, None, 2), slice(1, None, 2)
        is_odd = (self.entries & 1).astype(bool)
        return np.flatnonzero(~is_odd), np.flatnonzero(is_odd)

    def passes(self, is_split: bool) -> tuple[slice | np.ndarray, ...]:
        """Rows of each pass over a channel, among the coded entries."""
        return self._halves if is_split else (slice(None),)

    def classes(
        self, model: ContextModel, symbols: np.ndarray, channel: int, number: int, *, is_split: bool
    ) -> np.ndarray:
        """Class under a model of each entry of pass ``number`` over a channel, int32; see
        :meth:`pass_features`."""
        with_neighbours = model.neighbour_weight > 0
        return model.classes(
            self.pass_features(
                symbols, channel, number, is_split=is_split, with_neighbours=with_neighbours
            )
        )

    def pass_features(
        self,
        symbols: np.ndarray,
        channel: int,
        number: int,
        *,
        is_split: bool,
        with_neighbours: bool = True,
    ) -> PassFeatures:
        """What is known before pass ``number`` over a channel.

        Args:
            symbols: int16 [d, n], right for earlier channels and passes.
            with_neighbours: False spares their computation where no model asks for them.
        """
        rows = self.passes(is_split)[number]
        level = self._features[rows]
        zeros = np.zeros(len(level.touched_cells), dtype=np.int16)
        neighbour_magnitude = earlier = np.zeros(len(zeros), dtype=np.uint8)
        if channel:
            total = np.zeros(len(zeros), dtype=np.int32)
            for symbols_of_channel in symbols[:channel]:
                total += np.abs(symbols_of_channel[rows])
            earlier = np.minimum(total, MAX_ENTRY_MAGNITUDE).astype(np.uint8)
        if number and with_neighbours and self._neighbours is not None:
            neighbour_magnitude = self._odd_neighbours(symbols[channel])
        return PassFeatures(
            level.touched_cells,
            level.parent_magnitude,
            level.grandparent_magnitude,
            earlier,
            previous=symbols[channel - 1][rows] if channel else zeros,
            partner=self._partners(symbols[channel]) if number else zeros,
            neighbour_magnitude=neighbour_magnitude,
        )

    def _partners(self, symbols: np.ndarray) -> np.ndarray:
        """Symbols of one channel that the partners of odd entries have, int16."""
        odd = self._halves[1]
        if self.entries is None or isinstance(odd, slice):
            return symbols[0 : self.count - 1 : 2]
        # Numbers ascend: a partner that is coded is the row before. One that is not holds 0.
        has_partner = self.entries[odd - 1] == self.entries[odd] - 1
        return np.where(has_partner, symbols[odd - 1], 0).astype(np.int16)

    def _odd_neighbours(self, symbols: np.ndarray) -> np.ndarray:
        """Neighbours' magnitudes of odd entries, uint8, from one channel's symbols of even ones."""
        assert self._neighbours is not None
        even, odd = self._halves
        magnitudes = np.zeros(self._table_size, dtype=np.uint8)
        even_entries = even if self.entries is None else self.entries[even]
        odd_entries = odd if self.entries is None else self.entries[odd]
        magnitudes[even_entries] = np.minimum(np.abs(symbols[even]), MAX_ENTRY_MAGNITUDE)
        return self._neighbours(magnitudes)[odd_entries]
