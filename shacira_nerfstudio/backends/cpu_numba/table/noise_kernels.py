"""Quantisation noise, see :func:`shacira_nerfstudio.backends.sparse_rows.noise_at`.

The noise of an element depends on a seed and its index alone, so threads need no state of their own
and results do not depend on their number.
"""

from __future__ import annotations

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FUSED

_TO_UNIT, _HALF = np.float32(2.0**-24), np.float32(0.5)


@numba.njit(inline="always", **FUSED)
def noise_at(index, seed):
    """See :func:`sparse_rows.noise_at`; both uint32."""
    # Products and shifts of uint32 are uint64 to numba: each step is cut to 32 bits again.
    x = np.uint32(index ^ seed)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    x = np.uint32(x ^ (x >> np.uint32(16)))
    return np.float32(np.int32(x >> np.uint32(8))) * _TO_UNIT - _HALF


@numba.njit(**FUSED)
def add_noise(table, first, seed, out, begin, end):
    """out[i] = table[i] + noise of element first + i, for i in begin:end, both flat float32."""
    for i in range(begin, end):
        out[i] = table[i] + noise_at(np.uint32(first + i), seed)
