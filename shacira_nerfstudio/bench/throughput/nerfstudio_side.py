"""What `shacira bench throughput` needs of Nerfstudio: its own modules, its trainer, nerfacto.

Both methods run through the host's real trainer on the same data set, data manager and cameras.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.field_components.encodings import HashEncoding
from torch import Tensor, nn

from shacira_nerfstudio.bench.scene_folders import guess_dataparser
from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.plugin import bitstream
from shacira_nerfstudio.plugin.config import shacira_method
from shacira_nerfstudio.plugin.model import ShaciraModel

# ── modules ──


def hash_encoding(
    num_levels: int, min_res: int, max_res: int, log2_hashmap_size: int, features_per_level: int
) -> nn.Module:
    """The host's hash grid in torch."""
    return HashEncoding(
        num_levels, min_res, max_res, log2_hashmap_size, features_per_level, implementation="torch"
    )


# ── runs ──


def our_trainer(
    data: Path,
    output_dir: Path,
    *,
    options: Mapping[str, Any],
    dataparser: str | None = None,
    device: str = "cpu",
) -> Trainer:
    """The method as registered, set up on a scene.

    Args:
        options: Dotted names of :class:`ShaciraModelConfig` that differ from the defaults.
    """
    config = copy.deepcopy(shacira_method.config)
    _set(config.pipeline.model, options)
    return _set_up(config, data, output_dir, dataparser, device)


def nerfacto_trainer(
    data: Path,
    output_dir: Path,
    *,
    options: Mapping[str, Any],
    dataparser: str | None = None,
    device: str = "cpu",
) -> Trainer:
    """nerfacto with its defaults, on the data manager that ours has; in torch, on a GPU with
    tiny-cuda-nn where that is installed.

    Its own data manager samples pixels in a process beside the trainer, which would go on while
    ours is timed; against steps of seconds that sampling is nothing.
    """
    config = copy.deepcopy(all_methods["nerfacto"])
    config.pipeline.datamanager = copy.deepcopy(shacira_method.config.pipeline.datamanager)
    config.pipeline.model.implementation = nerfacto_implementation(device)
    _set(config.pipeline.model, options)
    # It builds LPIPS, whose weights it would download, for evaluation only: none here.
    with mock.patch("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", _NoMetric):
        return _set_up(config, data, output_dir, dataparser, device)


def nerfacto_implementation(device: str) -> str:
    """What nerfacto's grids and networks run on: tcnn or torch."""
    has_tcnn = importlib.util.find_spec("tinycudann") is not None
    return "tcnn" if device.startswith("cuda") and has_tcnn else "torch"


class _NoMetric(nn.Module):
    """Stands for a metric that is never computed."""

    def __init__(self, **options: Any) -> None:
        super().__init__()


def _set(config: Any, options: Mapping[str, Any]) -> None:
    for path, value in options.items():
        *groups, name = path.split(".")
        node = functools.reduce(getattr, groups, config)
        if not hasattr(node, name):
            raise ValueError(f"expected an option of {type(config).__name__}, got {path!r}")
        setattr(node, name, value)


def _set_up(
    config: TrainerConfig, data: Path, output_dir: Path, dataparser: str | None, device: str
) -> Trainer:
    name = dataparser or guess_dataparser(data)
    if name not in all_dataparsers:
        raise ValueError(f"expected a data parser of {sorted(all_dataparsers)}, got {name!r}")
    manager: Any = config.pipeline.datamanager
    manager.dataparser = copy.deepcopy(all_dataparsers[name])
    manager.dataparser.data = manager.data = config.data = data
    config.output_dir, config.experiment_name, config.timestamp = output_dir, "bench", "run"
    machine: Any = config.machine
    config.vis, machine.device_type = "tensorboard", torch.device(device).type
    torch.manual_seed(config.machine.seed)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One training step, callbacks included."""

    seconds: float
    """Of the host; a GPU may be behind."""
    num_rays: int
    num_samples: int
    """Samples that all networks of the field saw, with gradients."""
    num_marched: int
    """Samples whose density was asked for: by ours without gradient, by nerfacto in proposals."""


def run_steps(trainer: Trainer, begin: int, count: int) -> list[StepRecord]:
    """Steps with their callbacks, as the host's own loop does them, without its log and saves."""
    records, finite = [], []
    for step in range(begin, begin + count):
        start = time.perf_counter()
        trainer.step = step
        trainer.pipeline.train()
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=Location.BEFORE_TRAIN_ITERATION)
        _, losses, metrics = trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=Location.AFTER_TRAIN_ITERATION)
        seconds = time.perf_counter() - start
        finite.append({name: torch.isfinite(loss.detach()) for name, loss in losses.items()})
        records.append(StepRecord(seconds, *_counts(trainer, metrics)))
    for step, losses in enumerate(finite, begin):  # afterwards: a GPU is not waited for in between
        broken = [name for name, is_finite in losses.items() if not bool(is_finite)]
        if broken:
            raise RuntimeError(f"expected finite losses at step {step}, got others: {broken}")
    return records


def _counts(trainer: Trainer, metrics: Mapping[str, Any]) -> tuple[int, int, int]:
    model: Any = trainer.pipeline.model
    if isinstance(model, ShaciraModel):
        names = ("num_rays", "num_samples", "num_samples_marched")
        rays, samples, marched = (int(metrics[name]) for name in names)
        return rays, samples, marched
    rays = trainer.pipeline.datamanager.get_train_rays_per_batch()
    samples = rays * model.config.num_nerf_samples_per_ray
    return rays, samples, samples + rays * sum(model.config.num_proposal_samples_per_ray)


def fastest_steps(nerfacto: Trainer) -> tuple[int, int]:
    """The step from which nerfacto updates its proposal networks as rarely as it ever does, and
    the number of steps from one update to the next."""
    config: Any = nerfacto.pipeline.model.config
    return config.proposal_warmup, config.proposal_update_every + 1


# ── models and cameras ──


def twin(model: ShaciraModel, backend: str, file: bytes | None = None) -> ShaciraModel:
    """A model of the same content with another backend, or one that renders a decoded file."""
    config = dataclasses.replace(model.config, backend=backend)
    other = config.setup(
        scene_box=model.scene_box,
        num_train_data=model.num_train_data,
        metadata=model.kwargs.get("metadata"),
        device=str(model.device),
        grad_scaler=None,
    ).to(model.device)
    if file is not None:
        other.load_state_dict(bitstream.as_state_dict(file))
    else:
        other.load_state_dict(model.state_dict())
        # Backends draw noise of their own; rounded, all latents would be 0 early in training.
        other.scene.encoding.set_quantizer(get_quantizer("none"), 1.0)
        other.scene.field.quantize_weights = model.scene.field.quantize_weights
    return other.eval()


def own_file(model: ShaciraModel) -> bytes:
    """The file of what a model has learned so far."""
    return encode_scene(model.pack())


def render_own_file(trainer: Trainer) -> Tensor:
    """The first held-out view of the file of a run, [H, W, 3]."""
    model: Any = trainer.pipeline.model
    decoded = twin(model, model.config.backend, own_file(model))
    return decoded.get_outputs_for_camera(view(eval_cameras(trainer), 0))["rgb"]


def training_batch(trainer: Trainer, count: int) -> tuple[RayBundle, dict[str, Tensor]]:
    """So many rays of a training batch, and their pixels."""
    bundle: Any
    bundle, batch = trainer.pipeline.datamanager.next_train(trainer.step)
    return bundle[:count], {"image": batch["image"][:count]}


def loss_and_grads(
    model: ShaciraModel, bundle: RayBundle, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Colours of a training step, and the gradients that its colour loss gives parameters."""
    model.train()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)  # the same jitter for all
    outputs = model.get_outputs(copy.copy(bundle))
    model.get_loss_dict(outputs, batch)["rgb_loss"].backward()
    grads = {
        name: p.grad.to_dense() if p.grad.is_sparse else p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    return outputs["rgb"].detach(), grads


def eval_cameras(trainer: Trainer) -> Cameras:
    """Held-out views."""
    dataset: Any = trainer.pipeline.datamanager.eval_dataset
    return dataset.cameras


def view(cameras: Cameras, index: int, max_rays: int | None = None) -> Cameras:
    """One camera, [1], with at most about ``max_rays`` pixels."""
    camera = copy.deepcopy(cameras[index : index + 1])
    total = int(camera.height) * int(camera.width)
    if max_rays is not None and total > max_rays:
        camera.rescale_output_resolution((max_rays / total) ** 0.5)
    return camera


def camera_rays(camera: Cameras) -> RayBundle:
    """All rays of a view, [R]."""
    return camera.generate_rays(camera_indices=0, keep_shape=True).flatten()
