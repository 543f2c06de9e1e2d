"""Compiled twins of the occupancy section's inner loops; see ``codec.compiled``."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)


@_jit
def expect(framed, cells, shifts, seen):
    """Twin of ``occupancy._expect``."""
    patterns = np.empty(len(cells), dtype=np.int64)
    freqs = np.empty(len(cells), dtype=np.int64)
    for i in range(len(cells)):
        pattern = 0
        for shift in shifts:
            pattern = pattern * 2 + framed[cells[i] + shift]
        patterns[i] = pattern
        free, occupied = seen[pattern, 0], seen[pattern, 1]
        freq = ((5 * occupied + 2) << 16) // (5 * (occupied + free) + 4)
        freqs[i] = min(max(freq, 1), 65535)
    return patterns, freqs


@_jit
def learn(patterns, bits, seen):
    """Twin of ``occupancy._learn``."""
    for i in range(len(patterns)):
        seen[patterns[i], np.int64(bits[i])] += 1
