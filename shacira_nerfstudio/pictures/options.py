"""What a user may choose about a picture, and the grid and the length of training that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from shacira_nerfstudio.compression.options import (
    BYTES_PER_KB,
    CompressionOptions,
    QuantizerOptions,
    RateOptions,
    ScheduleOptions,
)
from shacira_nerfstudio.grid import MAX_RESOLUTION, TABLE_ALIGNMENT, GridSpec
from shacira_nerfstudio.option_ranges import out_of_range, refuse
from shacira_nerfstudio.pictures.layout import PixelLayout

Quality = Literal["draft", "normal", "max"]
Choices = Literal["ours", "paper", "ngp"]

PAPER_LEVELS, PAPER_LOG2_TABLE, PAPER_RES = 24, 11, (16, 512)
"""The grid of SHACIRA's Kodak curve, whose points differ in these first two numbers (Girish et al.,
ICCV 2023, Fig. 3, and issue 2 of its repository): 16, 20 or 24 levels of 2^10, 2^11 or 2^12."""
_COARSEST = 8
"""Vertices along the longer side below which a level is too coarse to be of use."""
_ALWAYS_ENTRIES = 1 << 20
_SAFE_ENTRIES_PER_BYTE = 32
"""A file may have 2^20 entries in a level, or 64 for each of its bytes: half of that is safe."""
_REFRESH_STEPS, _MOST_REFRESHES = 200, 16
"""Code lengths are made anew after so many steps, but only about so often in a run: each time takes
as long as some dozens of steps."""
_MOST_ENTRIES = 100_000_000
"""Of a level: training takes about 30 bytes for each, and of the coarser ones for a third more."""
_EXPECTED_BPP = 0.1
"""At least, where only a weight of the rate is given."""
MAX_LOG2_TABLE = 24


@dataclass(frozen=True)
class Effort:
    """What a quality takes."""

    num_steps: int
    batch_pixels: int
    """In one step, of all pixels or of as many tiles."""
    hidden_dim: int


EFFORTS: dict[Quality, Effort] = {
    "draft": Effort(1000, 1 << 16, 16),
    "normal": Effort(5000, 1 << 16, 24),
    "max": Effort(30000, 1 << 16, 32),
}


@dataclass(frozen=True)
class PictureOptions:
    """All that compressing takes besides the pixels."""

    quality: Quality = "normal"
    rate_lambda: float = 1.0e-3
    """Weight of the rate, per bit and entry of the grid; where steering starts, if there is a
    target."""
    target_size_kb: float = 0.0
    target_bpp: float = 0.0
    """Bits per pixel of the file."""
    target_psnr: float = 0.0
    choices: Choices = "ours"
    """``paper``: grid, network and quantiser as in SHACIRA's Kodak curve; ``ngp``: a plain
    Instant-NGP of half the levels, to compare with, which no file can hold."""
    num_steps: int = 0
    """0 means what the quality takes."""
    paper_levels: int = PAPER_LEVELS
    paper_log2_table: int = PAPER_LOG2_TABLE
    backend: str = "auto"
    seed: int = 0
    RANGES: ClassVar[dict[str, str]] = {
        "rate_lambda": "[0, inf)",
        "target_size_kb": "[0, inf)",
        "target_bpp": "[0, inf)",
        "target_psnr": "[0, inf)",
        "num_steps": "[0, inf)",
        "paper_levels": "[1, 64]",
        "paper_log2_table": "[3, 24]",
        "seed": "[0, 4294967295]",
    }

    def __post_init__(self) -> None:
        refuse(out_of_range(self, self.RANGES))
        given = [n for n in ("target_size_kb", "target_bpp", "target_psnr") if getattr(self, n)]
        if len(given) > 1:
            raise ValueError(f"expected one target, got {' and '.join(given)}")

    @property
    def effort(self) -> Effort:
        effort = EFFORTS[self.quality]
        return Effort(self.num_steps or effort.num_steps, effort.batch_pixels, effort.hidden_dim)

    def target_bytes(self, layout: PixelLayout) -> float:
        """0 without a target of a size."""
        return self.target_size_kb * BYTES_PER_KB or self.target_bpp * layout.num_pixels / 8

    def compression(self, layout: PixelLayout) -> CompressionOptions:
        """The same as the compressor takes it."""
        is_paper = self.choices == "paper"
        mode = {"ours": "noise", "paper": "sga", "ngp": "none"}[self.choices]
        return CompressionOptions(
            rate_lambda=self.rate_lambda,
            target_size_kb=self.target_bytes(layout) / BYTES_PER_KB,
            target_psnr=self.target_psnr,
            quantizer=QuantizerOptions(
                mode=mode,  # pyright: ignore[reportArgumentType]
                anneal_fraction=0.9 if is_paper else 0.7,
            ),
            rate=RateOptions(
                model="learned" if is_paper else "code_lengths",
                entropy_model_layers=2 if is_paper else 1,
                shared_entropy_model=is_paper,
                sample_fraction=1.0 if is_paper else 0.125,
                refresh_steps=max(_REFRESH_STEPS, self.effort.num_steps // _MOST_REFRESHES),
            ),
            schedule=ScheduleOptions(warmup_steps=50),
        )

    def grid(self, layout: PixelLayout) -> GridSpec:
        """The paper's, or levels of half the resolution each from that of the pixels down, all of
        them dense unless they are huge."""
        if self.choices != "ours":
            low, high = PAPER_RES
            return GridSpec.create(
                num_dims=len(layout.axes),
                num_levels=self.paper_levels,
                base_res=low,
                max_res=high,
                log2_hashmap_size=self.paper_log2_table,
            )
        num_bytes = self.target_bytes(layout) or _EXPECTED_BPP * layout.num_pixels / 8
        most = min(max(_ALWAYS_ENTRIES, int(_SAFE_ENTRIES_PER_BYTE * num_bytes)), _MOST_ENTRIES)
        resolutions = [_halved(layout.axes, k) for k in range(_num_halvings(layout.axes) + 1)]
        fitting = [axes for axes in resolutions if math.prod(axes) <= most]
        resolutions = list(reversed(fitting or resolutions[-1:]))
        sizes = [
            min(1 << MAX_LOG2_TABLE, -(-math.prod(axes) // TABLE_ALIGNMENT) * TABLE_ALIGNMENT)
            for axes in resolutions
        ]
        return GridSpec(len(layout.axes), tuple(resolutions), tuple(sizes))


def _halved(axes: tuple[int, ...], times: int) -> tuple[int, ...]:
    """Vertices of a level whose cells are 2^times pixels wide.

    One more than there are cells: vertices then lie on the borders of cells, and on pixels in the
    finest level, of which each pixel reads one.
    """
    return tuple(min(-(-length // (1 << times)) + 1, MAX_RESOLUTION) for length in axes)


def _num_halvings(axes: tuple[int, ...]) -> int:
    times = 0
    while max(_halved(axes, times + 1)) >= _COARSEST:
        times += 1
    return times
