"""The JSON sections: HEAD, which people and tools read first, and the canonical form of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from shacira_nerfstudio.codec.packed_scene import PackedScene
from shacira_nerfstudio.codec.wire import SceneFormatError
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


def encode_head(scene: PackedScene) -> bytes:
    grid = scene.grid
    end = grid.offsets[scene.num_coded_levels]
    return canonical_json(
        {
            "architecture": scene.architecture,
            "digest": symbols_digest(scene.symbols[:end]),
            "kind": scene.kind,
            "latent_dim": scene.latent_dim,
            "num_dims": grid.num_dims,
            "num_entries": grid.num_entries,
            "num_levels": grid.num_levels,
            "num_levels_present": scene.num_coded_levels,
        }
    )


def decode_head(payload: memoryview) -> dict:
    head = decode_json(payload, "HEAD", MAX_HEAD_BYTES)
    types = {
        "architecture": dict,
        "digest": str,
        "kind": str,
        "latent_dim": int,
        "num_dims": int,
        "num_entries": int,
        "num_levels": int,
        "num_levels_present": int,
    }
    if {key: type(value) for key, value in head.items()} != types:
        raise SceneFormatError("HEAD", f"the keys {sorted(types)}", sorted(head))
    return head


def check_head(head: dict, grid: GridSpec, latent_dim: int) -> None:
    """HEAD repeats GRID for people; both must say the same."""
    facts = {
        "latent_dim": latent_dim,
        "num_dims": grid.num_dims,
        "num_entries": grid.num_entries,
        "num_levels": grid.num_levels,
    }
    for key, value in facts.items():
        if head[key] != value:
            raise SceneFormatError("HEAD", f"{key} {value} as in GRID", head[key])
    if not 1 <= head["num_levels_present"] <= grid.num_levels:
        raise SceneFormatError(
            "HEAD", f"1 to {grid.num_levels} levels present", head["num_levels_present"]
        )
