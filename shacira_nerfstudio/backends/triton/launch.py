"""How kernels are started."""

from __future__ import annotations

from typing import Any


def launch(kernel: Any, programs: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs a kernel once for each program of a grid; nothing where there is none.

    Args:
        programs: How many there are along each axis; the first varies fastest.
        constants: What the kernel is compiled for, and how.
    """
    if all(programs):
        kernel[programs](*arguments, **constants)
