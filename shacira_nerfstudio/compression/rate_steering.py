"""Steers the weight of the rate by what the file of a run is really like.

Between the controller (``rate_controller.py``) and a run: what is measured, what it is compared
with, and what is remembered. When it acts follows from the step, and the state goes into each
checkpoint: a run that is resumed goes on as it would have.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from shacira_nerfstudio.compression.rate_controller import (
    ControlState,
    Gains,
    next_state,
    quality_error,
    size_error,
)

HEADROOM = 1.08
"""The controller aims this much above a wanted size: what is above it at the end is taken away
where it hurts least, what is below it could not be filled any more."""
UNSETTLED = 0.65
"""Share of the bytes, over those at the end of a run, that come and go with steps at the full
learning rate, rather too many: on lego it was 0.25 to 0.43, on fox 0.54."""
_EMA = 0.5
"""Weight of the newest measurement of quality."""


def padded_target(target_bytes: float, lr_factor: float) -> float:
    """Bytes to have while learning rates are multiplied with that, so as to end at a target."""
    return HEADROOM * (1 + UNSETTLED * lr_factor) * target_bytes


class RateSteering:
    """What the controller of one run remembers, and how it learns."""

    def __init__(self) -> None:
        self.control = ControlState()

    @property
    def state(self) -> Tensor:
        """The same as a tensor [5], for a checkpoint."""
        return torch.tensor(dataclasses.astuple(self.control))

    @state.setter
    def state(self, values: Tensor) -> None:
        *numbers, count = values.tolist()
        self.control = ControlState(*numbers, count=int(count))

    def observe_size(self, num_bytes: int, target_bytes: float, *, num_steps: int) -> None:
        """Takes in the length of the file as it would be now.

        Args:
            num_steps: Steps between measurements.
        """
        error = size_error(num_bytes, target_bytes)
        self._advance(float(num_bytes), error, num_steps)

    def observe_quality(self, psnr: float, target_psnr: float, *, num_steps: int) -> None:
        """Takes in the quality of the model as it is now; see :meth:`observe_size`."""
        if self.control.count:
            psnr = _EMA * psnr + (1 - _EMA) * self.control.measured
        self._advance(psnr, quality_error(psnr, target_psnr), num_steps)

    def _advance(self, measured: float, error: float, num_steps: int) -> None:
        control = next_state(self.control, measured, error, Gains.every(num_steps))
        # In single precision, as a checkpoint has it: a resumed run shall not differ.
        self.state = torch.tensor(dataclasses.astuple(control))
