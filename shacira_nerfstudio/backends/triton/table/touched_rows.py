"""Which rows of a table have a gradient, see :class:`SparseRowGradient`.

Found by a pass over the gradient once it is there, which on a GPU costs less than to mark rows when
they are added to.
"""

from __future__ import annotations

import triton
import triton.language as tl

from shacira_nerfstudio.backends.sparse_rows import SparseRowGradient
from shacira_nerfstudio.backends.triton.launch import launch

BYTES = 128
"""Of the marks, that a program writes: one stands for eight rows."""


@triton.jit(do_not_specialize=["num_rows"])
def _mark_kernel(grad_ptr, touched_ptr, num_rows, C: tl.constexpr, BYTES: tl.constexpr):
    byte = tl.program_id(0) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)[None, :]
    row = byte[:, None] * 8 + bit
    is_touched = row < 0
    for channel in tl.static_range(C):  # pyright: ignore
        value = tl.load(grad_ptr + row.to(tl.int64) * C + channel, row < num_rows, 0.0)
        is_touched = is_touched | (value != 0.0)
    marks = tl.sum(is_touched.to(tl.int32) << bit, 1)
    mask = byte * 8 < num_rows
    marks = marks | tl.load(touched_ptr + byte, mask, 0).to(tl.int32)
    tl.store(touched_ptr + byte, marks.to(tl.uint8), mask)


def mark_touched(gradient: SparseRowGradient) -> None:
    """Marks all rows that are not 0 throughout."""
    rows, channels = gradient.values.shape
    launch(
        _mark_kernel, (triton.cdiv(rows, 8 * BYTES),), gradient.values, gradient.touched, rows,
        C=channels, BYTES=BYTES,
    )  # fmt: skip
