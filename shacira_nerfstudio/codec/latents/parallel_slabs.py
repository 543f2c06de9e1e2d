"""Compiled features of a level's slabs, in threads.

Slabs are taken in chunks. Each thread raises features of its own to those of its chunks; the
largest of all threads are the result, which no number of threads can change.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from math import prod

import numpy as np

from shacira_nerfstudio.codec.latents.level_slabs import SlabLayout

_MAX_THREADS = 4
_CHUNKS_PER_THREAD = 4
"""Busy slabs lie side by side: chunks of them are dealt out in turn."""

_FEW_VERTICES = 1 << 15
"""A level of fewer is done before a thread has begun."""


def scatter_over_slabs(
    kernel: Callable[..., None], layout: SlabLayout, arguments: tuple, num_features: int
) -> list[np.ndarray]:
    """Runs a kernel over all slabs of a level.

    Args:
        kernel: Takes the first slab, the one after the last, ``arguments``, and ``num_features``
            arrays, uint8 [T], which it raises to what it finds in these slabs.

    Returns:
        These arrays for all slabs.
    """
    num_slabs = layout.num_vertices[0]
    is_small = prod(layout.num_vertices) < _FEW_VERTICES
    num_threads = 1 if is_small else min(_MAX_THREADS, os.cpu_count() or 1)
    num_chunks = 1 if num_threads == 1 else num_threads * _CHUNKS_PER_THREAD
    edges = [num_slabs * chunk // num_chunks for chunk in range(num_chunks + 1)]

    def work(thread: int) -> list[np.ndarray]:
        features = [np.zeros(layout.size, dtype=np.uint8) for _ in range(num_features)]
        for chunk in range(thread, num_chunks, num_threads):
            kernel(edges[chunk], edges[chunk + 1], *arguments, *features)
        return features

    if num_threads == 1:
        return work(0)
    with ThreadPoolExecutor(num_threads) as pool:
        by_thread = list(pool.map(work, range(num_threads)))
    return [reduce(np.maximum, features) for features in zip(*by_thread, strict=True)]
