"""What differs between two scenes, in words."""

from __future__ import annotations

import numpy as np

from shacira_nerfstudio.codec.scene import PackedScene

_PLAIN = "kind architecture grid num_levels_present rendering meta prefix_psnr".split()


def compare_scenes(a: PackedScene, b: PackedScene) -> dict[str, str]:
    """What differs between two scenes, by name; empty if nothing does."""
    found: dict[str, str] = {}
    for name in _PLAIN:
        first, second = getattr(a, name), getattr(b, name)
        if first != second:
            found[name] = f"{first} and {second}"
    if a.cameras != b.cameras:
        counts = [0 if s.cameras is None else len(s.cameras.sizes) for s in (a, b)]
        found["cameras"] = f"{counts[0]} and {counts[1]} cameras, not the same"
    for name in ("symbols", "occupancy"):
        difference = _compare_arrays(getattr(a, name), getattr(b, name))
        if difference:
            found[name] = difference
    for name in sorted({*a.weights, *b.weights}):
        tensors = [scene.weights.get(name) for scene in (a, b)]
        if tensors[0] != tensors[1]:
            floats = [None if tensor is None else tensor.dequantize() for tensor in tensors]
            found[f"weights.{name}"] = _compare_arrays(*floats) or "other steps, same values"
    return found


def _compare_arrays(a: np.ndarray | None, b: np.ndarray | None) -> str:
    """In words, empty if equal."""
    if a is None or b is None:
        return "" if a is b else f"{'absent' if a is None else 'there'} in the first file only"
    if a.shape != b.shape:
        return f"shapes {list(a.shape)} and {list(b.shape)}"
    count = int((a != b).sum())
    largest = abs(a.astype(float) - b.astype(float)).max(initial=0.0)
    return f"{count:,} of {a.size:,} differ, at most by {largest:.6g}" if count else ""
