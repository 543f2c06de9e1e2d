"""Steers the weight of the rate while training, so that the file ends at a wanted size or quality.

Notation: λ is the weight of the rate, e the error in nats, positive where λ is too small: for a
size ``log(bytes / target)``, for a quality the decibels above the target over
``DECIBELS_PER_NAT``. Bytes and decibels answer to λ by a power law and a logarithm, so in nats
both plants are nearly linear: the logarithm of the bytes falls by about 0.3 to 0.5 per nat of λ.

After each measurement ``log λ += kd (e - e') + kp e + ki I``, with e' the error before and I the
sum of errors. The first term is the damping that the lag of training asks for: latents need
``LAG_STEPS`` to follow λ, and kp alone would swing, while too small a file does not fill again in
time. A plant that goes a share f of its way between two measurements is damped by ``kd = kp (1/f -
1)``. Xu et al., 2026, steer codecs, which have no lag, by the other two with kp 0.9 and ki 0.05.

All state is five numbers, so that a run that is resumed goes on as it would have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

DECIBELS_PER_NAT = 1.0
"""What a factor of e in λ does to the quality, roughly; it scales errors, nothing else."""


LAG_STEPS = 80.0
"""Steps in which the bytes go 63 % of their way after λ changed, measured on lego."""


@dataclass(frozen=True)
class Gains:
    """How hard a controller pulls."""

    damping: float = 0.0
    proportional: float = 0.9
    integral: float = 0.01
    max_error: float = 1.0
    """Errors are clipped here: far from the target the way back is no longer linear."""
    near: float = 0.2
    """Only smaller errors enter the sum: it is there for a lasting rest, and would be full of the
    way to the target otherwise."""
    max_integral: float = 2.0
    max_offset: float = math.log(300.0)
    """λ stays within this factor of what it was at the start."""

    @classmethod
    def every(cls, num_steps: int) -> Gains:
        """For measurements so many training steps apart."""
        # 1/f - 1 with f = 1 - exp(-num_steps / LAG_STEPS).
        return cls(damping=cls.proportional / math.expm1(num_steps / LAG_STEPS))


@dataclass(frozen=True)
class ControlState:
    """What a controller remembers; all of it goes into the checkpoint."""

    offset: float = 0.0
    """log(λ / λ at the start)."""
    integral: float = 0.0
    error: float = 0.0
    """The last one, clipped."""
    measured: float = 0.0
    """What was measured last: bytes, or decibels."""
    count: int = 0
    """Measurements so far."""

    @property
    def factor(self) -> float:
        """λ over what it was at the start."""
        return math.exp(self.offset)


def next_state(state: ControlState, measured: float, error: float, gains: Gains) -> ControlState:
    """The state after a measurement. A pure function."""
    if not math.isfinite(error):
        raise ValueError(f"expected a finite error, got {error}")
    error = min(max(error, -gains.max_error), gains.max_error)
    change = error - state.error if state.count else 0.0
    integral = state.integral
    if abs(error) < gains.near:
        integral = min(max(integral + error, -gains.max_integral), gains.max_integral)
    wanted = state.offset + gains.damping * change + gains.proportional * error
    wanted += gains.integral * integral
    offset = min(max(wanted, -gains.max_offset), gains.max_offset)
    if offset != wanted and error * wanted > 0:
        integral = state.integral  # no wind-up against the end of the range
    return replace(
        state,
        offset=offset,
        integral=integral,
        error=error,
        measured=float(measured),
        count=state.count + 1,
    )


def size_error(num_bytes: float, target_bytes: float) -> float:
    """Nats by which a file is too large."""
    return math.log(max(num_bytes, 1.0) / target_bytes)


def quality_error(psnr: float, target_psnr: float) -> float:
    """Nats by which a model is better than it need be."""
    return (psnr - target_psnr) / DECIBELS_PER_NAT
