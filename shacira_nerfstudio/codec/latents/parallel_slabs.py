"""Compiled walks over a level's slabs, in threads: what ``contexts`` defines in numpy, faster.

Slabs are walked in chunks. Each thread raises features of its own to those of its chunks; the
largest of all threads are the result, which no number of threads can change.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np

_MAX_THREADS = 4
_CHUNKS_PER_THREAD = 4
"""Busy slabs lie side by side: chunks of them are dealt out in turn."""

_FEW_VERTICES = 1 << 15
"""A level of fewer is walked before a thread has begun."""

Layout = tuple[np.ndarray, int, bool]
"""Which entries the vertices of a slab have, as for ``contexts._shift``."""
Coarser = tuple[np.ndarray, int, bool, np.ndarray, int, np.ndarray, np.ndarray]
"""A coarser level, as ``kernels_numba.walk_features`` takes it."""


def walk(
    kernel: Callable[..., None], num_slabs: int, arguments: tuple, num_found: int, size: int
) -> list[np.ndarray]:
    """Runs a kernel over all slabs of a level.

    Args:
        kernel: Takes the first slab, the one after the last, ``arguments``, and uint8 [size]
            arrays that it raises.
        num_found: How many such arrays it takes.

    Returns:
        The largest that it found.
    """
    is_small = num_slabs**3 < _FEW_VERTICES
    num_threads = 1 if is_small else min(_MAX_THREADS, os.cpu_count() or 1)
    num_chunks = 1 if num_threads == 1 else num_threads * _CHUNKS_PER_THREAD
    edges = [num_slabs * chunk // num_chunks for chunk in range(num_chunks + 1)]

    def work(thread: int) -> list[np.ndarray]:
        found = [np.zeros(size, dtype=np.uint8) for _ in range(num_found)]
        for chunk in range(thread, num_chunks, num_threads):
            kernel(edges[chunk], edges[chunk + 1], *arguments, *found)
        return found

    if num_threads == 1:
        return work(0)
    with ThreadPoolExecutor(num_threads) as pool:
        by_thread = list(pool.map(work, range(num_threads)))
    return [reduce(np.maximum, found) for found in zip(*by_thread, strict=True)]
