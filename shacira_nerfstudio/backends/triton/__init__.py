"""CUDA through Triton: kernels are compiled for the card that runs them, without nvcc."""

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
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not is_interpreted:
        raise RuntimeError(f"backend triton runs on CUDA devices, not on {device.type}")
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError(
            "backend triton needs a package that comes with PyTorch on Linux alone: `pip install "
            "triton`, or `pip install triton-windows`"
        )
    from triton import __version__ as version

    if tuple(map(int, version.split(".")[:2])) < (3, 3):
        raise RuntimeError(
            f"backend triton needs triton 3.3, which comes with PyTorch 2.7, and found {version}"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("backend triton finds no CUDA device")
    from shacira_nerfstudio.backends.triton.backend import TritonBackend

    return TritonBackend(device)
