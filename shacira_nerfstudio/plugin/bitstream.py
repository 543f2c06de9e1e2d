"""A file's bytes as what a checkpoint holds instead of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

KEY = "bitstream"
"""Name of the bytes in a model's state dict."""


def as_state_dict(data: bytes) -> dict[str, Tensor]:
    """A state dict that holds a file, uint8 [N]."""
    return {KEY: torch.frombuffer(bytearray(data), dtype=torch.uint8)}


def from_state_dict(state_dict: Mapping[str, Any]) -> bytes:
    """The file that :func:`as_state_dict` put there.

    Raises:
        ValueError: there is something else. Never a RuntimeError: the host would then try once
            more with missing keys allowed.
    """
    others = sorted(set(state_dict) - {KEY})
    if others:
        raise ValueError(f"expected nothing beside {KEY!r} in the state dict, got {others[:4]}")
    bits = state_dict[KEY]
    if not isinstance(bits, Tensor) or bits.dtype != torch.uint8 or bits.ndim != 1:
        kind = (bits.dtype, tuple(bits.shape)) if isinstance(bits, Tensor) else type(bits)
        raise ValueError(f"expected {KEY!r} as a uint8 tensor [N], got {kind}")
    return bits.cpu().numpy().tobytes()
