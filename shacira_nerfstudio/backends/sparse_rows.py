"""Rows of a table: how a look-up reads them, what a step writes to them.

Training touches few rows of a large table. Nothing here makes a pass over all of it: noise follows
from a counter, gradients say which rows they touched, and Adam follows those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

RATE_BLOCK = 16
"""Rows that are rated together: one cache line of single-precision numbers."""


@dataclass(frozen=True)
class Quantizer:
    """What a look-up makes of the rows of a table. The gradient is that of the identity."""

    mode: Literal["none", "round", "noise"] = "none"
    """``round`` takes the nearest integer, ``noise`` adds uniform noise in [-0.5, 0.5)."""
    seed: int = 0
    """Of the noise, 0 to 2^32 - 1. What is added to channel c of row e depends on the seed and on
    e C + c alone, so that no pass over the table is needed and no state is kept."""


PLAIN = Quantizer()


class RowGradient:
    """The gradient of a table of which a step touches few rows.

    An array of the table's size, made once and zero but for the rows that were touched since it
    was cleared, and one bit for each row: what is done with it can follow the samples of a step
    instead of the size of the table.
    """

    def __init__(self, values: Float[Tensor, "E C"], touched: UInt8[Tensor, " B"]) -> None:
        self.values = values
        self.touched = touched
        """Bit i of byte b stands for row 8 b + i."""

    @classmethod
    def zeros(cls, num_rows: int, num_channels: int) -> RowGradient:
        """Nothing touched."""
        touched = torch.zeros(-(-num_rows // 8), dtype=torch.uint8)
        return cls(torch.zeros(num_rows, num_channels), touched)

    @classmethod
    def of(cls, grad: Float[Tensor, "E C"]) -> RowGradient:
        """An ordinary gradient; rows that are not 0 throughout count as touched."""
        is_touched = F.pad((grad != 0).any(1), (0, -len(grad) % 8)).view(-1, 8)
        bits = torch.arange(8, device=grad.device, dtype=torch.uint8)
        return cls(grad, (is_touched << bits).sum(1).to(torch.uint8))

    def touched_rows(self) -> Bool[Tensor, " E"]:
        """Which rows were touched."""
        bits = torch.arange(8, device=self.touched.device, dtype=torch.uint8)
        marks = self.touched[:, None] >> bits & 1
        return marks.view(-1)[: len(self.values)].bool()

    def touch_all(self) -> None:
        """For a step whose gradient comes from elsewhere."""
        self.touched.fill_(255)

    def clear(self) -> None:
        """Zeroes the rows that were touched."""
        if bool(self.touched.any()):
            self.values[self.touched_rows()] = 0
            self.touched.zero_()


@dataclass(frozen=True)
class AdamState:
    """What Adam keeps of a table."""

    moments: Float[Tensor, "E 2 C"]
    """First and second moment side by side: a row that is updated takes one cache line."""
    num_updates: Int[Tensor, " E"]
    """int16; how often each row was updated."""
