"""PackedScene to bytes and back: the order of sections and what is checked before what.

FORMAT.md is the specification; ``sections/table.py`` says what stands before the levels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.codec.container import Section, pack_sections, unpack_sections
from shacira_nerfstudio.codec.latents.context_model import ContextModel
from shacira_nerfstudio.codec.latents.context_search import choose_models
from shacira_nerfstudio.codec.latents.level_contexts import CodingContext, LevelCoding
from shacira_nerfstudio.codec.latents.level_section import LevelParts, decode_level, encode_level
from shacira_nerfstudio.codec.scene import PackedScene
from shacira_nerfstudio.codec.sections.head import symbols_digest
from shacira_nerfstudio.codec.sections.occupancy import max_cells
from shacira_nerfstudio.codec.sections.table import KNOWN, LEVEL_TAG, SECTIONS, DecodedFields
from shacira_nerfstudio.grid import GridSpec

MAX_ENTRIES = 1 << 27
MAX_SYMBOLS = 1 << 24, 2048
"""A file may ask for 2^24 symbols (32 MB) or for 2048 per byte of its own, whichever is more."""

MAX_LEVEL = 1 << 20, 64
"""Likewise for the entries of one level that is present: decoding takes some 30 bytes for each."""

MAX_SLABS = 1 << 17, 8
"""Likewise for the resolutions of these levels' longest axes together: a slab of vertices across
such an axis costs time, however thin it is."""

_MAX_THREADS = 4


def encode_side_sections(scene: PackedScene, *, fast: bool | None = None) -> dict[str, bytes]:
    """The sections of a scene beside its latents, by tag, in the order of a file.

    Args: as for :func:`encode_scene`.
    """
    payloads = {row.tag: row.payload(scene, fast) for row in SECTIONS}
    return {tag: payload for tag, payload in payloads.items() if payload is not None}


def encode_scene(
    scene: PackedScene,
    *,
    latents: Sequence[bytes] | None = None,
    use_contexts: bool = True,
    fast: bool | None = None,
) -> bytes:
    """The bytes of a scene; the same scene always gives the same bytes.

    Args:
        latents: What :func:`encode_latents` gives for this scene, where that is there already.
        use_contexts: False gives each level and channel one frequency table, to see what contexts
            are worth. Such a file decodes like any other, but is not the canonical one.
        fast: True demands numba, False forbids it, None uses it where it can be imported. The bytes
            are the same.
    """
    if latents is None:
        latents = encode_latents(scene, use_contexts=use_contexts, fast=fast)
    sections = list(encode_side_sections(scene, fast=fast).items())
    data = pack_sections([*sections, *((LEVEL_TAG, payload) for payload in latents)])
    check_size(scene.grid, scene.latent_dim, scene.num_coded_levels, len(data), MAX_ENTRIES)
    cells = 0 if scene.occupancy is None else scene.occupancy.size
    if cells > max_cells(len(data)):
        most = f"at most {max_cells(len(data))} cells in a file of {len(data)} bytes"
        raise SceneFormatError("OCCU", most, cells)
    return data


def encode_latents(
    scene: PackedScene, *, use_contexts: bool = True, fast: bool | None = None
) -> list[bytes]:
    """The sections of a scene's levels, by far the longest part of the work: they follow from its
    grid, symbols and occupancy alone. Levels are encoded in threads, a few at a time.

    Args: as for :func:`encode_scene`.
    """
    contexts = CodingContext(scene.grid, scene.occupancy, scene.latent_dim, fast=fast)

    def encode(level: int, symbols: np.ndarray, coding: LevelCoding) -> bytes:
        if coding.entries is not None:
            if np.count_nonzero(symbols) != np.count_nonzero(symbols[coding.entries]):
                raise ValueError(f"expected 0 in entries of level {level} that nothing reaches")
            symbols = symbols[coding.entries]
        one_class = [(ContextModel(),)] * scene.latent_dim
        models = choose_models(symbols, coding, fast=fast) if use_contexts else one_class
        return encode_level(symbols, coding, models, fast=fast)

    num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    tasks: list[Future[bytes]] = []
    coarser = None
    with ThreadPoolExecutor(num_threads, "shacira_levels") as pool:
        for level in range(scene.num_coded_levels):
            if level >= num_threads:  # features of levels that wait would only take memory
                tasks[level - num_threads].result()
            symbols = scene.level_symbols(level)
            tasks.append(pool.submit(encode, level, symbols, contexts.level(level, coarser)))
            coarser = symbols
    return [task.result() for task in tasks]


def decode_scene(
    data: bytes | memoryview,
    *,
    allow_truncated: bool = False,
    max_entries: int = MAX_ENTRIES,
    fast: bool | None = None,
) -> PackedScene:
    """The scene of :func:`encode_scene`, or a SceneFormatError.

    Args:
        allow_truncated: Accept a file that was truncated after its first level or later, and decode
            its whole levels.
        max_entries: Largest grid to accept; a larger one is refused before anything is allocated.
        fast: As in :func:`encode_scene`.
    """
    return read_file(
        data, allow_truncated=allow_truncated, max_entries=max_entries, fast=fast
    ).scene


@dataclass
class FileContent:
    """A decoded file and where its bytes go."""

    scene: PackedScene
    sections: list[Section]
    digest: str
    """Of the symbols of all levels that HEAD counts."""
    is_truncated: bool
    """Whether levels are missing that HEAD counts."""
    levels: list[LevelParts] = field(default_factory=list)
    num_reached: list[int] = field(default_factory=list)


def read_file(
    data: bytes | memoryview,
    *,
    allow_truncated: bool = False,
    max_entries: int = MAX_ENTRIES,
    fast: bool | None = None,
) -> FileContent:
    """:func:`decode_scene` with the sections it was made from."""
    data = memoryview(data).cast("B")
    sections = unpack_sections(data, allow_truncated=allow_truncated, known=KNOWN)
    payloads, levels = sort_sections(sections)
    fields = DecodedFields(len(data), fast)
    for row in SECTIONS:
        if row.tag in payloads:
            row.read(payloads[row.tag], fields)
    grid = fields.grid
    latent_dim, num_stored, digest = (
        fields.values.pop(name) for name in ("latent_dim", "num_levels_present", "digest")
    )
    if num_stored > grid.num_levels:
        raise SceneFormatError("HEAD", f"1 to {grid.num_levels} levels present", num_stored)
    if len(levels) > num_stored or not levels or (len(levels) < num_stored and not allow_truncated):
        raise SceneFormatError(LEVEL_TAG, f"{num_stored} levels", len(levels))
    check_size(grid, latent_dim, len(levels), len(data), max_entries)
    contexts = CodingContext(grid, fields.values.get("occupancy"), latent_dim, fast=fast)
    symbols, level_parts, num_reached = _decode_levels(levels, grid, latent_dim, contexts, fast)
    if len(levels) == num_stored:
        found = symbols_digest(symbols[: grid.offsets[num_stored]])
        if found != digest:
            raise SceneFormatError("HEAD", f"digest {digest}", found)
    num_levels_present = len(levels) if len(levels) < grid.num_levels else None
    try:
        scene = PackedScene(symbols=symbols, num_levels_present=num_levels_present, **fields.values)
    except ValueError as error:
        raise SceneFormatError("file", "a valid scene", error) from None
    return FileContent(scene, sections, digest, len(levels) < num_stored, level_parts, num_reached)


def _decode_levels(
    levels: list[memoryview],
    grid: GridSpec,
    latent_dim: int,
    contexts: CodingContext,
    fast: bool | None,
) -> tuple[np.ndarray, list[LevelParts], list[int]]:
    """Symbols of the levels that are present, where their bytes go, and their reached entries."""
    symbols = np.zeros((grid.num_entries, latent_dim), dtype=np.int16)
    level_parts, num_reached, coarser = [], [], None
    for level, payload in enumerate(levels):
        coding = contexts.level(level, coarser)
        found, part = decode_level(payload, coding, latent_dim, f"{LEVEL_TAG} {level}", fast=fast)
        coarser = symbols[grid.offsets[level] : grid.offsets[level + 1]]
        coarser[slice(None) if coding.entries is None else coding.entries] = found
        level_parts.append(part)
        num_reached.append(len(found))
    return symbols, level_parts, num_reached


def check_size(
    grid: GridSpec, latent_dim: int, num_levels: int, file_bytes: int, max_entries: int
) -> None:
    """Refuses what a file of so many bytes may not ask for, before anything is allocated."""
    if grid.num_entries > max_entries:
        raise SceneFormatError(
            "GRID",
            f"at most {max_entries} entries (max_entries= accepts more)",
            grid.num_entries,
        )
    checks = {
        "symbols": (MAX_SYMBOLS, grid.num_entries * latent_dim),
        "entries in a level": (MAX_LEVEL, max(grid.table_sizes[:num_levels])),
        "slabs": (MAX_SLABS, sum(map(max, grid.resolutions[:num_levels]))),
    }
    for what, ((always, per_byte), found) in checks.items():
        most = max(always, per_byte * file_bytes)
        if found > most:
            raise SceneFormatError(
                "GRID", f"at most {most} {what} in a file of {file_bytes} bytes", found
            )


def sort_sections(sections: list[Section]) -> tuple[dict[str, memoryview], list[memoryview]]:
    """Sections of the table by tag, and the levels; checks order and what is missing."""
    known = [section for section in sections if section.tag in KNOWN]
    levels = [section.payload for section in known if section.tag == LEVEL_TAG]
    payloads = {section.tag: section.payload for section in known if section.tag != LEVEL_TAG}
    tags = [section.tag for section in known]
    expected = [row.tag for row in SECTIONS if row.tag in payloads] + [LEVEL_TAG] * len(levels)
    if tags != expected:
        raise SceneFormatError("contents", f"sections {' '.join(expected)}", " ".join(tags))
    for row in SECTIONS:
        if row.is_required and row.tag not in payloads:
            raise SceneFormatError("contents", f"a section {row.tag}", " ".join(tags) or "none")
    return payloads, levels
