"""What the panel says about a run while it trains, and about a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from shacira_nerfstudio.compression.compressor import Compressor

NUM_BATCHES = 32
"""Training batches whose PSNR is averaged: single ones scatter by decibels."""
_PREFIX = "estimated_bytes_"


class TrainingProgress:
    """Keeps the last metrics; nothing waits for a GPU until somebody looks."""

    def __init__(self) -> None:
        self._psnrs: deque[Tensor] = deque(maxlen=NUM_BATCHES)
        self._bytes: dict[str, Tensor | int] = {}

    def note(self, metrics: Mapping[str, Any]) -> None:
        """To be called in each training step."""
        self._psnrs.append(metrics["psnr"])
        parts = {k.removeprefix(_PREFIX): v for k, v in metrics.items() if k.startswith(_PREFIX)}
        self._bytes = parts or self._bytes  # a step without a rate has no estimate

    def text(self, compressor: Compressor, step: int) -> str:
        """In Markdown."""
        lines = [f"**Step {step:,}**"]
        if self._psnrs:
            psnr = torch.stack(list(self._psnrs)).mean().item()
            lines.append(f"PSNR of the last {len(self._psnrs)} batches: **{psnr:.2f} dB**")
        encoding = compressor.encoding
        if encoding.is_quantized:
            how = f"latents train with {encoding.quantizer.name}"
            lines.append(f"lambda {compressor.rate_lambda:.3g}, {how}")
        else:
            lines.append("latents are continuous: no file can be made of them")
        if self._bytes:
            parts = {name: int(value) for name, value in self._bytes.items()}
            lines += byte_lines("File, estimated", parts)
        return "  \n".join(lines)


def byte_lines(title: str, parts: Mapping[str, int]) -> list[str]:
    """A sum, and what it is the sum of, largest part first."""
    by_size = sorted(parts.items(), key=lambda item: -item[1])
    listing = ", ".join(f"{name} {count:,}" for name, count in by_size if count)
    return [f"{title}: **{sum(parts.values()):,} bytes**", listing]
