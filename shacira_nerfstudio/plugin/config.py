"""The method as Nerfstudio sees it. Loaded inside every ns-* command: light, and it must not
fail."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from nerfstudio.configs.base_config import (
    LocalWriterConfig,
    LoggingConfig,
    MachineConfig,
    ViewerConfig,
)
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from shacira_nerfstudio.compression.options import LEARNING_RATES
from shacira_nerfstudio.model.sparse_row_adam import NetworkAdam, SparseRowAdam
from shacira_nerfstudio.plugin.console_line import TrainingLines
from shacira_nerfstudio.plugin.data_manager import ShaciraDataManagerConfig
from shacira_nerfstudio.plugin.export_command import extend_ns_export
from shacira_nerfstudio.plugin.model import ShaciraModel
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig


def default_device() -> str:
    """CUDA or Apple's GPU if there is one, else the CPU: nobody should need a flag for that."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass
class SparseRowAdamOptimizerConfig(OptimizerConfig):
    """Adam for the latents: each step updates the rows that it touched."""

    _target: type = field(default_factory=lambda: SparseRowAdam)
    lr: float = LEARNING_RATES["latents"]
    """Learning rate, in steps of the quantiser. Latents grow at this pace out of the noise that
    stands for rounding: one that is far too small costs more than a decibel."""
    eps: float = 1e-15
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the rows that a step touches."""


@dataclass
class NetworkAdamOptimizerConfig(OptimizerConfig):
    """Adam for networks and densities."""

    _target: type = field(default_factory=lambda: NetworkAdam)
    eps: float = 1e-15
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Weight decay, added to the gradient."""


def _adam(lr: float) -> dict:
    # No scheduler: learning rates follow compression/schedule.py, in plain floats that any torch
    # loads again.
    return {"optimizer": NetworkAdamOptimizerConfig(lr=lr), "scheduler": None}


shacira_method = MethodSpecification(
    config=TrainerConfig(
        method_name="shacira",
        max_num_iterations=0,  # what quality and capture take
        steps_per_save=500,
        steps_per_eval_batch=0,
        # An image of a phone has as many rays as hundreds of training steps: on request only.
        steps_per_eval_image=0,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(
            datamanager=ShaciraDataManagerConfig(
                dataparser=NerfstudioDataParserConfig(),
                train_num_rays_per_batch=4096,
                eval_num_rays_per_batch=4096,
                # Batches of held-out rays, if anyone asks for them, come from so many images; the
                # rest is read when it is evaluated, instead of taking memory all the time.
                eval_num_images_to_sample_from=4,
            ),
            model=ShaciraModelConfig(_target=ShaciraModel),
        ),
        optimizers={
            "latents": {"optimizer": SparseRowAdamOptimizerConfig(), "scheduler": None},
            **{name: _adam(lr) for name, lr in LEARNING_RATES.items() if name != "latents"},
        },
        logging=LoggingConfig(local_writer=LocalWriterConfig(_target=TrainingLines, enable=True)),
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer+tensorboard",
        machine=MachineConfig(device_type=default_device()),  # pyright: ignore[reportArgumentType]
    ),
    description="SHACIRA: a radiance field in one small, decodable file.",
)

try:
    extend_ns_export()
except Exception as error:  # a stock command must never suffer
    warnings.warn(f"ns-export has no shacira, use `shacira export`: {error!r}", stacklevel=1)
