"""What happens around each training step: schedules, number of rays, occupancy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.engine.callbacks import TrainingCallbackAttributes

from shacira_nerfstudio.codec.scene_file import encode_sides
from shacira_nerfstudio.model.occupancy import seen_cells
from shacira_nerfstudio.compression import rdo_stage
from shacira_nerfstudio.plugin.metrics import side_bytes
from shacira_nerfstudio.compression.rate_steering import packed_run

if TYPE_CHECKING:
    from shacira_nerfstudio.plugin.model import ShaciraModel
    from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig

MARCHED_PER_VISIBLE = 3.0
"""Marched samples cost a look-up without gradient; a step takes at most so many times its visible
samples."""
_FIRST_NUM_RAYS = 512
"""The first steps march through a full occupancy grid: few rays fill the batch."""


class TrainingLoop:
    """Callbacks of one run. Not a module: nothing of it is saved, all of it follows from the
    step and from what :class:`RateSteering` remembers."""

    def __init__(self, config: ShaciraModelConfig) -> None:
        self.config = config
        self.num_rays, self.num_visible, self.num_marched = _FIRST_NUM_RAYS, 0, 0
        self.learning_rates: dict[str, float] = {}
        self.temperature = 1.0
        self.observes_weights = False
        """Whether this step's rays tell the occupancy grid which cells they see."""
        self.side_bytes: dict[str, int] = {}
        """Bytes of the file beside latents, by part, at the last look; empty outside of a run."""
        self._other_bytes: int | None = None

    def bind(self, model: ShaciraModel, attributes: TrainingCallbackAttributes) -> None:
        """Takes hold of the run; called by the model once the trainer exists."""
        trainer, pipeline = attributes.trainer, attributes.pipeline
        if model.backend.name == "cpu_numba":
            # The kernels bring threads of their own. What is left to torch are small operations,
            # whose threads would wait for one another by spinning.
            torch.set_num_threads(1)
        assert trainer is not None and pipeline is not None
        self._trainer, self._model, self._optimizers = trainer, model, attributes.optimizers
        self._base_lr = {
            name: float(group["optimizer"].lr) for name, group in trainer.config.optimizers.items()
        }
        self._schedule = model.make_schedule(trainer.config.max_num_iterations)
        self._mark_unseen_cells(model)
        self._sampler = getattr(pipeline.datamanager, "train_pixel_sampler", None)

    def _mark_unseen_cells(self, model: ShaciraModel) -> None:
        """In an unbounded capture most of space is behind all cameras: it stays empty."""
        cameras = ((model.kwargs.get("metadata") or {}).get("shacira") or {}).get("cameras")
        if model.march_settings.contraction != "contracted" or cameras is None:
            return
        if not bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all()):
            return  # a fisheye or a panorama sees what a pinhole does not
        columns = [cameras.fx, cameras.fy, cameras.cx, cameras.cy]
        sizes = torch.cat([cameras.width, cameras.height], -1).float()
        seen = seen_cells(
            model.occupancy.resolution,
            model.march_settings,
            cameras.camera_to_worlds,
            torch.cat(columns, -1),
            sizes,
        )
        model.occupancy.mark_unseen(seen.to(model.device))

    def before_step(self, step: int) -> None:
        """Sets quantisers, learning rates and the number of rays of this step."""
        mode, self.temperature = self._schedule.quantizer_at(step)
        encoding = self._model.field.encoding
        encoding.set_quantizer(mode, self.temperature)
        self.observes_weights = self._schedule.observes_weights(step)
        if self._schedule.empties_invisible(step):
            self._model.occupancy.visible_from = self.config.visibility_threshold
        encoding.trained_levels = self._schedule.num_levels_at(
            step, encoding.grid.num_levels, seed=torch.initial_seed()
        )
        self._model.field.quantize_weights = self._schedule.quantizes_weights(step)
        if encoding.is_quantized:
            self._look_at_file(step, is_due=self._schedule.looks_at_file(step))
        if step == self._schedule.first_trim_step:
            rdo_stage.trim_first(self._model, self._trainer)
        if step == self._schedule.rdo_step:
            rdo_stage.optimise(self._model, self._trainer)
        self._model.field.encoding.latents.requires_grad_(not self._schedule.freezes_latents(step))
        factor = self._schedule.lr_factor(step)
        if self._optimizers is not None:
            for name, optimizer in self._optimizers.optimizers.items():
                self.learning_rates[name] = self._base_lr[name] * factor
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rates[name]
        if self.config.target_num_samples and self._sampler is not None:
            self._sampler.set_num_rays_per_batch(self.num_rays)

    def _look_at_file(self, step: int, *, is_due: bool) -> None:
        """Charges latents from now on by the tables that the file would have, and measures the rest
        of it. What there is nothing of yet is looked at in any case."""
        has_some = len(self._model.field.encoding.code_lengths) > 0
        if self._model.charges_by_tables and (is_due or not has_some):
            self._model.update_tables()
        if self.side_bytes and not is_due:
            return
        sides = side_bytes(self._model)
        if self._other_bytes is None:
            # Cameras and the head stay as they are: once is enough.
            scene = packed_run(self._model, self._trainer, step)
            sections = [s for tag, s in encode_sides(scene).items() if tag not in ("WGTS", "OCCU")]
            self._other_bytes = sum(map(len, sections))
        self.side_bytes = {**sides, "other": self._other_bytes}

    def after_step(self, step: int) -> None:
        """Looks at the occupancy again, adapts the number of rays, and ends a resumed run.

        The host (1.1.5) would train a resumed run for ``max_num_iterations`` steps more; here that
        number is the whole, as in its main branch, so that the schedule is the run's own.
        """
        encoding = self._model.field.encoding
        encoding.trained_levels = encoding.grid.num_levels  # occupancy is that of all levels
        if step + 1 >= self._schedule.num_steps:
            self._trainer.stop_training = True
        warm = step < self.config.occupancy_warmup
        every = self.config.occupancy_every * (2 if warm else 1)
        if step and step % every == 0:
            model = self._model
            model.occupancy.update(model.step_opacity, everywhere=warm)
        steering = self._model.rate_steering
        if steering.is_on and self._schedule.steers_rate(step):
            steering.measure(
                self._model,
                self._trainer,
                self._schedule.steps_to_measure,
                lr_factor=self._schedule.lr_factor(step),
            )
        if steering.is_on and step + 1 == self._schedule.num_steps:
            rdo_stage.trim(self._model, self._trainer)
        if self.config.target_num_samples and self.num_marched:
            cost = max(self.num_visible, self.num_marched / MARCHED_PER_VISIBLE)
            wanted = self.num_rays * self.config.target_num_samples / max(cost, 1)
            # Half way only: the count of one batch is noisy.
            wanted = 0.5 * (self.num_rays + min(wanted, 4.0 * self.num_rays))
            self.num_rays = int(min(max(wanted, 64), self.config.max_num_rays))

    def observe(self, num_rays: int, num_visible: int, num_marched: int) -> None:
        """Notes what a step's batch cost."""
        self.num_rays = num_rays
        self.num_visible, self.num_marched = num_visible, num_marched

    def metrics(self) -> dict[str, Any]:
        """Figures for the log."""
        values: dict[str, Any] = {
            "num_rays": self.num_rays,
            "num_samples": self.num_visible,
            "num_samples_marched": self.num_marched,
            "temperature": self.temperature,
        }
        values.update({f"lr_{name}": lr for name, lr in self.learning_rates.items()})
        return {name: torch.tensor(float(value)) for name, value in values.items()}
