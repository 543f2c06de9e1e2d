"""Runs of a few dozen steps in the host's own trainer, for tests. Loads the host when called."""

import copy
import random
from pathlib import Path

import numpy as np
import torch

NUM_STEPS = 80


def make_config(scene: Path, output: Path, **model):
    from shacira_nerfstudio.plugin.config import shacira_method
    from shacira_nerfstudio.plugin.rtmv_dataparser import RtmvDataParserConfig

    config = copy.deepcopy(shacira_method.config)
    config.output_dir, config.experiment_name, config.timestamp = output, "e", "t"
    config.vis, config.max_num_iterations, config.steps_per_save = "tensorboard", NUM_STEPS, 40
    config.steps_per_eval_image = 0
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.dataparser = RtmvDataParserConfig(data=scene)
    tiny = {
        "num_levels": 4,
        "max_res": 64,
        "log2_hashmap_size": 10,
        "occupancy_resolution": 32,
        "occupancy_warmup": 8,
        "occupancy_every": 4,
        "steps_across_box": 128,
        "target_num_samples": 2048,
        "warmup_steps": 2,
        "hidden_dim": 16,
    }
    for name, value in {**tiny, **model}.items():
        assert hasattr(config.pipeline.model, name)
        setattr(config.pipeline.model, name, value)
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
            model.field.encoding.mode,
            model.loop.temperature,
            model.field.quantize_weights,
            dict(model.loop.learning_rates),
        )
        history.append((losses, metrics, state))
    return history
