"""How numba compiles the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

EXACT: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
"""Arithmetic as it is written, for parity with `reference`."""
FUSED: dict[str, Any] = {**EXACT, "fastmath": {"contract", "nsz", "arcp"}}
"""Multiplications and additions may be fused, divisions become products with the inverse."""
FAST: dict[str, Any] = {**EXACT, "fastmath": True}
"""Sums in any order as well, which lets the compiler make vectors of them."""
INT_ZERO = np.int64(0)
"""Where counters begin that are handed on: for a plain 0 numba compiles whatever takes it twice,
for that number and for any."""
