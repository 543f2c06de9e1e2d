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
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class TableQuantizer:
    """What a look-up makes of the rows of a table. The gradient is that of the identity."""

    mode: Literal["none", "round", "noise"] = "none"
    """``round`` takes the nearest integer, ``noise`` adds uniform noise in [-0.5, 0.5)."""
    seed: int = 0
    """Of the noise, 0 to 2^32 - 1. What is added to channel c of row e depends on the seed and on
    e C + c alone, so that no pass over the table is needed and no state is kept."""


IDENTITY = TableQuantizer()


def noise_at(index: Int[Tensor, "*N"], seed: int) -> Float[Tensor, "*N"]:
    """Uniform noise in [-0.5, 0.5), multiples of 2^-24, float32.

    A counter-based generator: 32 bits are mixed twice by shifts and odd multipliers (the constants
    are those that Wellons's search for unbiased 32-bit mixers found, "lowbias32", 2018).

    Args:
        index: int64, below 2^32.
        seed: 0 to 2^32 - 1.
    """
    x = (index ^ seed) & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    x = x ^ (x >> 16)
    return (x >> 8).float() * 2.0**-24 - 0.5


def quantize(table: Float[Tensor, "E C"], quantizer: TableQuantizer) -> Float[Tensor, "E C"]:
    """The whole table as look-ups read it. No gradient."""
    table = table.detach()
    if quantizer.mode == "round":
        return table.round()
    if quantizer.mode == "noise":
        index = torch.arange(table.numel(), device=table.device).view(table.shape)
        return table + noise_at(index, quantizer.seed).to(table)
    return table


class SparseRowGradient:
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
    def zeros(
        cls, num_rows: int, num_channels: int, *, device: torch.device | str = "cpu"
    ) -> SparseRowGradient:
        """Nothing touched."""
        touched = torch.zeros(-(-num_rows // 8), dtype=torch.uint8, device=device)
        return cls(torch.zeros(num_rows, num_channels, device=device), touched)

    @classmethod
    def of(cls, grad: Float[Tensor, "E C"]) -> SparseRowGradient:
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
        # On a CPU a look at the marks often saves a pass over the table; a GPU is not waited for,
        # and all of the table is what it clears fastest.
        if self.touched.device.type != "cpu":
            self.values.zero_()
        elif self.touched.any():
            self.values.masked_fill_(self.touched_rows()[:, None], 0)
        self.touched.zero_()


@dataclass(frozen=True)
class AdamState:
    """What Adam keeps of a table."""

    moments: Float[Tensor, "E 2 C"]
    """First and second moment side by side: a row that is updated takes one cache line."""
    num_updates: Int[Tensor, " E"]
    """int16; how often each row was updated."""


@torch.no_grad()
def update_rows(
    parameter: Float[Tensor, "E C"],
    gradient: SparseRowGradient,
    state: AdamState,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """See :meth:`Backend.update_rows`."""
    rows = gradient.touched_rows().to(parameter.device).nonzero()[:, 0]
    grad = gradient.values[rows].to(parameter)
    largest = torch.iinfo(torch.int16).max
    updates = (state.num_updates[rows].int() + 1).clamp_max(largest)
    state.num_updates[rows] = updates.to(torch.int16)
    powers = updates.to(torch.float64)[:, None]
    corrections = [(1 - beta**powers).to(grad) for beta in betas]
    mean, square = state.moments[rows].unbind(1)
    mean, square = mean.lerp(grad, 1 - betas[0]), square.lerp(grad * grad, 1 - betas[1])
    state.moments[rows] = torch.stack([mean, square], 1)
    step = mean / corrections[0] / ((square / corrections[1]).sqrt() + eps)
    parameter[rows] = parameter[rows] * (1 - lr * weight_decay) - lr * step
    gradient.clear()
