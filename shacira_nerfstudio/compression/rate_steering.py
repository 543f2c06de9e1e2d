"""Steers the rate of a run by its real file: the hook of ``compression/rate_controller.py`` in training.

The controller's state is a buffer, so it is in every checkpoint, and when it acts follows from the
step: a run that is resumed goes on as it would have.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from shacira_nerfstudio.codec import PackedScene, encode_scene
from shacira_nerfstudio.compression.rate_controller import (
    ControlState,
    Gains,
    next_state,
    quality_error,
    size_error,
)
from shacira_nerfstudio.plugin.probe_rays import FixedRays

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer

    from shacira_nerfstudio.plugin.model import ShaciraModel
    from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig

BYTES_PER_KB = 1000
HEADROOM = 1.08
"""The controller aims this much above a wanted size: what is above it at the end is taken away
where it hurts least, what is below it could not be filled any more."""
UNSETTLED = 0.65
"""Share of the bytes, over those at the end of a run, that come and go with steps at the full
learning rate, rather too many: on lego it was 0.25 to 0.43, on fox 0.54."""
FIRST_TRIM = 0.8
"""Fraction of training after which a file that is too large for its target is cut for the first
time: latents and networks have the rest of the run to make up for it, and the rate stays."""
_EMA = 0.5
"""Weight of the newest measurement of quality."""


class RateSteering(nn.Module):
    """The weight of the rate, fixed or steered towards ``target_size_kb`` or ``target_psnr``."""

    state: torch.Tensor

    def __init__(self, config: ShaciraModelConfig) -> None:
        super().__init__()
        check_targets(config)
        self.config = config
        self.register_buffer("state", torch.zeros(5))
        self._fixed_rays: FixedRays | None = None

    @property
    def target_bytes(self) -> float:
        """0 without a target."""
        return self.config.target_size_kb * BYTES_PER_KB

    @property
    def is_on(self) -> bool:
        return self.config.target_size_kb > 0 or self.config.target_psnr > 0

    @property
    def control(self) -> ControlState:
        """What the controller remembers."""
        *numbers, count = self.state.tolist()
        return ControlState(*numbers, count=int(count))

    @property
    def rate_lambda(self) -> float:
        """Weight of the rate as it is now."""
        # The configured one may change while training: the viewer has a field for it.
        return self.config.rate_lambda * (self.control.factor if self.is_on else 1.0)

    def aim(self, lr_factor: float) -> float:
        """Bytes to have while learning rates are multiplied with that, for ``target_size_kb``."""
        return HEADROOM * (1 + UNSETTLED * lr_factor) * self.target_bytes

    def measure(
        self, model: ShaciraModel, trainer: Trainer, every: int, *, lr_factor: float
    ) -> None:
        """Measures what the file would be now, and moves the rate.

        Args:
            every: Steps between measurements.
            lr_factor: What learning rates are multiplied with by now.
        """
        state = self.control
        if self.config.target_size_kb:
            measured = float(file_bytes(model, trainer))
            error = size_error(measured, self.aim(lr_factor))
        else:
            measured = self.psnr(model, trainer)
            if state.count:
                measured = _EMA * measured + (1 - _EMA) * state.measured
            error = quality_error(measured, self.config.target_psnr)
        state = next_state(state, measured, error, Gains.every(every))
        self.state.copy_(torch.tensor(dataclasses.astuple(state)))

    def psnr(self, model: ShaciraModel, trainer: Trainer) -> float:
        """Of the rounded model on rays of training images that are the same all along."""
        if self._fixed_rays is None:
            self._fixed_rays = FixedRays(trainer.pipeline.datamanager)
        return self._fixed_rays.psnr(model)

    def metrics(self) -> dict[str, Any]:
        """Figures for the log."""
        values = {"rate_lambda": self.rate_lambda}
        if self.is_on and self.control.count:
            name = "measured_bytes" if self.config.target_size_kb else "measured_psnr"
            values[name] = self.control.measured
        return {name: torch.tensor(float(value)) for name, value in values.items()}


def check_targets(config: ShaciraModelConfig) -> None:
    """Raises ValueError for targets that cannot be steered to."""
    for name in ("target_size_kb", "target_psnr"):
        if getattr(config, name) < 0:
            raise ValueError(f"expected a {name} of 0 (off) or more, got {getattr(config, name)}")
    if config.target_size_kb and config.target_psnr:
        raise ValueError(
            "expected target_size_kb or target_psnr, got both: one rate cannot serve two aims"
        )
    if (config.target_size_kb or config.target_psnr) and not (
        config.rate_lambda > 0 and config.quantizer not in ("none", "binary")
    ):
        raise ValueError(
            "expected a rate_lambda above 0, where steering starts, and a quantizer of integers, "
            f"got {config.rate_lambda} and {config.quantizer}"
        )


@torch.no_grad()
def file_bytes(model: ShaciraModel, trainer: Trainer) -> int:
    """Length of the file that `shacira export` would write now with its defaults."""
    return len(encode_scene(packed_run(model, trainer, trainer.step)))


@torch.no_grad()
def packed_run(model: ShaciraModel, trainer: Trainer, step: int) -> PackedScene:
    """What that file would hold after a step."""
    # The exporter imports scripts of the host that are not importable when plugins load.
    from shacira_nerfstudio.plugin.export_folder import pack_run

    return pack_run(model, trainer.config, trainer.pipeline, step)
