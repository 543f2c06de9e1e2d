"""Whole files through the codec, beside the codec in plain numpy, which defines the bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from shacira_nerfstudio.bench.throughput.timing import Row, Side, Timed, WrongResultError, rate_row
from shacira_nerfstudio.codec import decode_scene, encode_scene

_NUMPY_REPEATS = 3


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
        seconds = timed["ours"].times.median
        rate = len(data) / 1e6 / seconds
        return {"ours_s": seconds, "file_mb_per_s": rate, "numpy_s": _seconds_in_numpy(run)}

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


def _seconds_in_numpy(run: Callable[[bool], Any]) -> float:
    """The best of a few runs without numba, which machines without it have to wait."""
    times = []
    for _ in range(_NUMPY_REPEATS):
        begin = time.perf_counter()
        run(False)
        times.append(time.perf_counter() - begin)
    return min(times)
