"""Samples along rays: a pass that counts, a running sum, a pass that writes.

A warp takes a ray and looks at as many of its steps at once as it has lanes for. Empty space costs
so little that way that nothing is skipped but, on straight rays, what lies outside of the bounds of
all occupied cells. In double precision, with the formulas of `reference`: the samples of both
differ only where a position lies within rounding of the border of a cell.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from shacira_nerfstudio.backends.geometry import constant
from shacira_nerfstudio.backends.triton.launch import launch
from shacira_nerfstudio.backends.types import MAX_LOG2_STRIDE, MarchSettings, Samples

STEPS = 64
"""That a warp looks at at once."""
SPANS = 5
"""Rows that samples are written to: starts, ends, positions."""
_NEVER = 2**31 - 1


@triton.jit
def _spacing(t, knee, KNEE: tl.constexpr):
    if KNEE:
        return tl.where(t <= knee, t, knee * (2 - knee / tl.maximum(t, knee)))
    else:
        return t


@triton.jit
def _spacing_inverse(u, knee, least, KNEE: tl.constexpr):
    if KNEE:
        return tl.where(u <= knee, u, knee * knee / tl.maximum(2 * knee - u, least))
    else:
        return u


@triton.jit
def _axis(origin_ptr, direction_ptr, settings_ptr, t_min, t_max, AFFINE: tl.constexpr):
    """Origin and direction along an axis, in the unit cube of the box; bounds, cut by its slab."""
    origin = tl.load(origin_ptr).to(tl.float64)
    direction = tl.load(direction_ptr).to(tl.float64)
    low, high = tl.load(settings_ptr + 6), tl.load(settings_ptr + 9)
    if AFFINE:
        # The numbers of a kernel's text are single precision, so this one comes from outside.
        tiny = tl.load(settings_ptr + 12)
        inverse = 1 / tl.where(tl.abs(direction) < tiny, tiny, direction)
        a, b = (low - origin) * inverse, (high - origin) * inverse
        t_min = tl.maximum(t_min, tl.minimum(a, b))
        t_max = tl.minimum(t_max, tl.maximum(a, b))
    return (origin - low) / (high - low), direction / (high - low), t_min, t_max


@triton.jit
def _between(o, d, bounds_ptr, tiny, enter, leave):
    """Cuts the span of a ray down to where a coordinate is within bounds."""
    inverse = 1 / tl.where(tl.abs(d) < tiny, tiny, d)
    a, b = (tl.load(bounds_ptr) - o) * inverse, (tl.load(bounds_ptr + 1) - o) * inverse
    return tl.maximum(enter, tl.minimum(a, b)), tl.minimum(leave, tl.maximum(a, b))


@triton.jit
def _contract(x, y, z):
    x, y, z = x * 2 - 1, y * 2 - 1, z * 2 - 1
    r = tl.maximum(tl.maximum(tl.maximum(tl.abs(x), tl.abs(y)), tl.abs(z)), 1.0)
    factor = (2 - 1 / r) / r
    return (x * factor + 2) / 4, (y * factor + 2) / 4, (z * factor + 2) / 4


@triton.jit
def _cell(x, G):
    return tl.minimum(tl.maximum(x * G, 0.0), (G - 1).to(tl.float64)).to(tl.int64)


@triton.jit
def _ray(
    o, d, settings_ptr, bounds_ptr, limits, strides_ptr, step_size, knee, jitter,
    AFFINE: tl.constexpr, KNEE: tl.constexpr,
):  # fmt: skip
    """Origin and direction in the unit cube of the box, spacing of the begin, end, and the steps
    between which there may be samples.

    Args:
        o, d: Where origin and direction are stored.
        limits: Where the ray's own bounds are.
    """
    t_min = tl.maximum(tl.load(settings_ptr), tl.load(limits).to(tl.float64))
    t_max = tl.minimum(tl.load(settings_ptr + 1), tl.load(limits + 1).to(tl.float64))
    ox, dx, t_min, t_max = _axis(o, d, settings_ptr, t_min, t_max, AFFINE)
    oy, dy, t_min, t_max = _axis(o + 1, d + 1, settings_ptr + 1, t_min, t_max, AFFINE)
    oz, dz, t_min, t_max = _axis(o + 2, d + 2, settings_ptr + 2, t_min, t_max, AFFINE)
    u_min, u_max = _spacing(t_min, knee, KNEE), _spacing(t_max, knee, KNEE)
    num_steps = tl.maximum(tl.ceil((u_max - u_min) / step_size), 0.0)
    num_steps = tl.where(t_max > t_min, num_steps, 0.0)
    first = tl.zeros((), tl.float64)
    if AFFINE:
        tiny = tl.load(settings_ptr + 12)
        enter, leave = _between(ox, dx, bounds_ptr, tiny, t_min, t_max)
        enter, leave = _between(oy, dy, bounds_ptr + 2, tiny, enter, leave)
        enter, leave = _between(oz, dz, bounds_ptr + 4, tiny, enter, leave)
        # Samples are half a step behind edges; a step more on both sides covers rounding.
        first = tl.floor((_spacing(enter, knee, KNEE) - u_min) / step_size - jitter - 1.5)
        last = tl.ceil((_spacing(leave, knee, KNEE) - u_min) / step_size - jitter + 1.5)
        if strides_ptr is not None:  # the last sample may begin before that and reach beyond it
            last = num_steps
        num_steps = tl.where(enter <= leave, tl.minimum(num_steps, tl.maximum(last, 0.0)), 0.0)
        first = tl.minimum(tl.maximum(first, 0.0), num_steps)
    return ox, oy, oz, dx, dy, dz, u_min, t_max, first.to(tl.int32), num_steps.to(tl.int32)


@triton.jit
def _store(out, stride, mask, start, end, x, y, z):
    tl.store(out, start.to(tl.float32), mask)
    tl.store(out + stride, end.to(tl.float32), mask)
    tl.store(out + stride * 2, x.to(tl.float32), mask)
    tl.store(out + stride * 3, y.to(tl.float32), mask)
    tl.store(out + stride * 4, z.to(tl.float32), mask)


@triton.jit
def _position(t, ox, oy, oz, dx, dy, dz, AFFINE: tl.constexpr):
    """Where in the unit cube rays are at distance ``t``."""
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    if not AFFINE:
        x, y, z = _contract(x, y, z)
    return x, y, z


@triton.jit
def _cell_at(t, ox, oy, oz, dx, dy, dz, G, AFFINE: tl.constexpr):
    """Number of the cell that rays are in at distance ``t``."""
    x, y, z = _position(t, ox, oy, oz, dx, dy, dz, AFFINE)
    return (_cell(x, G) * G + _cell(y, G)) * G + _cell(z, G)


@triton.jit
def _merge(
    steps, first, num_steps, u_min, t_max, step_size, half_step, knee, least, jitter, occupancy_ptr,
    strides_ptr, ox, oy, oz, dx, dy, dz, G, AFFINE: tl.constexpr, KNEE: tl.constexpr,
    MAX_EXPONENT: tl.constexpr,
):  # fmt: skip
    """Log2 of how many steps a sample at each step would stand for, and whether the step belongs to
    a sample that begins before it. See :meth:`Backend.march`."""
    exponent = tl.zeros_like(steps)
    covered = steps < 0
    for k in tl.static_range(1, MAX_EXPONENT + 1):  # pyright: ignore
        start = (steps >> k) << k
        edge = u_min + (start.to(tl.float64) + jitter) * step_size
        t = _spacing_inverse(edge + half_step, knee, least, KNEE)
        fits = (start >= first) & (start + (1 << k) <= num_steps) & (t < t_max)
        cell = _cell_at(t, ox, oy, oz, dx, dy, dz, G, AFFINE)
        fits = fits & (tl.load(occupancy_ptr + cell, mask=fits, other=0) != 0)
        fits = fits & (tl.load(strides_ptr + cell, mask=fits, other=0) >= k)
        for place in tl.static_range(2):  # pyright: ignore
            other = start + ((1 << k) // 2 if place == 0 else (1 << k) - 1)
            edge = u_min + (other.to(tl.float64) + jitter) * step_size
            t = _spacing_inverse(edge + half_step, knee, least, KNEE)
            fits = fits & (t < t_max)
            cell = _cell_at(t, ox, oy, oz, dx, dy, dz, G, AFFINE)
            fits = fits & (tl.load(strides_ptr + cell, mask=fits, other=0) >= k)
        exponent = tl.where(fits & (steps == start), k, exponent)
        covered = covered | (fits & (steps != start))
    return exponent, covered


@triton.jit(do_not_specialize=["max_samples", "capacity", "G", "stride_j", "stride_f", "stride_l"])
def _march_kernel(
    origins_ptr, directions_ptr, occupancy_ptr, bounds_ptr, settings_ptr, jitter_ptr, first_ptr,
    limits_ptr, strides_ptr, info_ptr, next_ptr, out_ptr, stride_j, stride_f, stride_l,
    max_samples, capacity, G, AFFINE: tl.constexpr, KNEE: tl.constexpr, WRITES: tl.constexpr,
    NEVER: tl.constexpr, STEPS: tl.constexpr, MAX_EXPONENT: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0).to(tl.int64)
    step_size, knee = tl.load(settings_ptr + 2), tl.load(settings_ptr + 3)
    least, half_step = tl.load(settings_ptr + 4), tl.load(settings_ptr + 5)
    o, d = origins_ptr + ray * 3, directions_ptr + ray * 3
    jitter = tl.load(jitter_ptr + ray * stride_j).to(tl.float64)
    limits = limits_ptr + ray * stride_l
    ox, oy, oz, dx, dy, dz, u_min, t_max, step, num_steps = _ray(
        o, d, settings_ptr, bounds_ptr, limits, strides_ptr, step_size, knee, jitter, AFFINE, KNEE
    )
    first = tl.load(first_ptr + ray * stride_f).to(tl.int32)
    step = tl.where(first < 0, -1, tl.maximum(first, step))
    begin_step, count = step, tl.zeros((), tl.int32)
    next_step = tl.full((), NEVER, tl.int32)
    begin, wanted = tl.zeros((), tl.int64), tl.full((), NEVER, tl.int32)
    if WRITES:
        begin = tl.load(info_ptr + ray * 2)
        wanted = tl.load(info_ptr + ray * 2 + 1).to(tl.int32)
    # Counting goes on to the sample after the last one that is allowed, to name its step.
    goes_on = (step >= 0) & (step < num_steps) & (wanted > 0)
    while goes_on:
        steps = step + tl.arange(0, STEPS)
        edge = u_min + (steps.to(tl.float64) + jitter) * step_size
        t_mid = _spacing_inverse(edge + half_step, knee, least, KNEE)
        cell = _cell_at(t_mid, ox, oy, oz, dx, dy, dz, G, AFFINE)
        inside = (steps < num_steps) & (t_mid < t_max)
        keep = tl.load(occupancy_ptr + cell, mask=inside, other=0) != 0
        length = tl.full((), 1.0, tl.float64)
        if strides_ptr is not None:
            exponent, covered = _merge(
                steps, begin_step, num_steps, u_min, t_max, step_size, half_step, knee, least,
                jitter, occupancy_ptr, strides_ptr, ox, oy, oz, dx, dy, dz, G, AFFINE, KNEE,
                MAX_EXPONENT,
            )  # fmt: skip
            keep = keep & (covered == 0)
            length = (1 << exponent).to(tl.float64)
            middle = tl.where(exponent > 0, jitter * (length * step_size), half_step)
            t_mid = _spacing_inverse(edge + middle, knee, least, KNEE)
        rank = count + tl.cumsum(keep.to(tl.int32), 0)
        if WRITES:
            at = begin + rank - 1
            keep = keep & (rank <= wanted) & (at < capacity)
            out = out_ptr + at
            start = _spacing_inverse(edge, knee, least, KNEE)
            x, y, z = _position(t_mid, ox, oy, oz, dx, dy, dz, AFFINE)
            end = _spacing_inverse(edge + length * step_size, knee, least, KNEE)
            _store(out, tl.cast(capacity, tl.int64), keep, start, end, x, y, z)
        else:
            over = keep & (rank > max_samples)
            next_step = tl.min(tl.where(over, steps, NEVER), 0)
        count = tl.max(rank, 0)
        step += STEPS
        goes_on = (step < num_steps) & (count < wanted) & (next_step == NEVER)
    if not WRITES:
        count = tl.minimum(count, max_samples)
        tl.store(info_ptr + ray * 2 + 1, tl.cast(count, tl.int64))
        tl.store(next_ptr + ray, tl.where(next_step == NEVER, -1, next_step).to(tl.int64))


_latest: dict[str, tuple[Tensor, int, Tensor]] = {}
"""Of each device: the grid that was marched through last, its version, and its bounds."""


def _occupied_bounds(occupancy: Tensor) -> Tensor:
    """Where occupied cells begin and end along each axis of the unit cube, float64 [3, 2]; infinite
    where they touch its border, for samples beyond it belong to cells at the border."""
    latest = _latest.get(str(occupancy.device))  # once: a viewer may march meanwhile
    if latest is not None and latest[0] is occupancy and latest[1] == occupancy._version:
        return latest[2]
    size, bounds = occupancy.shape[0], []
    index = torch.arange(size, device=occupancy.device)
    for axis in range(3):
        occupied = occupancy.transpose(0, axis).flatten(1).any(1)
        low = torch.where(occupied, index, size).amin()
        high = torch.where(occupied, index + 1, 0).amax()
        # A bit more, since positions are rounded.
        low = torch.where(low == 0, -torch.inf, low.double() / size - 1e-9)
        high = torch.where(high == size, torch.inf, high.double() / size + 1e-9)
        bounds.append(torch.stack([low, high]))
    latest = _latest[str(occupancy.device)] = occupancy, occupancy._version, torch.stack(bounds)
    return latest[2]


class March:
    """Rays on their way through an occupancy grid; arguments as for :meth:`Backend.march`.

    :attr:`info` and :attr:`next_step` are those of :class:`Samples`; how many samples there are is
    known on the device alone.
    """

    def __init__(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: Tensor,
        settings: MarchSettings,
        *,
        jitter: Tensor | None = None,
        first_step: Tensor | None = None,
        max_samples: int = 0,
        limits: Tensor | None = None,
        log2_strides: Tensor | None = None,
    ) -> None:
        low, high = settings.box
        numbers = (
            *(settings.near, settings.far, settings.step_size, settings.knee),
            *(1e-6 * settings.knee, 0.5 * settings.step_size, *low, *high, 1e-12, 1e-12, 1e-12),
        )
        # What is missing is the same for all rays, so that one kernel serves whoever has it or not.
        num_rays, device = len(origins), origins.device
        if jitter is None:
            jitter = constant((0.0,), torch.float32, device).expand(num_rays)
        if first_step is None:
            first_step = constant((0,), torch.int64, device).expand(num_rays)
        if limits is None:
            limits = constant((-math.inf, math.inf), torch.float32, device).expand(num_rays, 2)
        elif limits.stride(1) != 1:
            limits = limits.contiguous()
        self._arrays = (
            origins.contiguous(),
            directions.contiguous(),
            occupancy.contiguous().view(torch.uint8),
            _occupied_bounds(occupancy),
            constant(numbers, torch.float64, device),
            jitter,
            first_step,
            limits,
            None if log2_strides is None else log2_strides.contiguous(),
        )
        self._constants = {
            "G": occupancy.shape[0],
            "AFFINE": settings.contraction == "affine",
            "KNEE": settings.knee > 0,
            "NEVER": _NEVER,
            "STEPS": STEPS,
            "MAX_EXPONENT": MAX_LOG2_STRIDE,
        }
        strides = (array.stride(0) for array in (jitter, first_step, limits))
        self._numbers = (*strides, max_samples or _NEVER)
        self.info = torch.zeros(num_rays, 2, dtype=torch.long, device=device)
        self.next_step = torch.empty_like(self.info[:, 0])
        self._launch(None, 0, writes=False)
        ends = self.info[:, 1].cumsum(0)
        torch.sub(ends, self.info[:, 1], out=self.info[:, 0])
        self.total = ends[-1:] if len(ends) else ends.new_zeros(1)
        """int64 [1]."""

    def _launch(self, out: Tensor | None, capacity: int, *, writes: bool) -> None:
        # Without fused multiply-adds both passes, and `reference`, round alike.
        launch(
            _march_kernel, (len(self.info),),
            *self._arrays, self.info, self.next_step, out, *self._numbers, capacity,
            **self._constants, WRITES=writes, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip

    def write(self, out: Tensor) -> None:
        """Writes what fits of the samples.

        Args:
            out: float32, contiguous, [SPANS or more, room].
        """
        self._launch(out, out.shape[1], writes=True)


def march(
    origins: Tensor,
    directions: Tensor,
    occupancy: Tensor,
    settings: MarchSettings,
    *,
    jitter: Tensor | None,
    first_step: Tensor | None,
    max_samples: int,
    limits: Tensor | None,
    log2_strides: Tensor | None = None,
) -> Samples:
    """See :meth:`Backend.march`. The host waits for the number of samples."""
    found = March(
        origins, directions, occupancy, settings,
        jitter=jitter, first_step=first_step, max_samples=max_samples, limits=limits,
        log2_strides=log2_strides,
    )  # fmt: skip
    out = torch.empty(SPANS, int(found.total), device=origins.device)
    found.write(out)
    return Samples(out[0], out[1], out[2:].t(), found.info, found.next_step)
