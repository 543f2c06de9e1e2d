"""Why every ns-* command takes seconds to start, and what we do about it.

Nerfstudio makes an object for each method that could be installed, and each of them asks
:func:`inspect.stack` who made it. For a frame whose file is not on disk, ``inspect`` walks through
all loaded modules, thousands of them; Python's import machinery is frozen, it has several frames in
that stack, and what was found is never remembered. ``inspect.modulesbyfile`` is where ``inspect``
looks first: that file names of frozen modules are in it is true, and saves the walk.
"""

from __future__ import annotations

import inspect
import sys

FROZEN = ("importlib._bootstrap", "importlib._bootstrap_external", "runpy")
"""Modules of Python that run between an import and what it loads."""


def remember_frozen_modules() -> None:
    """Tells ``inspect`` which modules the frozen files are, so that it need not search for them."""
    for name in FROZEN:
        if name in sys.modules:
            inspect.modulesbyfile.setdefault(f"<frozen {name}>", name)
