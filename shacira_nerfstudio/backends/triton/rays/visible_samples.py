"""Training rays, marched and ended where they become opaque.

How many samples the march finds, and how many of them light reaches, is known on the device alone.
Buffers are as long as experience says and a bit. Who waits for the numbers gets buffers of the
right length, and all is done again where they were too short. Training does not wait: its samples
are padded, and rays for which there was no room do not count in its loss.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from shacira_nerfstudio.backends.field_operations import FieldOperations
from shacira_nerfstudio.backends.late_numbers import LateNumbers
from shacira_nerfstudio.backends.triton.launch import launch
from shacira_nerfstudio.backends.triton.rays.composite import num_visible
from shacira_nerfstudio.backends.triton.rays.march import SPANS, March
from shacira_nerfstudio.backends.triton.table.interpolate import look_up
from shacira_nerfstudio.backends.types import FieldArrays, VisibleSamples

BLOCK = 32
"""Samples of a ray that are copied at once."""
_SLACK = 1.25
_VISIBLE_SLACK = 1.1
"""Both networks compute padding as well. With the thousands of rays of a batch the number of their
samples is within some percent."""
ROUNDED_TO = 1 << 14
"""Buffers of equal lengths are used again."""


@triton.jit(do_not_specialize=["stride", "stride_s", "stride_g", "stride_out"])
def _keep_kernel(
    found_ptr, outputs_ptr, info_ptr, kept_info_ptr, kept_ptr, rays_ptr, stride, stride_s,
    stride_g, stride_out, FOUND: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr,
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
        tl.store(rays_ptr + to + rank, ray + tl.zeros_like(rank).to(tl.int64), rank < count)


@torch.no_grad()
def find_visible(
    operations: FieldOperations,
    march: March,
    field: FieldArrays,
    capacity: int,
    *,
    early_stop: float,
    room: int | None = None,
) -> VisibleSamples:
    """Samples of a march that light reaches, see :meth:`Backend.march_visible`.

    Args:
        capacity: Room for those that it found. If there are more (``num_marched``), the result is
            not to be used, unless there is a ``room``.
        room: Room for those that light reaches, see :meth:`Backend.sample_training_rays`. None
            makes the host wait for their number.
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
    info, next_step, late = torch.stack([ends - counts, counts], 1), march.next_step, None
    if room is None:
        num_marched, *totals = torch.cat([march.total, ends[-1:]]).tolist()
        total = sum(totals)
    else:
        total, num_marched, info = room, march.total[0], info.clamp_max(room)
        late = ends[-1:].sum()
        info[:, 1] = ends.clamp_max(room) - info[:, 0]
        fits = (march.info.sum(1) <= capacity) & (ends <= room)
        next_step = torch.where(fits, next_step, next_step.clamp_min(0))
    # Rows begin at multiples of 64 bytes, for all calls alike: kernels are compiled for that.
    num_rows, stride = num_found + outputs.shape[1], -(-total // 16) * 16
    kept = torch.zeros(num_rows, stride, device=found.device)[:, :total]
    ray_indices = torch.zeros(total, dtype=torch.long, device=found.device)
    launch(
        _keep_kernel, (len(counts),),
        found, outputs, march.info, info, kept, ray_indices, capacity, *outputs.stride(), stride,
        FOUND=num_found, OUTPUTS=outputs.shape[1], ROWS=triton.next_power_of_2(num_rows),
        BLOCK=BLOCK, num_warps=2,
    )  # fmt: skip
    return VisibleSamples(
        t_starts=kept[0],
        t_ends=kept[1],
        positions=kept[2:SPANS].t(),
        packed_info=info,
        next_step=next_step,
        latents=kept[SPANS:num_found].view(levels, channels, total).permute(2, 0, 1),
        density_outputs=kept[num_found:].t(),
        num_marched=num_marched,
        num_known_late=late,
        rays=ray_indices,
    )


class ExpectedSamples:
    """How many samples a march will find, by what the last ones found."""

    def __init__(self) -> None:
        self._per_ray = 0.0

    def capacity(self, march: March) -> int:
        """Room for them and some more; the first time the host waits for the number."""
        expected = self._per_ray * len(march.info) * _SLACK or int(march.total)
        return _rounded(expected)

    def find_visible(
        self, operations: FieldOperations, march: March, field: FieldArrays, *, early_stop: float
    ) -> VisibleSamples:
        """As the function of that name, in as much room as it takes."""
        while True:
            capacity = self.capacity(march)
            found = find_visible(operations, march, field, capacity, early_stop=early_stop)
            num_marched = int(found.num_marched)
            self._per_ray = num_marched / max(1, len(march.info))
            if num_marched <= capacity:
                return found


class TrainingSamples:
    """The same for the steps of a training, of which only the first one is waited for."""

    def __init__(self) -> None:
        self._late = LateNumbers()
        self._per_ray: list[float] | None = None
        """Samples of a ray, marched and visible, in the step before last."""

    def find_visible(
        self, operations: FieldOperations, march: March, field: FieldArrays, *, early_stop: float
    ) -> VisibleSamples:
        """See :meth:`Backend.sample_training_rays`."""
        num_rays, numbers = max(1, len(march.info)), self._late.take()
        if numbers is not None:
            (num_marched, num_visible), of_rays = numbers
            self._per_ray = [num_marched / of_rays, num_visible / of_rays]
        if self._per_ray is None:
            capacity = _rounded(int(march.total))
            found = find_visible(operations, march, field, capacity, early_stop=early_stop)
            numbers = int(found.num_marched), len(found.t_starts)
            self._per_ray = [number / num_rays for number in numbers]
            return found
        marched, visible = (per_ray * num_rays for per_ray in self._per_ray)
        capacity = _rounded(marched * _SLACK)
        room = min(capacity, _rounded(visible * _VISIBLE_SLACK))
        found = find_visible(operations, march, field, capacity, early_stop=early_stop, room=room)
        assert found.num_known_late is not None
        self._late.put(torch.stack([march.total[0], found.num_known_late]), num_rays)
        return found


def _rounded(count: float) -> int:
    """Of buffers."""
    return max(1, -(-int(count) // ROUNDED_TO)) * ROUNDED_TO
