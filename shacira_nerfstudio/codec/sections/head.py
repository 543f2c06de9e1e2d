"""HEAD, which says what a file is, and the canonical form of the JSON in it and in meta."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError
from shacira_nerfstudio.codec.scene import KINDS, PackedScene
from shacira_nerfstudio.grid import MAX_NUM_LEVELS

MAX_ARCHITECTURE_BYTES, MAX_META_BYTES = 1 << 16, 1 << 20

_KINDS = tuple(KINDS)
"""By their codes in HEAD."""


def symbols_digest(symbols: np.ndarray) -> str:
    """SHA-256 of the symbols of the levels present, as little-endian int16, entry by entry."""
    return hashlib.sha256(np.ascontiguousarray(symbols, dtype="<i2").data).hexdigest()


def canonical_json(metadata: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys, no spaces and \\u escapes: one text per content."""
    return json.dumps(dict(metadata), sort_keys=True, separators=(",", ":")).encode()


def decode_json(payload: memoryview, section: str, max_bytes: int) -> dict[str, Any]:
    """Inverse of :func:`canonical_json`; anything that is not canonical is refused."""
    if len(payload) > max_bytes:
        raise SceneFormatError(section, f"at most {max_bytes} bytes", len(payload))
    try:
        metadata = json.loads(bytes(payload))
        if isinstance(metadata, dict) and canonical_json(metadata) == payload:
            return metadata
    except (ValueError, RecursionError) as error:
        raise SceneFormatError(section, "canonical JSON", error) from None
    raise SceneFormatError(section, "canonical JSON", "other JSON")


def encode_head(scene: PackedScene, *, num_levels: int | None = None) -> bytes:
    """HEAD of a scene, or of a file with only its first ``num_levels`` levels."""
    count = scene.num_coded_levels if num_levels is None else num_levels
    digest = symbols_digest(scene.symbols[: scene.grid.offsets[count]])
    codes = bytes([_KINDS.index(scene.kind), count])
    return codes + bytes.fromhex(digest) + canonical_json(scene.architecture)


def decode_head(payload: memoryview) -> dict[str, Any]:
    """``kind``, ``num_levels_present``, ``digest`` and ``architecture`` of a file."""
    reader = ByteReader(payload, "HEAD")
    kind = _KINDS[reader.byte("kind", 0, len(_KINDS) - 1)]
    num_levels_present = reader.byte("levels present", 1, MAX_NUM_LEVELS)
    digest = bytes(reader.take(32, "digest")).hex()
    text = reader.take(reader.num_left, "architecture")
    return {
        "kind": kind,
        "num_levels_present": num_levels_present,
        "digest": digest,
        "architecture": decode_json(text, "HEAD", MAX_ARCHITECTURE_BYTES),
    }
