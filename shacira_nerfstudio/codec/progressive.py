"""Decoding level by level, from a file that may still be arriving.

A file is coarse to fine, so each of its levels is a scene as soon as its bytes are there. Whoever
shows one while it is decoded, or downloaded, need not wait for the end, nor begin again with each
byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.codec.container import unpack_sections
from shacira_nerfstudio.codec.latents.level_contexts import CodingContext
from shacira_nerfstudio.codec.latents.level_section import decode_level
from shacira_nerfstudio.codec.scene import PackedScene
from shacira_nerfstudio.codec.scene_file import MAX_ENTRIES, check_size, sort_sections
from shacira_nerfstudio.codec.sections.head import symbols_digest
from shacira_nerfstudio.codec.sections.table import KNOWN, LEVEL_TAG, SECTIONS, DecodedFields


class ProgressiveDecoder:
    """One file, whose bytes come bit by bit.

    Args: as for :func:`decode_scene`.
    """

    def __init__(self, *, max_entries: int = MAX_ENTRIES, fast: bool | None = None) -> None:
        self._max_entries, self._fast = max_entries, fast
        self._values: dict[str, Any] = {}
        self._symbols = np.zeros((0, 0), np.int16)
        self._contexts: CodingContext | None = None
        self.num_levels_stored: int | None = None
        """Levels that the whole file has; None before the first one was there."""
        self.num_levels_decoded = 0

    @property
    def is_complete(self) -> bool:
        """Whether all levels of the file are decoded, and its digest was found to be right."""
        return self.num_levels_decoded == self.num_levels_stored

    def feed(self, data: bytes | memoryview) -> Iterator[PackedScene]:
        """Decodes the whole levels that are new and yields the scene after each of them.

        Args:
            data: The file from its beginning, as far as it is there: what earlier calls got, and
                more.

        Raises:
            SceneFormatError: as :func:`decode_scene`. Too few bytes for the first level are none.
        """
        data = memoryview(data).cast("B")
        sections = unpack_sections(data, allow_truncated=True, known=KNOWN)
        if all(section.tag != LEVEL_TAG for section in sections):
            return
        payloads, levels = sort_sections(sections)
        if self._contexts is None:
            self._begin(payloads, len(levels), len(data))
        elif self.num_levels_stored is not None and len(levels) > self.num_levels_stored:
            raise SceneFormatError(LEVEL_TAG, f"{self.num_levels_stored} levels", len(levels))
        grid, latent_dim = self._values["grid"], self._symbols.shape[1]
        check_size(grid, latent_dim, len(levels), len(data), self._max_entries)
        for level in range(self.num_levels_decoded, len(levels)):
            self._decode(level, levels[level])
            yield self._scene()

    def _begin(self, payloads: dict[str, memoryview], num_levels: int, file_bytes: int) -> None:
        """Reads all but the levels."""
        fields = DecodedFields(file_bytes, self._fast)
        for row in SECTIONS:
            if row.tag in payloads:
                row.read(payloads[row.tag], fields)
        grid, num_stored = fields.grid, fields.values["num_levels_present"]
        if not num_levels <= num_stored <= grid.num_levels:
            raise SceneFormatError("HEAD", f"{num_levels} to {grid.num_levels} levels", num_stored)
        latent_dim = fields.values.pop("latent_dim")
        check_size(grid, latent_dim, num_levels, file_bytes, self._max_entries)
        self._symbols = np.zeros((grid.num_entries, latent_dim), dtype=np.int16)
        occupancy = fields.values.get("occupancy")
        self._contexts = CodingContext(grid, occupancy, latent_dim, fast=self._fast)
        self._values, self.num_levels_stored = fields.values, num_stored

    def _decode(self, level: int, payload: memoryview) -> None:
        assert self._contexts is not None
        offsets, latent_dim = self._values["grid"].offsets, self._symbols.shape[1]
        coarser = self._symbols[offsets[level - 1] : offsets[level]] if level else None
        coding = self._contexts.level(level, coarser)
        section = f"{LEVEL_TAG} {level}"
        found, _ = decode_level(payload, coding, latent_dim, section, fast=self._fast)
        rows = self._symbols[offsets[level] : offsets[level + 1]]
        rows[slice(None) if coding.entries is None else coding.entries] = found
        if level + 1 == self.num_levels_stored:
            digest = symbols_digest(self._symbols[: offsets[level + 1]])
            if digest != self._values["digest"]:
                raise SceneFormatError("HEAD", f"digest {self._values['digest']}", digest)
        self.num_levels_decoded = level + 1

    def _scene(self) -> PackedScene:
        values = {k: v for k, v in self._values.items() if k not in _OF_THE_FILE}
        count = self.num_levels_decoded
        present = count if count < values["grid"].num_levels else None
        try:
            # A copy: what was yielded must not change while the next level is decoded.
            return PackedScene(symbols=self._symbols.copy(), num_levels_present=present, **values)
        except ValueError as error:
            raise SceneFormatError("file", "a valid scene", error) from None


_OF_THE_FILE = ("num_levels_present", "digest")
"""Fields of a file that a scene does not have, or has for the levels that are decoded."""
