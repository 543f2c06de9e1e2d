"""Training rays, marched and ended where they become opaque, with one wait of the host.

How many samples the march finds is known on the device alone until the end. Their buffers are as
long as experience says and a bit; where that was not enough, all is done again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from shacira_nerfstudio.backends.field_operations import FieldOperations
from shacira_nerfstudio.backends.triton.composite import num_visible
from shacira_nerfstudio.backends.triton.interpolate import look_up
from shacira_nerfstudio.backends.triton.launch import launch
from shacira_nerfstudio.backends.triton.march import SPANS, March
from shacira_nerfstudio.backends.types import FieldArrays, VisibleSamples

BLOCK = 32
"""Samples of a ray that are copied at once."""
_SLACK = 1.25
ROUNDED_TO = 1 << 14
"""Buffers of equal lengths are used again."""


@triton.jit(do_not_specialize=["stride", "stride_s", "stride_g", "stride_out"])
def _keep_kernel(
    found_ptr, outputs_ptr, info_ptr, kept_info_ptr, kept_ptr, stride, stride_s, stride_g,
    stride_out, FOUND: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0).to(tl.int64)
    begin, to = tl.load(info_ptr + ray * 2), tl.load(kept_info_ptr + ray * 2)
    count = tl.load(kept_info_ptr + ray * 2 + 1).to(tl.int32)
    row = tl.arange(0, ROWS)[:, None].to(tl.int64)
    output = row - FOUND
    for first in range(0, count, BLOCK):
        rank = first + tl.arange(0, BLOCK)[None, :]
        mask = (rank < count) & (output < OUTPUTS)
        at = begin + rank
        value = tl.load(found_ptr + row * stride + at, mask & (output < 0), 0.0)
        outputs = outputs_ptr + at * stride_s + output * stride_g
        value += tl.load(outputs, mask & (output >= 0), 0.0).to(tl.float32)
        tl.store(kept_ptr + row * stride_out + to + rank, value, mask)


@torch.no_grad()
def find_visible(
    operations: FieldOperations,
    march: March,
    field: FieldArrays,
    capacity: int,
    *,
    early_stop: float,
) -> VisibleSamples:
    """Samples of a march that light reaches, see :meth:`Backend.march_visible`. The host waits for
    their number.

    Args:
        capacity: Room for those that it found. If there are more (``num_marched``), the result is
            not to be used.
    """
    levels, channels = field.grid.num_levels, field.table.shape[1]
    num_found = SPANS + levels * channels
    found = torch.empty(num_found, capacity, device=march.info.device)
    march.write(found)
    latents = look_up(
        found[2:SPANS].t(), field.table, field.grid, field.quantizer,
        num_levels=field.num_levels, count=march.total, out=found[SPANS:],
    )  # fmt: skip
    outputs = operations.density_outputs(latents, field.weights)
    counts = num_visible(outputs, found, march.info, early_stop=early_stop)
    ends = counts.cumsum(0)
    num_marched, *totals = torch.cat([march.total, ends[-1:]]).tolist()
    info, total = torch.stack([ends - counts, counts], 1), sum(totals)
    # Rows begin at multiples of 64 bytes, for all calls alike: kernels are compiled for that.
    num_rows, room = num_found + outputs.shape[1], -(-total // 16) * 16
    kept = torch.empty(num_rows, room, device=found.device)[:, :total]
    launch(
        _keep_kernel, (len(counts),),
        found, outputs, march.info, info, kept, capacity, *outputs.stride(), room,
        FOUND=num_found, OUTPUTS=outputs.shape[1], ROWS=triton.next_power_of_2(num_rows),
        BLOCK=BLOCK, num_warps=2,
    )  # fmt: skip
    return VisibleSamples(
        t_starts=kept[0],
        t_ends=kept[1],
        positions=kept[2:SPANS].t(),
        packed_info=info,
        next_step=march.next_step,
        latents=kept[SPANS:num_found].view(levels, channels, total).permute(2, 0, 1),
        density_outputs=kept[num_found:].t(),
        num_marched=num_marched,
    )


class ExpectedSamples:
    """How many samples a march will find, by what the last ones found."""

    def __init__(self) -> None:
        self._per_ray = 0.0

    def capacity(self, march: March) -> int:
        """Room for them and some more; the first time the host waits for the number."""
        expected = self._per_ray * len(march.info) * _SLACK or int(march.total)
        return max(1, -(-int(expected) // ROUNDED_TO)) * ROUNDED_TO

    def find_visible(
        self, operations: FieldOperations, march: March, field: FieldArrays, *, early_stop: float
    ) -> VisibleSamples:
        """As the function of that name, in as much room as it takes."""
        while True:
            capacity = self.capacity(march)
            found = find_visible(operations, march, field, capacity, early_stop=early_stop)
            self._per_ray = found.num_marched / max(1, len(march.info))
            if found.num_marched <= capacity:
                return found
