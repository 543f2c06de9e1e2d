"""What one does with whole files: save, load, describe, verify, truncate, compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from shacira_nerfstudio.codec.bitio import SceneFormatError
from shacira_nerfstudio.codec.container import VERSION, Section, pack_sections, unpack_sections
from shacira_nerfstudio.codec.scene import PackedScene
from shacira_nerfstudio.codec.scene_file import (
    MAX_ENTRIES,
    FileContent,
    decode_scene,
    encode_scene,
    read_file,
)
from shacira_nerfstudio.codec.sections.head import encode_head
from shacira_nerfstudio.codec.sections.table import KNOWN, LEVEL_TAG, PART_OF_TAG
from shacira_nerfstudio.output_files import write_file


def save_scene(path: str | os.PathLike[str], scene: PackedScene | bytes) -> int:
    """Writes a scene, or its bytes, see :func:`write_file`.

    Returns:
        The length of the file in bytes.
    """
    return write_file(path, encode_scene(scene) if isinstance(scene, PackedScene) else scene)


def load_scene(
    path: str | os.PathLike[str], *, allow_truncated: bool = False, max_entries: int = MAX_ENTRIES
) -> PackedScene:
    """Reads and decodes a file; see :func:`decode_scene`."""
    data = Path(path).read_bytes()
    return decode_scene(data, allow_truncated=allow_truncated, max_entries=max_entries)


def bytes_by_part(data: bytes | memoryview) -> dict[str, int]:
    """Where the bytes of a file go, without decoding it; their sum is its length.

    "latents" are the sections of the levels, their models and frequency tables included; "other"
    is the container and the sections that may be skipped.
    """
    return _bytes_by_part(unpack_sections(data, known=KNOWN), data)


def _bytes_by_part(sections: list[Section], data: bytes | memoryview) -> dict[str, int]:
    by_part = dict.fromkeys(PART_OF_TAG.values(), 0)
    by_part["other"] = len(memoryview(data).cast("B"))
    for section in sections:
        part, size = PART_OF_TAG.get(section.tag, "other"), len(section.payload)
        if part != "other":
            by_part[part] += size
            by_part["other"] -= size
    return by_part


def describe(
    data: bytes | memoryview,
    *,
    allow_truncated: bool = False,
    content: FileContent | None = None,
) -> dict[str, Any]:
    """What there is to know about a file that decodes, ready for JSON: where its bytes go, rates,
    counts.

    A prefix of the file that ends behind level l has ``prefix_bytes[l]`` bytes; ``prefix_psnr[l]``
    is what its scene reaches in dB, if that was measured. The ``latents`` of
    :func:`bytes_by_part` are ``stream_bytes`` and ``table_bytes`` together, the latter being models
    and frequency tables; so are those of each level and bits per latent.

    Args:
        content: Of the file, where that has been read already.
    """
    content = content or read_file(data, allow_truncated=allow_truncated)
    scene, grid = content.scene, content.scene.grid
    level_bytes = [parts.table_bytes + parts.stream_bytes for parts in content.levels]
    stored = grid.offsets[scene.num_coded_levels] * scene.latent_dim
    reached = sum(content.num_reached) * scene.latent_dim
    return {
        "version": VERSION,
        "kind": scene.kind,
        "architecture": dict(scene.architecture),
        "digest": content.digest,
        "meta": dict(scene.meta),
        "bytes": len(memoryview(data).cast("B")),
        "bytes_by_part": _bytes_by_part(content.sections, data),
        "stream_bytes": sum(parts.stream_bytes for parts in content.levels),
        "table_bytes": sum(parts.table_bytes for parts in content.levels),
        "bytes_by_level": level_bytes,
        "bits_per_latent_by_level": [
            8 * size / (entries * scene.latent_dim)
            for size, entries in zip(level_bytes, grid.table_sizes, strict=False)
        ],
        "prefix_bytes": [
            section.offset + len(section.payload)
            for section in content.sections
            if section.tag == LEVEL_TAG
        ],
        "prefix_psnr": scene.prefix_psnr and [value / 100 for value in scene.prefix_psnr],
        "num_levels": grid.num_levels,
        "num_levels_present": scene.num_coded_levels,
        "is_truncated": content.is_truncated,
        "sections": [[section.tag, len(section.payload)] for section in content.sections],
        "bits_per_latent": 8 * sum(level_bytes) / max(stored, 1),
        "bits_per_reached_latent": 8 * sum(level_bytes) / max(reached, 1),
        "num_latents": stored,
        "num_reached_latents": reached,
        "num_nonzero_latents": int((scene.symbols != 0).sum()),
        "num_weights": sum(tensor.values.size for tensor in scene.weights.values()),
        "num_occupied_cells": None if scene.occupancy is None else int(scene.occupancy.sum()),
        "num_cells": None if scene.occupancy is None else scene.occupancy.size,
        "num_cameras": 0 if scene.cameras is None else len(scene.cameras.sizes),
        "resolutions": [list(axes) for axes in grid.resolutions],
        "table_sizes": list(grid.table_sizes),
        "reached_entries_by_level": content.num_reached,
    }


def verify(data: bytes | memoryview, *, allow_truncated: bool = False) -> None:
    """Raises SceneFormatError unless CRCs and digest hold and the encoding is the canonical one.

    Sections that may be skipped and that this version does not know are left out of the comparison.

    Args:
        allow_truncated: Accept a file that was truncated; its whole levels are checked, and its
            digest, which is of all levels, is not.
    """
    content = read_file(data, allow_truncated=allow_truncated)
    known = [section for section in content.sections if section.tag in KNOWN]
    again = unpack_sections(encode_scene(content.scene), known=KNOWN)
    for ours, theirs in zip(again, known, strict=True):
        if content.is_truncated and theirs.tag == "HEAD":
            continue  # it counts levels that are gone
        if ours.payload != theirs.payload:
            raise SceneFormatError(theirs.tag, "the canonical encoding", "another one")


def truncate(
    data: bytes | memoryview, *, max_level: int | None = None, max_bytes: int | None = None
) -> bytes:
    """A shorter file with the coarsest levels only, itself valid and canonical.

    All other sections stay as they are; only HEAD changes. ``data`` may itself be truncated.

    Args:
        max_level: Finest level to keep, from 0.
        max_bytes: Keep as many levels as fit; not even one fitting is a ValueError.
    """
    content = read_file(data, allow_truncated=True)
    scene, grid = content.scene, content.scene.grid
    most = scene.num_coded_levels
    if max_level is not None:
        if not 0 <= max_level < grid.num_levels:
            raise ValueError(f"expected max_level from 0 to {grid.num_levels - 1}, got {max_level}")
        most = min(most, max_level + 1)
    for count in range(most, 0, -1):
        shorter = _with_levels(content, count)
        if max_bytes is None or len(shorter) <= max_bytes:
            return shorter
    raise ValueError(f"expected max_bytes of at least {len(shorter)}, got {max_bytes}")


def _with_levels(content: FileContent, count: int) -> bytes:
    parts, left = [], count
    for section in content.sections:
        payload = bytes(section.payload)
        if section.tag == "HEAD":
            payload = encode_head(content.scene, num_levels=count)
        if section.tag == LEVEL_TAG:
            left -= 1
            if left < 0:
                continue
        parts.append((section.tag, payload))
    return pack_sections(parts)


_COMPARED_WHOLE = "kind architecture grid num_levels_present rendering meta prefix_psnr".split()


def diff(a: PackedScene, b: PackedScene) -> dict[str, str]:
    """What differs between two scenes, in words by name; empty if nothing does."""
    differences: dict[str, str] = {}
    for name in _COMPARED_WHOLE:
        first, second = getattr(a, name), getattr(b, name)
        if first != second:
            differences[name] = f"{first} and {second}"
    if a.cameras != b.cameras:
        counts = [0 if s.cameras is None else len(s.cameras.sizes) for s in (a, b)]
        differences["cameras"] = f"{counts[0]} and {counts[1]} cameras, not the same"
    for name in ("symbols", "occupancy"):
        difference = _diff_arrays(getattr(a, name), getattr(b, name))
        if difference:
            differences[name] = difference
    for name in sorted({*a.weights, *b.weights}):
        tensors = [scene.weights.get(name) for scene in (a, b)]
        if tensors[0] != tensors[1]:
            floats = [None if tensor is None else tensor.dequantize() for tensor in tensors]
            differences[f"weights.{name}"] = _diff_arrays(*floats) or "other steps, same values"
    return differences


def _diff_arrays(a: np.ndarray | None, b: np.ndarray | None) -> str:
    """In words, empty if equal."""
    if a is None or b is None:
        return "" if a is b else f"{'absent' if a is None else 'there'} in the first file only"
    if a.shape != b.shape:
        return f"shapes {list(a.shape)} and {list(b.shape)}"
    count = int((a != b).sum())
    largest = abs(a.astype(float) - b.astype(float)).max(initial=0.0)
    return f"{count:,} of {a.size:,} differ, at most by {largest:.6g}" if count else ""
