"""Compiled twins of numpy functions: modules that need numba, loaded on first use.

Whatever a section's bytes depend on is defined in numpy. A module of twins gives the same bytes and
integers faster, where numba can be imported.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def load_kernels(module: str, fast: bool | None) -> ModuleType | None:
    """A module of compiled twins, or None for plain numpy.

    Args:
        module: Its full name.
        fast: True demands it, False forbids it, None takes it where numba can be imported.
    """
    if fast is False:
        return None
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError):  # RuntimeError: numba finds no folder for its cache
        if fast:
            raise
        return None
