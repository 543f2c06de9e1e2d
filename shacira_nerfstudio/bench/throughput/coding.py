"""Whole files through the codec, beside the codec in plain numpy, which defines the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shacira_nerfstudio.bench.throughput.timing import (
    Row,
    Side,
    Timed,
    WrongResultError,
    interleave,
    rate_row,
)
from shacira_nerfstudio.codec import decode_scene, encode_scene


def scene_row(name: str, data: bytes, repeats: int) -> Row:
    """``encode_scene`` or ``decode_scene``: a whole file, models, contexts and checks included."""
    scene = decode_scene(data)
    runs: dict[str, Callable[[bool], Any]] = {
        "encode_scene": lambda fast: encode_scene(scene, fast=fast),
        "decode_scene": lambda fast: decode_scene(data, fast=fast),
    }
    run = runs[name]
    # Latents of all levels that the file has; those that nothing reaches cost time as well.
    count = scene.grid.offsets[scene.num_coded_levels] * scene.latent_dim
    if run(True) != run(False):
        raise WrongResultError(f"{name}: differs from the codec in plain numpy")

    def figures(timed: dict[str, Timed]) -> dict[str, Any]:
        seconds = timed["ours"].median
        plain = interleave({"numpy": Side(lambda: run(False), "plain numpy", 1, 1, count)}, 1)
        return {
            "ours_s": seconds,
            "file_mb_per_s": len(data) / 1e6 / seconds,
            "numpy_s": plain["numpy"].median,
        }

    return rate_row(
        name,
        "latents/s",
        Side(lambda: run(True), name, torch_threads=1, threads=1, work=count),
        None,
        no_rival="one file format, one codec: nothing else reads or writes it",
        repeats=repeats,
        check={name: {"because": "bytes and integers are equal, not close"}},
        sizes={
            "file_bytes": len(data),
            "num_latents": count,
            "num_entries": scene.grid.num_entries,
        },
        backend="numba",
        more=figures,
    )
