"""The method, as a host sees it: events in, a field that is small in a file out.

A host hands over a field, options and some callables, and sends :meth:`Compressor.before_step`,
:meth:`Compressor.after_step` and :meth:`Compressor.finish`. What happens at which step follows from
the step alone and from what steering remembers, so that a run that is resumed goes on as it would
have. Nothing here knows hosts, or what is rendered from the latents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.compression.background_refresh import BackgroundWork, FieldCopy
from shacira_nerfstudio.compression.options import BYTES_PER_KB, CompressionOptions
from shacira_nerfstudio.compression.rate_steering import RateSteering, padded_target
from shacira_nerfstudio.compression.rdo_stage import RdoStage
from shacira_nerfstudio.compression.schedule import TrainingSchedule
from shacira_nerfstudio.compression.size import SizeMeter, side_bytes_of
from shacira_nerfstudio.model.encoding import LatentHashEncoding
from shacira_nerfstudio.model.rate_models import CodeLengths

logger = logging.getLogger(__name__)

RDO_HEADROOM = 1.02
"""What latents are cut to at ``rdo_start``, over a target size: occupancy usually shrinks until the
end, and what is too much by then costs little quality."""


class CompressibleField(Protocol):
    """What is asked of a field."""

    encoding: LatentHashEncoding
    quantize_weights: bool
    """Whether network weights are quantised in the loop."""


class Compressor:
    """Everything that makes a trained field small.

    Args:
        pack: Makes the scene that the file would hold now.
        occupied: The occupied cells, bool [G, G, G]; None if all entries count.
    """

    def __init__(
        self,
        options: CompressionOptions,
        field: CompressibleField,
        pack: Callable[[], PackedScene],
        *,
        occupied: Callable[[], Tensor] | None = None,
    ) -> None:
        self.options = options
        """May be replaced while training."""
        self.steering = RateSteering()
        self.size_meter = SizeMeter(pack)
        self._field, self._occupied = field, occupied
        self._background = BackgroundWork()
        self._pack_sides: Callable[[], PackedScene] | None = None

    def attach(
        self,
        num_steps: int,
        *,
        pack: Callable[[], PackedScene],
        batches: Callable[[], Tensor],
        psnr: Callable[[], float],
        pack_sides: Callable[[], PackedScene] | None = None,
    ) -> None:
        """Takes hold of a run.

        Args:
            num_steps: Of the whole run, from its very first step on.
            pack: As before, with all that the file says about the run.
            batches: Gives the colours [R, C] of a training batch that count, with a graph down to
                the latents.
            psnr: Measures the field as its file would show it; always on the same pixels.
            pack_sides: As ``pack``, but with any symbols. If it is given, code lengths and sizes
                are refreshed in a thread while training goes on: for steps that a GPU computes.
                Each refresh begins as soon as the one before is done.
        """
        self._pack, self._batches, self._psnr = pack, batches, psnr
        self._pack_sides = pack_sides
        self.size_meter = SizeMeter(pack)
        self.schedule = self._last_schedule = TrainingSchedule.from_options(
            self.options, num_steps, num_entries=self.encoding.grid.num_entries
        )

    def set_num_steps(self, num_steps: int) -> None:
        """Plans another number of steps, before a step; no less of the run may then be done than
        before."""
        if num_steps != self.schedule.num_steps:
            self.schedule = self.schedule.with_num_steps(num_steps)

    @property
    def encoding(self) -> LatentHashEncoding:
        return self._field.encoding

    @property
    def rate_lambda(self) -> float:
        """Weight of the rate as it is now."""
        factor = self.steering.control.factor if self.options.has_target else 1.0
        return self.options.rate_lambda * factor

    # ── events ──

    def before_step(self, step: int) -> None:
        """Sets what this step trains with."""
        encoding, schedule, before = self.encoding, self.schedule, self._last_schedule
        self._last_schedule = schedule
        encoding.set_quantizer(*schedule.quantizer_at(step))
        encoding.trained_levels = schedule.num_levels_at(
            step, encoding.grid.num_levels, seed=torch.initial_seed()
        )
        self._field.quantize_weights = schedule.quantizes_weights(step)
        if encoding.is_quantized:
            # What begins at a fraction of training begins at the first step that is past it, though
            # the number of steps may have changed since the last one.
            changes = step and schedule.quantizer_at(step)[0] != before.quantizer_at(step - 1)[0]
            is_due = schedule.refreshes_rates(step)
            self._refresh(is_due=is_due, is_urgent=bool(changes))
        if schedule.trims(step) and not before.trims(step - 1):
            self._trim_first()
        if schedule.freezes_latents(step) and not before.freezes_latents(step - 1):
            self._optimise()
        encoding.latents.requires_grad_(not schedule.freezes_latents(step))

    def after_step(self, step: int) -> None:
        """Steers the rate, if it is time."""
        self.encoding.trained_levels = self.encoding.grid.num_levels
        if not (self.options.has_target and self.schedule.steers_rate(step)):
            return
        every = self.schedule.steps_to_measure
        if self.options.target_size_kb:
            target = padded_target(self.options.target_bytes, self.schedule.lr_factor(step))
            self.steering.observe_size(self.size_meter.file_bytes(), target, num_steps=every)
        else:
            target = self.options.target_psnr
            self.steering.observe_quality(self._psnr(), target, num_steps=every)

    def finish(self) -> None:
        """The last word on a target, after the last step: what is above it is taken away."""
        if not self.options.has_target:
            return
        stage, target = self.rdo_stage(), self.options.target_bytes
        if not target:
            stage.install(stage.to_quality(self.options.target_psnr, self._psnr))
            return
        symbols = stage.to_size(target)
        stage.install(symbols)
        if stage.size(symbols) > target:
            logger.warning(
                "expected a target_size_kb that networks and occupancy alone fit in, got %g: the "
                "file has %d bytes",
                target / BYTES_PER_KB,
                stage.size(symbols),
            )

    # ── the loss, and what is logged ──

    def latent_bits(self, *, from_touched: bool = False) -> Float[Tensor, ""] | None:
        """Estimated bits of all latents, differentiable; None in a step without a rate.

        Args:
            from_touched: Estimate them from the rows that have a gradient by now, where the rate
                model can do that.
        """
        encoding = self.encoding
        # A step that leaves fine levels out leaves the rate out, too: it would pull them towards 0
        # with nothing to hold against it.
        if not encoding.is_quantized or encoding.trained_levels < encoding.grid.num_levels:
            return None
        is_trained = encoding.training and encoding.latents.requires_grad
        touched = encoding.bits_of_touched() if from_touched and is_trained else None
        if touched is not None:
            return touched
        rate = self.options.rate
        fraction = min(rate.sample_fraction, rate.max_entries / encoding.grid.num_entries)
        # Under mixed precision the differences of the density would vanish in half floats.
        with torch.autocast(encoding.latents.device.type, enabled=False):
            return encoding.bits(fraction=fraction)

    def rate_loss(self, latent_bits: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The weighted rate, to be added to a loss that is a mean over pixels."""
        return self.rate_lambda * latent_bits / self.encoding.grid.num_entries

    def rate_metrics(self, latent_bits: Float[Tensor, ""]) -> dict[str, Tensor | float]:
        """What a rate amounts to, for the log."""
        latents = self.encoding.latents.numel()
        return {
            "bits_per_latent": latent_bits.detach() / latents,
            **self.size_meter.estimate(latent_bits),
        }

    def metrics(self) -> dict[str, float]:
        """What is set by now, for the log."""
        values = {"temperature": self.encoding.temperature, "rate_lambda": self.rate_lambda}
        if self.options.has_target and self.steering.control.count:
            name = "measured_bytes" if self.options.target_size_kb else "measured_psnr"
            values[name] = self.steering.control.measured
        return values

    # ── what the events do ──

    def _refresh(self, *, is_due: bool, is_urgent: bool = False) -> None:
        """Charges latents from now on by the tables that the file would have, and measures the rest
        of it. What is not there at all yet is made in any case, and at once like what is urgent."""
        model, meter = self.encoding.rate_model, self.size_meter
        tables = model if isinstance(model, CodeLengths) else None
        self._background.install()
        is_missing = not (meter.side_bytes and (tables is None or tables.is_installed))
        if self._pack_sides is not None and not (is_missing or is_urgent):
            if is_due and self._background.is_idle:
                self._begin_refresh(tables, self._pack_sides())
            return
        self._background.drop()
        if tables is not None and (is_due or is_urgent or not tables.is_installed):
            now = FieldCopy.of(self.encoding, self._occupied, is_for_later=False)
            tables.install(*now.code_lengths())
        if is_due or is_urgent or not meter.side_bytes:
            meter.refresh()

    def _begin_refresh(self, tables: CodeLengths | None, sides: PackedScene) -> None:
        """The same in a thread, on a copy."""
        copy = None
        if tables is not None:
            copy = FieldCopy.of(self.encoding, self._occupied, is_for_later=True)

        def work() -> tuple[dict[str, int], tuple[Tensor, Tensor, Tensor] | None]:
            return side_bytes_of(sides), None if copy is None else copy.code_lengths()

        def install(found: tuple[dict[str, int], tuple[Tensor, Tensor, Tensor] | None]) -> None:
            self.size_meter.side_bytes, lengths = found
            if tables is not None and lengths is not None:
                tables.install(*lengths)

        self._background.begin(work, install)

    def rdo_stage(self) -> RdoStage:
        """An optimisation of the latents as they are now."""
        fair = self.rate_lambda / self.encoding.grid.num_entries
        return RdoStage(self.encoding, self._pack(), self._batches, fair_lagrangian=fair)

    def _optimise(self) -> None:
        """At ``rdo_start``: latents are final afterwards, but for :meth:`finish`."""
        stage, options = self.rdo_stage(), self.options
        before = stage.size(stage.at_lagrangian(0.0))
        if options.target_bytes:
            symbols = stage.to_size(RDO_HEADROOM * options.target_bytes)
        elif options.target_psnr:
            symbols = stage.to_quality(options.target_psnr, self._psnr)
        else:
            symbols = stage.at_lagrangian(options.rate.rdo_strength * stage.fair_lagrangian)
        stage.install(symbols)
        logger.info(
            "Latents optimised: the file went from %d to %d bytes.", before, stage.size(symbols)
        )

    def _trim_first(self) -> None:
        """Cuts a file that is too large for its target while there is training left: latents that
        go may come back, and others make up for them."""
        stage, target = self.rdo_stage(), padded_target(self.options.target_bytes, lr_factor=0.0)
        symbols = stage.to_size(target)
        if stage.size(symbols) <= target:  # else it is out of reach, of which `finish` will tell
            stage.move(symbols)
