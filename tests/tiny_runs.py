"""Runs of a few dozen steps in the host's own trainer, for tests. Loads the host when called."""

import copy
import random
from pathlib import Path

import numpy as np
import torch

NUM_STEPS = 80


def set_options(config, options):
    """Sets options of a model by dotted names, as presets have them."""
    for key, value in options.items():
        *groups, name = key.split(".")
        node = config
        for group in groups:
            node = getattr(node, group)
        assert hasattr(node, name), key
        setattr(node, name, value)


def make_config(scene: Path, output: Path, options=None):
    """A run of :data:`NUM_STEPS` steps.

    Args:
        options: Of the model, by dotted names.
    """
    from shacira_nerfstudio.plugin.config import shacira_method
    from shacira_nerfstudio.plugin.rtmv_dataparser import RtmvDataParserConfig

    config = copy.deepcopy(shacira_method.config)
    config.output_dir, config.experiment_name, config.timestamp = output, "e", "t"
    config.vis, config.max_num_iterations, config.steps_per_save = "tensorboard", NUM_STEPS, 40
    config.steps_per_eval_image = 0
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.dataparser = RtmvDataParserConfig(data=scene)
    tiny = {
        "grid.num_levels": 4,
        "grid.max_res": 64,
        "grid.log2_hashmap_size": 10,
        "sampling.occupancy_resolution": 32,
        "sampling.occupancy_warmup": 8,
        "sampling.occupancy_every": 4,
        "sampling.steps_across_box": 128,
        "sampling.target_num_samples": 2048,
        "schedule.warmup_steps": 2,
        "networks.hidden_dim": 16,
    }
    set_options(config.pipeline.model, {**tiny, **(options or {})})
    return config


def make_trainer(config, seed=0):
    # As ns-train does: the data manager draws from Python's own generator.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def steps(trainer, begin, end):
    """Runs steps with their callbacks, as Trainer.train does; returns losses and what was set."""
    from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location

    history = []
    for step in range(begin, end):
        trainer.step = step
        trainer.pipeline.train()
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=Location.BEFORE_TRAIN_ITERATION)
        _, losses, metrics = trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=Location.AFTER_TRAIN_ITERATION)
        model = trainer.pipeline.model
        state = (
            model.scene.encoding.quantizer.name,
            model.scene.encoding.temperature,
            model.scene.field.quantize_weights,
            dict(model.callbacks.learning_rates),
        )
        history.append((losses, metrics, state))
    return history
