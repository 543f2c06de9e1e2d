"""CUDA through Triton: the kernels are compiled for the card that runs them, without nvcc."""

from __future__ import annotations

import importlib.util
import os

import torch

from shacira_nerfstudio.backends.base import Backend


def create(device: torch.device) -> Backend:
    """Runs on CUDA devices; on a CPU in Triton's interpreter, which is for tests.

    Raises:
        RuntimeError: not here; the message says why, and what to install.
    """
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(f"backend triton runs on CUDA devices, not on {device.type}")
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError(
            "backend triton needs the package triton: pip install triton (on Linux, where it comes "
            "with PyTorch) or triton-windows"
        )
    from shacira_nerfstudio.backends.triton.backend import TritonBackend

    return TritonBackend()
