"""Steers the weight of the rate while training, so that the file ends at a wanted size or quality.

Notation: λ is the weight of the rate, e the error in nats, positive where λ is too small: for a
size ``log(bytes / target)``, for a quality the decibels above the target over
``DECIBELS_PER_NAT``. Bytes and decibels answer to λ by a power law and a logarithm, so in nats
both plants are nearly linear: the logarithm of the bytes falls by 0.6 (lego) to 1 (fox) per nat
of λ.

Training lags: latents need ``LAG_STEPS`` to follow λ downwards, and once learning rates have
fallen they hardly grow again. A controller that waits for the error to go away would push on in
the meantime and end far below. So this one keeps a model of its own doing (internal model control:
Garcia and Morari, 1982): ``m`` is what λ should have changed by now. What is left of the error, e -
m, is a disturbance, the run's own course; λ is set to what takes that away in the end, and
waits.

All state is five numbers, so that a run that is resumed goes on as it would have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

DECIBELS_PER_NAT = 1.0
"""What a factor of e in λ does to the quality, roughly; it scales errors, nothing else."""

LAG_STEPS = 90.0
"""Steps in which the bytes go 63 % of their way after λ rose, measured on lego."""


@dataclass(frozen=True)
class Gains:
    """What a controller takes the run to be like."""

    lag_fraction: float = 0.2
    """Part of its way that the run goes between two measurements."""
    slope: float = 1.0
    """Nats that the error falls by per nat of λ. Steeper than what was measured on lego, as on fox:
    where that is too much, the target is met from above, and later."""
    slope_up: float = 0.4
    """The same where λ falls below what it was: files grow less than they shrink. One that grows
    too far can still be cut."""
    filter: float = 0.6
    """Weight of the newest measurement in what the disturbance is taken to be."""
    max_step: float = 0.5
    """Most nats by which λ changes at a time."""
    max_offset: float = math.log(300.0)
    """λ stays within this factor of what it was at the start."""

    @classmethod
    def every(cls, num_steps: int) -> Gains:
        """For measurements so many training steps apart."""
        return cls(lag_fraction=-math.expm1(-num_steps / LAG_STEPS))

    def slope_for(self, offset: float) -> float:
        """The slope for an offset of log λ: above 0 the error shrinks, below it grows."""
        return self.slope if offset > 0 else self.slope_up


@dataclass(frozen=True)
class ControlState:
    """What a controller remembers; all of it goes into the checkpoint."""

    offset: float = 0.0
    """log(λ / λ at the start)."""
    predicted_response: float = 0.0
    """m: nats by which the error has changed on account of that."""
    disturbance: float = 0.0
    """The error without it, filtered."""
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
    goal = -gains.slope_for(state.offset) * state.offset
    response = state.predicted_response
    response = response + gains.lag_fraction * (goal - response)
    disturbance = error - response
    if state.count:
        disturbance = state.disturbance + gains.filter * (disturbance - state.disturbance)
    wanted = disturbance / gains.slope_for(disturbance)
    wanted = min(max(wanted, state.offset - gains.max_step), state.offset + gains.max_step)
    return replace(
        state,
        offset=min(max(wanted, -gains.max_offset), gains.max_offset),
        predicted_response=response,
        disturbance=disturbance,
        measured=float(measured),
        count=state.count + 1,
    )


def size_error(num_bytes: float, target_bytes: float) -> float:
    """Nats by which a file is too large."""
    return math.log(max(num_bytes, 1.0) / target_bytes)


def quality_error(psnr: float, target_psnr: float) -> float:
    """Nats by which a model is better than it need be."""
    return (psnr - target_psnr) / DECIBELS_PER_NAT
