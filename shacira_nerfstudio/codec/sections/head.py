"""HEAD, which says what a file is, and the canonical form of the JSON in it and in meta."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from shacira_nerfstudio.codec.container import VERSION
from shacira_nerfstudio.codec.scene import KINDS, PackedScene
from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError
from shacira_nerfstudio.grid import GridSpec

MAX_HEAD_BYTES, MAX_META_BYTES = 1 << 16, 1 << 20


def symbols_digest(symbols: np.ndarray) -> str:
    """SHA-256 of the symbols of the levels present, as little-endian int16, entry by entry."""
    return hashlib.sha256(np.ascontiguousarray(symbols, dtype="<i2").data).hexdigest()


def canonical_json(facts: Mapping) -> bytes:
    """JSON with sorted keys, no spaces and \\u escapes: one text per content."""
    return json.dumps(_plain(facts), sort_keys=True, separators=(",", ":")).encode()


def _plain(facts: Mapping) -> dict:
    return {k: _plain(v) if isinstance(v, Mapping) else v for k, v in facts.items()}


def decode_json(payload: memoryview, section: str, max_bytes: int) -> dict:
    """Inverse of :func:`canonical_json`; anything that is not canonical is refused."""
    if len(payload) > max_bytes:
        raise SceneFormatError(section, f"at most {max_bytes} bytes", len(payload))
    try:
        facts = json.loads(bytes(payload))
        if isinstance(facts, dict) and canonical_json(facts) == payload:
            return facts
    except (ValueError, RecursionError) as error:
        raise SceneFormatError(section, "canonical JSON", error) from None
    raise SceneFormatError(section, "canonical JSON", "other JSON")


_KINDS = tuple(KINDS)
"""By their codes in HEAD."""


def encode_head(
    scene: PackedScene, *, num_levels: int | None = None, version: int = VERSION
) -> bytes:
    """HEAD of a scene, or of a file with only its first ``num_levels`` levels."""
    count = scene.num_coded_levels if num_levels is None else num_levels
    digest = symbols_digest(scene.symbols[: scene.grid.offsets[count]])
    if version > 2:
        codes = bytes([_KINDS.index(scene.kind), count])
        return codes + bytes.fromhex(digest) + canonical_json(scene.architecture)
    facts = {
        "architecture": scene.architecture,
        "digest": digest,
        "kind": scene.kind,
        "num_levels_present": count,
    }
    return canonical_json(facts | _repeated(scene.grid, scene.latent_dim))


def decode_head(
    payload: memoryview, grid: GridSpec, latent_dim: int, *, version: int = VERSION
) -> dict:
    """``architecture``, ``digest``, ``kind`` and ``num_levels_present`` of a file.

    Args:
        grid: What GRID says, and the number of channels there.
    """
    if version < 3:
        return _decode_old_head(payload, grid, latent_dim)
    reader = ByteReader(payload, "HEAD")
    kind = _KINDS[reader.byte("kind", 0, len(_KINDS) - 1)]
    num_levels_present = reader.byte("levels present", 1, grid.num_levels)
    digest = bytes(reader.take(32, "digest")).hex()
    text = reader.take(reader.num_left, "architecture")
    return {
        "architecture": decode_json(text, "HEAD", MAX_HEAD_BYTES),
        "digest": digest,
        "kind": kind,
        "num_levels_present": num_levels_present,
    }


def _repeated(grid: GridSpec, latent_dim: int) -> dict[str, int]:
    """What HEAD repeated of GRID before version 3."""
    return {
        "latent_dim": latent_dim,
        "num_dims": grid.num_dims,
        "num_entries": grid.num_entries,
        "num_levels": grid.num_levels,
    }


def _decode_old_head(payload: memoryview, grid: GridSpec, latent_dim: int) -> dict:
    """One object of JSON with all in it."""
    head = decode_json(payload, "HEAD", MAX_HEAD_BYTES)
    repeated = _repeated(grid, latent_dim)
    types = {"architecture": dict, "digest": str, "kind": str, "num_levels_present": int}
    types |= dict.fromkeys(repeated, int)
    if {key: type(value) for key, value in head.items()} != types:
        raise SceneFormatError("HEAD", f"the keys {sorted(types)}", sorted(head))
    for key, value in repeated.items():
        if head.pop(key) != value:
            raise SceneFormatError("HEAD", f"{key} {value} as in GRID", "another one")
    if not 1 <= head["num_levels_present"] <= grid.num_levels:
        raise SceneFormatError(
            "HEAD", f"1 to {grid.num_levels} levels present", head["num_levels_present"]
        )
    return head
