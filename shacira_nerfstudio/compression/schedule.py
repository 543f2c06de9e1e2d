"""Everything that changes with the training step, as pure functions of the step.

Nothing is counted, so a run that is resumed goes on exactly where it was; and the host's own
schedulers, which write numpy scalars that newer torch refuses to load, are not needed.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from shacira_nerfstudio.compression.options import CompressionOptions
from shacira_nerfstudio.model.quantize import LatentQuantizer, QuantizeSchedule, get_quantizer

FIRST_TRIM = 0.8
"""Fraction of training after which a file that is too large for its target is cut for the first
time: latents and networks have the rest of the run to make up for it, and the rate stays."""
MAX_ENTRIES_PER_REFRESH = 1 << 23
"""Up to so many entries code lengths are refreshed as often as configured; of a table of twice as
many half as often."""
VISIBILITY_WINDOW = 0.25
"""Fraction of training in which rays are watched before cells that none sees are emptied."""


@dataclass(frozen=True)
class TrainingSchedule:
    """Quantiser, learning-rate factor and weight quantisation of each step, counted from 0."""

    num_steps: int
    quantizer: QuantizeSchedule
    warmup_steps: int = 100
    """Steps over which learning rates rise linearly."""
    decay_start: float = 0.5
    """Fraction of training after which learning rates fall."""
    final_lr_factor: float = 0.03
    """Learning rates end at this fraction, reached exponentially."""
    weight_qat_start: float = 0.8
    """Fraction of training after which network weights are quantised in the loop."""
    rate_refresh_steps: int = 250
    """Steps between refreshes of the code lengths that the rate is charged by."""
    rdo_start: float = 1.0
    """Fraction of training after which latents are final; 1 means never."""
    steer_start: float = 0.2
    """Fraction of training after which the rate is steered, if at all."""
    steer_every: float = 0.02
    """Fraction of training between measurements for it."""
    first_trim: float = 1.0
    """Fraction of training after which a file that is too large is cut for the first time, and
    steering ends; 1 means never."""
    visibility_start: float = 1.0
    """Fraction of training after which cells that no ray sees are empty; 1 means never."""
    level_dropout: float = 0.0
    """Probability that a step trains a coarse prefix of the levels alone."""

    @classmethod
    def from_options(
        cls, options: CompressionOptions, num_steps: int, *, num_entries: int
    ) -> TrainingSchedule:
        """The schedule of a run of so many steps on a table of so many entries."""
        quantizer, rate, schedule = options.quantizer, options.rate, options.schedule
        trims_early = options.target_size_kb and not options.moves_latents
        # A refresh makes a pass over the table: what it costs per step does not grow with it.
        refreshes_apart = -(-num_entries // MAX_ENTRIES_PER_REFRESH)
        return cls(
            num_steps,
            QuantizeSchedule(
                get_quantizer(quantizer.mode),
                num_steps,
                quantizer.anneal_fraction,
                quantizer.final_temperature,
            ),
            **vars(schedule),
            rate_refresh_steps=rate.refresh_steps * refreshes_apart,
            rdo_start=rate.rdo_start if options.moves_latents else 1.0,
            first_trim=FIRST_TRIM if trims_early else 1.0,
            visibility_start=options.visibility_start,
            level_dropout=rate.level_dropout,
        )

    def with_num_steps(self, num_steps: int) -> TrainingSchedule:
        """The same fractions of another number of steps."""
        quantizer = dataclasses.replace(self.quantizer, num_steps=num_steps)
        return dataclasses.replace(self, num_steps=num_steps, quantizer=quantizer)

    def __post_init__(self) -> None:
        if not 0 <= self.level_dropout < 1:
            raise ValueError(f"expected level_dropout in [0, 1), got {self.level_dropout}")

    def quantizer_at(self, step: int) -> tuple[LatentQuantizer, float]:
        """Quantiser of the latents and its temperature."""
        return self.quantizer.at(step)

    def refreshes_rates(self, step: int) -> bool:
        """Whether code lengths and size estimates are refreshed before this step: often at first,
        when latents move fast, and when the quantiser changes."""
        early = [self.rate_refresh_steps >> k for k in (4, 3, 2, 1)]
        is_due = step % self.rate_refresh_steps == 0 or step in early
        return is_due or (step > 0 and self.quantizer_at(step)[0] != self.quantizer_at(step - 1)[0])

    @property
    def rdo_step(self) -> int:
        """First step whose latents are final."""
        return math.ceil(self.rdo_start * self.num_steps)

    def trims(self, step: int) -> bool:
        """Whether a file that is too large has been cut by then, or is right before this step."""
        return step >= self.first_trim_step

    def freezes_latents(self, step: int) -> bool:
        """Whether latents are final by then."""
        return step >= self.rdo_step

    @property
    def steps_to_measure(self) -> int:
        """Steps between measurements for steering."""
        return max(1, round(self.steer_every * self.num_steps))

    def steers_rate(self, step: int) -> bool:
        """Whether the rate is steered after this step."""
        begins = step >= self.steer_start * self.num_steps
        ends = min(self.rdo_step, self.first_trim_step)
        return begins and (step + 1) % self.steps_to_measure == 0 and step + 1 < ends

    @property
    def first_trim_step(self) -> int:
        """Step before which a file that is too large is cut."""
        return math.ceil(self.first_trim * self.num_steps)

    def observes_weights(self, step: int) -> bool:
        """Whether it is noted which cells rays see: for a quarter of training before it counts, and
        on from there."""
        begin = self.visibility_start - VISIBILITY_WINDOW
        return self.visibility_start < 1 and step >= begin * self.num_steps

    def empties_invisible(self, step: int) -> bool:
        """Whether cells that no ray sees are empty by then."""
        return self.visibility_start < 1 and step >= self.visibility_start * self.num_steps

    def lr_factor(self, step: int) -> float:
        """What every learning rate is multiplied with."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        span = max(1.0 - self.decay_start, 1e-9) * self.num_steps
        progress = min(max((step - self.decay_start * self.num_steps) / span, 0.0), 1.0)
        return float(warmup * self.final_lr_factor**progress)

    def quantizes_weights(self, step: int) -> bool:
        """Whether network weights are quantised in the loop."""
        return step >= self.weight_qat_start * self.num_steps

    def num_levels_at(self, step: int, num_levels: int, *, seed: int) -> int:
        """Levels that a step trains: all of ``num_levels``, or the first 1 to ``num_levels - 1``,
        each as often as the others.

        Args:
            seed: Of the run, from 0; the same seed and step give the same number.
        """
        if not self.level_dropout or num_levels < 2:
            return num_levels
        draw, prefix = np.random.default_rng((seed, step)).random(2)
        is_prefix = draw < self.level_dropout
        return 1 + int(prefix * (num_levels - 1)) if is_prefix else num_levels
