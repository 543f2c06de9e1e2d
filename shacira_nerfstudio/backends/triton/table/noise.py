"""What a look-up makes of rows of the table, see :class:`TableQuantizer`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shacira_nerfstudio.backends.sparse_rows import TableQuantizer
from shacira_nerfstudio.backends.triton.launch import launch
from shacira_nerfstudio.backends.triton.table.levels import check_size

BLOCK = 1024


@triton.jit
def noise_at(index, seed):
    """As ``sparse_rows.noise_at``: the same bits.

    Args:
        index: uint32.
        seed: int32, the bits of the seed.
    """
    x = index ^ seed.to(tl.uint32, bitcast=True)
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    x = x ^ (x >> 16)
    return (x >> 8).to(tl.float32) * 5.9604644775390625e-08 - 0.5  # 2^-24


@triton.jit
def quantized(value, index, seed, MODE: tl.constexpr):
    """float32 values as a look-up reads them.

    Args:
        index: Of each value in the whole table, uint32.
    """
    if MODE == "noise":
        return value + noise_at(index, seed)
    elif MODE == "round":
        # Adding 1.5 * 2^23 leaves no bits for a fraction: to nearest, and ties to even.
        nearest = (value + 12582912.0) - 12582912.0
        return tl.where(tl.abs(value) < 4194304.0, nearest, value)
    else:
        return value


def int32_bits(seed: int) -> int:
    """The int32 with the bits of a seed below 2^32: kernels are compiled for one type."""
    return seed - (seed >> 31 << 32)


@triton.jit(do_not_specialize=["seed", "count"])
def _quantize_kernel(table_ptr, out_ptr, seed, count, MODE: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    value = tl.load(table_ptr + index, mask=mask, other=0.0)
    value = quantized(value, index.to(tl.uint32), seed, MODE)
    tl.store(out_ptr + index, value, mask=mask)


def quantize(table: Tensor, quantizer: TableQuantizer) -> Tensor:
    """See :meth:`Backend.quantize`; float32."""
    table = table.detach().contiguous()
    if quantizer.mode == "none":
        return table
    check_size(*table.shape)
    out, count = torch.empty_like(table), table.numel()
    launch(
        _quantize_kernel, (triton.cdiv(count, BLOCK),),
        table, out, int32_bits(quantizer.seed), count, MODE=quantizer.mode, BLOCK=BLOCK,
    )  # fmt: skip
    return out
