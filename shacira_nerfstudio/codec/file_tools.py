"""What one does with whole files: save, load, describe, verify, truncate."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.sections.head import encode_head
from shacira_nerfstudio.codec.scene import PackedScene
from shacira_nerfstudio.codec.scene_file import (
    KNOWN,
    MAX_ENTRIES,
    ORDER,
    FileContent,
    decode_scene,
    encode_scene,
    read_file,
)
from shacira_nerfstudio.codec.bitio import SceneFormatError


def save_scene(path: str | os.PathLike, scene: PackedScene | bytes) -> int:
    """Writes a scene, or its bytes: afterwards the whole new file is there or the old one.

    Returns:
        The length of the file in bytes.
    """
    data = encode_scene(scene) if isinstance(scene, PackedScene) else bytes(scene)
    path = Path(path)
    # A sibling, so that the last step is a rename within one file system.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return len(data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_scene(
    path: str | os.PathLike, *, allow_truncated: bool = False, max_entries: int = MAX_ENTRIES
) -> PackedScene:
    """Reads and decodes a file; see :func:`decode_scene`."""
    data = Path(path).read_bytes()
    return decode_scene(data, allow_truncated=allow_truncated, max_entries=max_entries)


def describe(data: bytes | memoryview, *, allow_truncated: bool = False) -> dict[str, Any]:
    """Facts about a file that decodes, ready for JSON: where its bytes go, rates, counts.

    A prefix of the file that ends behind level l has ``prefix_bytes[l]`` bytes; ``prefix_psnr[l]``
    is what its scene reaches in dB, if that was measured. "tables" are models and frequency tables
    within the level sections, "latents" their streams, "other" the container and the sections that
    may be skipped. Bits per latent count streams and tables.
    """
    content = read_file(data, allow_truncated=allow_truncated)
    scene, grid = content.scene, content.scene.grid
    names = {"HEAD": "head", "RNDR": "head", "GRID": "grid", "OCCU": "occupancy", "WGTS": "weights"}
    by_part: dict[str, int] = dict.fromkeys(names.values(), 0)
    for section in content.sections:
        if section.tag in names:
            by_part[names[section.tag]] += len(section.payload)
    by_part["latents"] = sum(parts.stream_bytes for parts in content.levels)
    by_part["tables"] = sum(parts.table_bytes for parts in content.levels)
    by_part["other"] = len(memoryview(data).cast("B")) - sum(by_part.values())
    coded_bits = 8 * (by_part["latents"] + by_part["tables"])
    level_bytes = [parts.table_bytes + parts.stream_bytes for parts in content.levels]
    ends = [s.offset + len(s.payload) for s in content.sections if s.tag == "LATN"]
    psnr = scene.prefix_psnr and [value / 100 for value in scene.prefix_psnr]
    stored = grid.offsets[scene.num_coded_levels] * scene.latent_dim
    reached = sum(content.num_reached) * scene.latent_dim
    return {
        "version": content.version,
        "bytes": len(memoryview(data).cast("B")),
        "bytes_by_part": by_part,
        "bytes_by_level": level_bytes,
        "bits_per_latent_by_level": [
            8 * size / (entries * scene.latent_dim)
            for size, entries in zip(level_bytes, grid.table_sizes, strict=False)
        ],
        "prefix_bytes": ends,
        "prefix_psnr": psnr,
        "num_levels": grid.num_levels,
        "num_levels_present": scene.num_coded_levels,
        "is_cut_off": content.is_cut_off,
        "sections": [[section.tag, len(section.payload)] for section in content.sections],
        "bits_per_latent": coded_bits / max(stored, 1),
        "bits_per_reached_latent": coded_bits / max(reached, 1),
        "num_latents": stored,
        "num_reached_latents": reached,
        "num_nonzero_latents": int((scene.symbols != 0).sum()),
        "num_weights": sum(tensor.values.size for tensor in scene.weights.values()),
        "num_occupied_cells": None if scene.occupancy is None else int(scene.occupancy.sum()),
        "num_cells": None if scene.occupancy is None else scene.occupancy.size,
        "num_cameras": 0 if scene.cameras is None else len(scene.cameras.sizes),
        "resolutions": list(grid.resolutions),
        "table_sizes": list(grid.table_sizes),
        "reached_entries_by_level": content.num_reached,
        "head": content.head,
        "digest": content.head["digest"],
        "meta": dict(scene.meta),
    }


def verify(data: bytes | memoryview, *, allow_truncated: bool = False) -> None:
    """Raises SceneFormatError unless CRCs and digest hold and the encoding is the canonical one.

    Sections that may be skipped and that this version does not know are left out of the comparison.

    Args:
        allow_truncated: Accept a file that was cut off; its whole levels are checked, and its
            digest, which is of all levels, is not.
    """
    content = read_file(data, allow_truncated=allow_truncated)
    known = [section for section in content.sections if section.tag in (*ORDER, "LATN")]
    again = unpack_sections(encode_scene(content.scene, version=content.version), known=KNOWN)
    for ours, theirs in zip(again, known, strict=True):
        if content.is_cut_off and theirs.tag == "HEAD":
            continue  # it speaks of levels that are gone
        if ours.payload != theirs.payload:
            raise SceneFormatError(theirs.tag, "the canonical encoding", "another one")


def truncate(
    data: bytes | memoryview, *, max_level: int | None = None, max_bytes: int | None = None
) -> bytes:
    """A shorter file with the coarsest levels only, itself valid and canonical.

    All other sections stay as they are; only HEAD changes. ``data`` may itself be cut off.

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
            payload = encode_head(content.scene, num_levels=count, version=content.version)
        if section.tag == "LATN":
            left -= 1
            if left < 0:
                continue
        parts.append((section.tag, payload))
    return pack_sections(parts, version=content.version)
