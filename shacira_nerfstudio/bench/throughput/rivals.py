"""Other people's coders, behind one seam. All are optional: the extra ``rivals``.

All get the same symbols and the same static frequencies; what they need besides, such as a table
per symbol, is made before the clock runs.
"""

from __future__ import annotations

import lzma
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

COMPRESSORS = ("xz", "zstd")
CODERS = ("constriction", "torchac")
MAX_CODED = 1 << 20
"""Symbols that a coder gets at once: torchac takes some 50 bytes of tables for each."""


@dataclass(frozen=True)
class RivalCoder:
    """An entropy coder that was given its symbols' frequencies."""

    name: str
    encode: Callable[[], bytes]
    decode: Callable[[bytes], np.ndarray]
    """Letters from 0 on."""


def load_coder(
    name: str, letters: np.ndarray, freqs: np.ndarray, precision: int
) -> RivalCoder | str:
    """A coder made ready for some letters, or the reason why it cannot be had.

    Args:
        letters: int32 [n], from 0 on.
        freqs: Integers that sum to 2^precision; those of letters that occur are above 0.
    """
    make = {"constriction": _constriction, "torchac": _torchac}[name]
    try:
        return make(letters, freqs, precision)
    except ImportError as error:
        return f"{name} cannot be imported: {error}"
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        # It compiles itself when imported.
        return f"{name} cannot be built: {' '.join(str(error).split())[:200]}"


def _constriction(letters: np.ndarray, freqs: np.ndarray, precision: int) -> RivalCoder:
    import constriction

    stream = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]
    ans = stream.stack.AnsCoder
    symbols = letters.astype(np.int32)
    probabilities = freqs.astype(np.float64) / (1 << precision)
    model = stream.model.Categorical(probabilities, perfect=False)

    def encode() -> bytes:
        coder = ans()
        coder.encode_reverse(symbols, model)
        return coder.get_compressed().astype("<u4").tobytes()

    def decode(data: bytes) -> np.ndarray:
        return ans(np.frombuffer(data, "<u4").astype(np.uint32)).decode(model, len(symbols))

    return RivalCoder("constriction.AnsCoder, Categorical", encode, decode)


def _torchac(letters: np.ndarray, freqs: np.ndarray, precision: int) -> RivalCoder:
    import torch
    import torchac  # pyright: ignore[reportMissingImports]

    # A row of 16-bit sums for each symbol is what its interface takes, so making the rows is part
    # of coding integers with it; 2^16 wraps to 0. Its search needs sums that rise, so letters that
    # do not occur are taken out.
    occurring = np.flatnonzero(freqs)
    rank = np.cumsum(freqs > 0) - 1
    sums = np.concatenate([[0], np.cumsum(freqs[occurring].astype(np.int64))]) << (16 - precision)
    row = torch.from_numpy(sums.astype(np.uint16).view(np.int16).copy())
    rank = rank.astype(np.int16)

    def rows() -> torch.Tensor:
        return row.expand(len(letters), len(row)).contiguous()

    def encode() -> bytes:
        symbols = torch.from_numpy(rank[letters])
        return torchac.encode_int16_normalized_cdf(rows(), symbols)

    def decode(data: bytes) -> np.ndarray:
        return occurring[torchac.decode_int16_normalized_cdf(rows(), data).numpy()]

    return RivalCoder("torchac, with its CDF rows, one per symbol", encode, decode)


def compressed_bytes(name: str, data: bytes) -> int | str:
    """Length of some bytes after a general compressor, or the reason why it cannot be had."""
    if name == "xz":
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        return f"zstandard cannot be imported: {error}"
    return len(zstandard.ZstdCompressor(level=19).compress(data))


def torchac_bytes(planes: np.ndarray) -> int | str:
    """Bytes of torchac for integers [d, E], each channel under its own histogram, which is not
    counted; or the reason why it cannot be had."""
    total = 0
    for channel in planes:
        letters = channel.astype(np.int32) - int(channel.min())
        counts = np.bincount(letters)
        room = (1 << 16) - np.count_nonzero(counts)
        freqs = (counts > 0) + counts * room // len(letters)
        freqs[counts.argmax()] += (1 << 16) - freqs.sum()
        for begin in range(0, len(letters), MAX_CODED):
            coder = load_coder("torchac", letters[begin : begin + MAX_CODED], freqs, 16)
            if isinstance(coder, str):
                return coder
            total += len(coder.encode())
    return total
