"""How kernels are started."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, programs: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs a kernel once for each program of a grid; nothing where there is none.

    Args:
        programs: How many there are along each axis; the first varies fastest.
        constants: What the kernel is compiled for, and how.

    Raises:
        ValueError: tensors are on several devices, where a kernel would read what is not there.
    """
    if not all(programs):
        return
    devices = {argument.device for argument in arguments if isinstance(argument, Tensor)}
    if len(devices) != 1:
        raise ValueError(f"expected tensors on one device, got {sorted(map(str, devices))}")
    (device,) = devices
    # Triton launches on the current card, which need not be the one that tensors are on.
    is_cuda = device.type == "cuda"
    with torch.cuda.device(device) if is_cuda else contextlib.nullcontext():
        kernel[programs](*arguments, **constants)
