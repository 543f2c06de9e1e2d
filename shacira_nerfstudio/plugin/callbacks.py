"""The host's events, forwarded to those who act on them; the host's data, as callables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import torch
import yaml
from nerfstudio.engine.callbacks import (
    TrainingCallback,
    TrainingCallbackAttributes,
    TrainingCallbackLocation,
)
from nerfstudio.engine.trainer import Trainer
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.utils.misc import step_check
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.compression.compressor import Compressor
from shacira_nerfstudio.compression.probe import ProbeRays, probe_psnr
from shacira_nerfstudio.compression.time_budget import TimeBudget
from shacira_nerfstudio.model.sampling import AdaptiveSampling
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.output_files import write_file
from shacira_nerfstudio.plugin.capture_kind import Choice, num_steps_of
from shacira_nerfstudio.plugin.data_manager import ShaciraDataManager
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.loss_watch import LossWatch
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig
from shacira_nerfstudio.plugin.probe_rays import steering_rays
from shacira_nerfstudio.plugin.run_metadata import run_metadata
from shacira_nerfstudio.plugin.scene_settings import mark_unseen_cells

_MANY_STEPS = 1_000_000


class TrainedModel(Protocol):
    """What is asked of a model."""

    config: ShaciraModelConfig
    choice: Choice
    scene: RadianceScene
    compressor: Compressor
    sampling: AdaptiveSampling
    loss_watch: LossWatch
    time_budget: TimeBudget
    planned_num_steps: int
    dataset: DatasetMetadata
    renderer_rgb: RGBRenderer

    @property
    def device(self) -> torch.device: ...

    def pack(
        self, *, meta: Mapping[str, str | int] | None = None, with_latents: bool = True
    ) -> PackedScene: ...

    def __call__(self, ray_bundle: Any) -> Mapping[str, Tensor]: ...


class TrainingCallbacks:
    """What happens around each step of one run."""

    def __init__(self, model: TrainedModel, attributes: TrainingCallbackAttributes) -> None:
        trainer, pipeline = attributes.trainer, attributes.pipeline
        assert trainer is not None and pipeline is not None
        self._model, self._trainer, self._optimizers = model, trainer, attributes.optimizers
        self._manager: Any = pipeline.datamanager
        self._base_lr = {
            name: float(group["optimizer"].lr) for name, group in trainer.config.optimizers.items()
        }
        self.learning_rates: dict[str, float] = {}
        num_steps = self._settle(trainer)
        model.scene.encoding.backend.prepare_training()
        model.compressor.attach(
            num_steps,
            pack=self._pack,
            batches=self._batch_colors,
            psnr=self._probe_psnr,
            pack_sides=self._pack_sides if model.device.type == "cuda" else None,
        )
        mark_unseen_cells(model.scene, model.dataset.cameras)

    def _settle(self, trainer: Trainer) -> int:
        """Says what was chosen for this run, and saves it.

        Returns:
            The number of steps, as it is planned.
        """
        model, config = self._model, trainer.config
        is_new = bool(model.choice.values) or not config.max_num_iterations
        minutes = model.config.max_minutes
        by_quality = num_steps_of(model.config, device_type=model.device.type)
        # With a clock the host is left to run on until it is stopped.
        config.max_num_iterations = config.max_num_iterations or (
            _MANY_STEPS if minutes else by_quality
        )
        num_steps = config.max_num_iterations
        if minutes:
            planned, step = by_quality, trainer._start_step
            if step and model.time_budget.seconds:
                planned = model.time_budget.plan_again(step, model.planned_num_steps)
            num_steps = min(num_steps, planned)
        if is_new and not trainer.local_rank:
            length = f"{minutes:g} minutes" if minutes else f"{num_steps} steps"
            line = model.choice.line(model.config.quality, length)
            CONSOLE.print(escape(line), highlight=False)
        if is_new:
            self._save_config()
        return num_steps

    def _save_config(self) -> None:
        """Saves the run's configuration again: the host does so before data and model are
        there."""
        config = self._trainer.config
        saved = config.get_base_dir() / "config.yml"
        if saved.exists() and not self._trainer.local_rank:
            write_file(saved, yaml.dump(config))

    def as_list(self) -> list[TrainingCallback]:
        """For the host."""
        location = TrainingCallbackLocation
        return [
            TrainingCallback([location.BEFORE_TRAIN_ITERATION], self.before_step),
            TrainingCallback([location.AFTER_TRAIN_ITERATION], self.after_step),
        ]

    def before_step(self, step: int) -> None:
        """Sets quantisers, learning rates and the number of rays of this step."""
        model, budget = self._model, self._model.time_budget
        budget.begin_step()
        if budget.is_limited:
            num_steps = budget.plan(step, model.compressor.schedule.num_steps)
            model.compressor.set_num_steps(min(num_steps, self._trainer.config.max_num_iterations))
        schedule = model.compressor.schedule
        model.sampling.watch(
            model.scene,
            observes_weights=schedule.observes_weights(step),
            empties_invisible=schedule.empties_invisible(step),
        )
        begin = time.perf_counter()
        model.compressor.before_step(step)
        if model.compressor.options.has_target:  # the last cut takes as long as earlier ones
            seconds = time.perf_counter() - begin
            budget.reserved_seconds = max(budget.reserved_seconds, seconds)
        self._set_learning_rates(schedule.lr_factor(step))
        if model.sampling.adapts_num_rays and isinstance(self._manager, ShaciraDataManager):
            self._manager.set_num_rays(model.sampling.num_rays)

    def _set_learning_rates(self, factor: float) -> None:
        if self._optimizers is None:
            return
        model = self._model
        for name, optimizer in self._optimizers.optimizers.items():
            self.learning_rates[name] = self._base_lr[name] * factor
            if name == "latents" and model.scene.encoding.is_quantized:
                self.learning_rates[name] *= model.config.latents_lr_mult
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rates[name]

    def after_step(self, step: int) -> None:
        """Looks whether all went well, updates the occupancy, steers, and ends a resumed run.

        The host (1.1.5) would train a resumed run for ``max_num_iterations`` steps more; here that
        number is the whole, as in its main branch, so that the schedule is the run's own.
        """
        model, trainer = self._model, self._trainer
        if model.time_budget.is_over:
            model.compressor.set_num_steps(min(step + 1, model.compressor.schedule.num_steps))
        num_steps = model.compressor.schedule.num_steps
        saves = step_check(step, trainer.config.steps_per_save) or step + 1 >= num_steps
        model.loss_watch.check(
            step, trainer.checkpoint_dir, saves=model.scene.parameters() if saves else None
        )
        model.sampling.update_occupancy(step, model.scene, num_steps=num_steps)
        model.compressor.after_step(step)
        if step + 1 == num_steps:
            model.compressor.finish()
        if step + 1 >= num_steps:
            trainer.stop_training = True
            if model.time_budget.is_limited:
                trainer.config.max_num_iterations = num_steps
                self._save_config()
        model.sampling.adapt_num_rays()
        model.time_budget.end_step()

    # ── what the compressor asks for ──

    def _pack(self, *, with_latents: bool = True) -> PackedScene:
        meta = run_metadata(
            self._trainer.config,
            self._trainer.step,
            num_steps=self._model.compressor.schedule.num_steps,
            rate_lambda=self._model.compressor.rate_lambda,
            num_train_images=len(self._manager.train_dataset),
        )
        return self._model.pack(meta=meta, with_latents=with_latents)

    def _pack_sides(self) -> PackedScene:
        return self._pack(with_latents=False)

    def _batch_colors(self) -> Tensor:
        bundle, _ = self._manager.next_train(self._trainer.step)
        outputs = self._model(bundle)
        return outputs["rgb"] * (1 - outputs["cut"])[:, None]

    @cached_property
    def _probe(self) -> ProbeRays:
        blend = self._model.renderer_rgb.blend_background
        return steering_rays(self._manager.train_dataset, blend).to(self._model.device)

    def _probe_psnr(self) -> float:
        return probe_psnr(self._model.scene, self._probe)
