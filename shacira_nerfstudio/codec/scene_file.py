"""PackedScene to bytes and back: which sections there are and what is checked before what.

FORMAT.md is the specification; this module is its table of contents in code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from shacira_nerfstudio.codec.sections.cameras import decode_cameras, encode_cameras
from shacira_nerfstudio.codec.container import (
    VERSION,
    Section,
    file_version,
    pack_sections,
    unpack_sections,
)
from shacira_nerfstudio.codec.latents.features import (
    Features,
    TouchedSlabs,
    entry_magnitudes,
    level_features,
    level_kinds,
    neighbour_levels,
    neighbour_sizes,
)
from shacira_nerfstudio.codec.sections.head import (
    MAX_META_BYTES,
    canonical_json,
    decode_head,
    decode_json,
    encode_head,
    symbols_digest,
)
from shacira_nerfstudio.codec.latents.level_section import LevelParts, decode_level, encode_level
from shacira_nerfstudio.codec.latents.context_search import choose_models
from shacira_nerfstudio.codec.sections.occupancy import MAX_CELLS, decode_occupancy, encode_occupancy
from shacira_nerfstudio.codec.scene import CameraSet, PackedScene, RenderSettings
from shacira_nerfstudio.codec.latents.context_model import LevelRows, PassModel
from shacira_nerfstudio.codec.sections.grid_and_rendering import (
    decode_grid,
    decode_prefix_psnr,
    decode_rendering,
    decode_weights,
    encode_grid,
    encode_prefix_psnr,
    encode_rendering,
    encode_weights,
)
from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.grid import GridSpec

KNOWN = frozenset(["HEAD", "GRID", "RNDR", "OCCU", "WGTS", "LATN"])
ORDER = ("HEAD", "GRID", "RNDR", "OCCU", "WGTS", "cams", "meta", "psnr")
"""Sections before the levels; a file lacks those that it does not need."""

MAX_ENTRIES = 1 << 27
MAX_SYMBOLS = 1 << 24, 2048
"""A file may ask for 2^24 symbols (32 MB) or for 2048 per byte of its own, whichever is more."""

MAX_LEVEL = 1 << 20, 64
"""Likewise for the entries of one level that is present: decoding takes some 30 bytes for each."""

MAX_OCCUPANCY = 1 << 21, 128
"""Likewise for cells of the occupancy grid."""


def encode_sides(
    scene: PackedScene, *, version: int = VERSION, fast: bool | None = None
) -> dict[str, bytes]:
    """The sections of a scene beside its latents, by tag.

    Args: as for :func:`encode_scene`.
    """
    parts = {
        "HEAD": encode_head(scene, version=version),
        "GRID": encode_grid(scene.grid, scene.latent_dim, version=version),
        "WGTS": encode_weights(scene.weights, fast=fast),
    }
    if scene.rendering is not None:
        parts["RNDR"] = encode_rendering(scene.rendering)
    if scene.occupancy is not None:
        parts["OCCU"] = encode_occupancy(scene.occupancy, fast=fast)
    if scene.cameras is not None:
        parts["cams"] = encode_cameras(scene.cameras, version=version, fast=fast)
    if scene.meta:
        parts["meta"] = canonical_json(scene.meta)
    if scene.prefix_psnr is not None:
        parts["psnr"] = encode_prefix_psnr(scene.prefix_psnr)
    return parts


def encode_scene(
    scene: PackedScene,
    *,
    use_contexts: bool = True,
    version: int = VERSION,
    fast: bool | None = None,
) -> bytes:
    """The bytes of a scene; the same scene always gives the same bytes.

    Args:
        use_contexts: False gives each level and channel one frequency table, to see what contexts
            are worth. Such a file decodes like any other, but is not the canonical one.
        version: Of the format, to encode what an older file holds as that file does.
        fast: True demands numba, False forbids it, None uses it where it can be imported. The bytes
            are the same.
    """
    parts = encode_sides(scene, version=version, fast=fast)
    sections = [(tag, parts[tag]) for tag in ORDER if tag in parts]
    known = KnownLevels(scene.grid, scene.occupancy, scene.latent_dim, version=version, fast=fast)
    coarser = None
    for level in range(scene.num_coded_levels):
        symbols = scene.level_symbols(level)
        entries, rows = known.of_level(level, coarser)
        coarser = entry_magnitudes(symbols)
        if entries is not None:
            if np.count_nonzero(symbols) != np.count_nonzero(symbols[entries]):
                raise ValueError(f"expected 0 in entries of level {level} that nothing reaches")
            symbols = symbols[entries]
        one_class = [(PassModel(),)] * scene.latent_dim
        models = choose_models(symbols, rows) if use_contexts else one_class
        sections.append(("LATN", encode_level(symbols, rows, models, fast=fast)))
    data = pack_sections(sections, version=version)
    _check_size(scene.grid, scene.latent_dim, scene.num_coded_levels, len(data), MAX_ENTRIES)
    return data


def decode_scene(
    data: bytes | memoryview,
    *,
    allow_truncated: bool = False,
    max_entries: int = MAX_ENTRIES,
    fast: bool | None = None,
) -> PackedScene:
    """The scene of :func:`encode_scene`, or a SceneFormatError.

    Args:
        allow_truncated: Accept a file that was cut off after its first level or later, and decode
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
    version: int
    """Of its format."""
    head: dict
    """What HEAD says."""
    is_cut_off: bool
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
    parts, levels = _sort_sections(sections)
    version = file_version(data)
    grid, latent_dim = decode_grid(parts["GRID"], version=version)
    head = decode_head(parts["HEAD"], grid, latent_dim, version=version)
    num_stored = head["num_levels_present"]
    if len(levels) > num_stored or not levels or (len(levels) < num_stored and not allow_truncated):
        raise SceneFormatError("LATN", f"{num_stored} levels", len(levels))
    _check_size(grid, latent_dim, len(levels), len(data), max_entries)
    occupancy, rendering, cameras = _decode_side(parts, grid.num_dims, len(data), version, fast)
    weights = decode_weights(parts["WGTS"], fast=fast)
    meta = decode_json(parts["meta"], "meta", MAX_META_BYTES) if "meta" in parts else {}
    psnr = decode_prefix_psnr(parts["psnr"], grid.num_levels) if "psnr" in parts else None
    known = KnownLevels(grid, occupancy, latent_dim, version=version, fast=fast)
    symbols, level_parts, num_reached = _decode_levels(levels, grid, latent_dim, known, fast)
    if len(levels) == num_stored:
        found = symbols_digest(symbols[: grid.offsets[num_stored]])
        if found != head["digest"]:
            raise SceneFormatError("HEAD", f"digest {head['digest']}", found)
    try:
        scene = PackedScene(
            kind=head["kind"],
            architecture=head["architecture"],
            grid=grid,
            symbols=symbols,
            occupancy=occupancy,
            weights=weights,
            rendering=rendering,
            cameras=cameras,
            meta=meta,
            num_levels_present=len(levels) if len(levels) < grid.num_levels else None,
            prefix_psnr=psnr,
        )
    except ValueError as error:
        raise SceneFormatError("file", "a valid scene", error) from None
    return FileContent(
        scene, sections, version, head, len(levels) < num_stored, level_parts, num_reached
    )


def _decode_levels(
    levels: list[memoryview],
    grid: GridSpec,
    latent_dim: int,
    known: KnownLevels,
    fast: bool | None,
) -> tuple[np.ndarray, list[LevelParts], list[int]]:
    """Symbols of the levels that are present, where their bytes go, and their reached entries."""
    symbols = np.zeros((grid.num_entries, latent_dim), dtype=np.int16)
    level_parts, num_reached, coarser = [], [], None
    for level, payload in enumerate(levels):
        entries, rows = known.of_level(level, coarser)
        found, part = decode_level(payload, rows, latent_dim, f"LATN {level}", fast=fast)
        table = symbols[grid.offsets[level] : grid.offsets[level + 1]]
        table[slice(None) if entries is None else entries] = found
        coarser = entry_magnitudes(table)
        level_parts.append(part)
        num_reached.append(len(found))
    return symbols, level_parts, num_reached


class KnownLevels:
    """What both sides know of a scene's levels before they are decoded.

    Args:
        version: Of the format.
    """

    def __init__(
        self,
        grid: GridSpec,
        occupancy: np.ndarray | None,
        latent_dim: int,
        *,
        version: int = VERSION,
        fast: bool | None,
    ) -> None:
        self._grid, self._occupancy = grid, occupancy
        self._version, self._fast = version, fast
        self._is_crowded, self._is_described = level_kinds(grid, occupancy)
        if version > 1:
            self._has_neighbours = neighbour_levels(grid, self._is_described, latent_dim)
        else:
            self._is_described = tuple(not crowded for crowded in self._is_crowded)
            self._has_neighbours = (False,) * grid.num_levels
        self._ancestor: np.ndarray | None = None
        self._coarser: np.ndarray | None = None

    def of_level(
        self, level: int, coarser: np.ndarray | None
    ) -> tuple[np.ndarray | None, LevelRows]:
        """Reached entries, ascending or None for all, and what is known of them.

        Levels must be asked for in their order.

        Args:
            coarser: :func:`entry_magnitudes` of the next coarser level.
        """
        grid, occupancy, fast = self._grid, self._occupancy, self._fast
        self._ancestor, self._coarser = self._coarser, coarser
        neighbours, entries = None, None
        features = Features.nothing(grid.table_sizes[level])
        touched = TouchedSlabs(grid, level, occupancy)
        if self._is_described[level]:
            ancestor = self._ancestor if self._version > 1 else None
            features = level_features(
                grid, level, occupancy, coarser, ancestor=ancestor, touched=touched, fast=fast
            )
            if occupancy is not None and not self._is_crowded[level]:
                entries = np.flatnonzero(features.support)
                features = features[entries]
        if self._has_neighbours[level]:
            neighbours = partial(_neighbours_of, grid, level, occupancy, touched, fast)
        rows = LevelRows(features, entries, version=self._version, neighbours=neighbours)
        return entries, rows


def _neighbours_of(
    grid: GridSpec,
    level: int,
    occupancy: np.ndarray | None,
    touched: TouchedSlabs,
    fast: bool | None,
    numbers: slice | np.ndarray,
    sizes: np.ndarray,
) -> np.ndarray:
    """:func:`neighbour_sizes` when some entries, by their numbers, have these sizes and others are
    0."""
    table = np.zeros(grid.table_sizes[level], dtype=np.uint8)
    table[numbers] = sizes
    return neighbour_sizes(grid, level, occupancy, table, touched=touched, fast=fast)


def _most(limit: tuple[int, int], file_bytes: int) -> int:
    """What a file of this length may ask for: so much in any case, or so much per byte."""
    return max(limit[0], limit[1] * file_bytes)


def _check_size(
    grid: GridSpec, latent_dim: int, num_levels: int, file_bytes: int, max_entries: int
) -> None:
    if grid.num_entries > max_entries:
        raise SceneFormatError(
            "GRID",
            f"at most {max_entries} entries (max_entries= accepts more)",
            grid.num_entries,
        )
    checks = {
        "symbols": (MAX_SYMBOLS, grid.num_entries * latent_dim),
        "entries in a level": (MAX_LEVEL, max(grid.table_sizes[:num_levels])),
    }
    for what, (limit, found) in checks.items():
        most = _most(limit, file_bytes)
        if found > most:
            raise SceneFormatError(
                "GRID", f"at most {most} {what} in a file of {file_bytes} bytes", found
            )


def _sort_sections(sections: list[Section]) -> tuple[dict[str, memoryview], list[memoryview]]:
    """Sections before the levels by tag, and the levels; checks order and what is missing."""
    known = [section for section in sections if section.tag in (*ORDER, "LATN")]
    levels = [section.payload for section in known if section.tag == "LATN"]
    parts = {section.tag: section.payload for section in known if section.tag != "LATN"}
    tags = [section.tag for section in known]
    expected = [tag for tag in ORDER if tag in parts] + ["LATN"] * len(levels)
    if tags != expected:
        raise SceneFormatError("contents", f"sections {' '.join(expected)}", " ".join(tags))
    for tag in ("HEAD", "GRID", "WGTS"):
        if tag not in parts:
            raise SceneFormatError("contents", f"a section {tag}", " ".join(tags) or "none")
    return parts, levels


def _decode_side(
    parts: dict[str, memoryview], num_dims: int, file_bytes: int, version: int, fast: bool | None
) -> tuple[np.ndarray | None, RenderSettings | None, CameraSet | None]:
    most = min(MAX_CELLS, _most(MAX_OCCUPANCY, file_bytes))
    occupancy = rendering = cameras = None
    if "OCCU" in parts:
        occupancy = decode_occupancy(parts["OCCU"], num_dims, max_cells=most, fast=fast)
    if "RNDR" in parts:
        rendering = decode_rendering(parts["RNDR"], num_dims)
    if "cams" in parts:
        cameras = decode_cameras(parts["cams"], version=version, fast=fast)
    return occupancy, rendering, cameras
