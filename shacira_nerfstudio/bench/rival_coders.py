"""Other people's coders on the integers of our files. All but xz are optional: the extra
``rivals``."""

from __future__ import annotations

import lzma
import subprocess

import numpy as np

COMPRESSORS = ("xz", "zstd")
_MAX_CODED = 1 << 20
"""Symbols that torchac gets at once: it takes some 50 bytes of tables for each."""


def compressed_bytes(name: str, data: bytes) -> int | str:
    """Length of some bytes after a general compressor, or the reason why it cannot be had."""
    if name == "xz":
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        return f"zstandard cannot be imported: {error}"
    return len(zstandard.ZstdCompressor(level=19).compress(data))


def torchac_bytes(channels: np.ndarray) -> int | str:
    """Bytes of torchac for integers [d, E], each channel under its own histogram, which is not
    counted; or the reason why it cannot be had."""
    try:
        return sum(_torchac_bytes(channel.astype(np.int32)) for channel in channels)
    except ImportError as error:
        return f"torchac cannot be imported: {error}"
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        # It compiles itself when imported.
        return f"torchac cannot be built: {' '.join(str(error).split())[:200]}"


def _torchac_bytes(symbols: np.ndarray) -> int:
    import torch
    import torchac  # pyright: ignore[reportMissingImports]

    # Its search needs sums that rise, so only symbols that occur get a slot; 2^16 wraps to 0.
    _, ranks, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    freqs = 1 + counts * ((1 << 16) - len(counts)) // len(symbols)
    freqs[counts.argmax()] += (1 << 16) - freqs.sum()
    sums = np.concatenate([[0], np.cumsum(freqs)])
    row = torch.from_numpy(sums.astype(np.uint16).view(np.int16).copy())
    total = 0
    for begin in range(0, len(ranks), _MAX_CODED):
        coded = torch.from_numpy(ranks[begin : begin + _MAX_CODED].astype(np.int16))
        rows = row.expand(len(coded), len(row)).contiguous()
        total += len(torchac.encode_int16_normalized_cdf(rows, coded))
    return total
