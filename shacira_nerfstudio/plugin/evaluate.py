"""Opens runs and measures what they show on the test views of their data set."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.eval_utils import eval_setup

from shacira_nerfstudio.plugin.metrics import ImageMetrics, has_lpips_weights, multiscale_ssim
from shacira_nerfstudio.plugin.model import ShaciraModel


@dataclass(frozen=True)
class Run:
    """A run, or an export folder, as every ns-* command opens it."""

    config: TrainerConfig
    pipeline: Pipeline
    model: ShaciraModel
    checkpoint: Path
    step: int

    @property
    def is_file(self) -> bool:
        """Whether it holds a file instead of trained weights."""
        return self.model.file_scene is not None


def open_run(load_config: Path, *, with_views: bool = True) -> Run:
    """Opens what a config YAML file describes.

    Args:
        with_views: Also open the images, of the test split; without them it only renders.
    """
    if not load_config.is_file():
        raise FileNotFoundError(f"expected a config YAML file at {load_config}")
    test_mode = "test" if with_views else "inference"
    config, pipeline, checkpoint, step = eval_setup(load_config, test_mode=test_mode)
    if not isinstance(pipeline.model, ShaciraModel):
        raise ValueError(f"expected a run of method shacira, got {config.method_name}")
    return Run(config, pipeline, pipeline.model, checkpoint, step)


def evaluate_run(
    load_config: Path, *, output_path: Path | None = None, render_output_path: Path | None = None
) -> dict[str, float]:
    """Nerfstudio's own evaluation: means and standard deviations over the test images, under the
    names that ns-eval uses.

    Args:
        output_path: Where to write them as ns-eval does, JSON; None for nowhere.
        render_output_path: Folder for the rendered images.
    """
    run = open_run(load_config)
    results: Any = run.pipeline.get_average_eval_image_metrics(
        output_path=render_output_path, get_std=True
    )
    if output_path is not None:
        content = {
            "experiment_name": run.config.experiment_name,
            "method_name": run.config.method_name,
            "checkpoint": str(run.checkpoint),
            "results": results,
        }
        output_path.parent.mkdir(parents=True, exist_ok=True)
        output_path.write_text(json.dumps(content, indent=2), "utf8")
    return results


@torch.no_grad()
def measure_views(pipeline: Pipeline) -> dict[str, Any]:
    """Renders all test views: means of the metrics over views, and the seconds of rendering alone.

    MS-SSIM is absent if views are too small for it, LPIPS (AlexNet) if its weights are not on this
    machine: nothing is downloaded.
    """
    pipeline.eval()
    model = pipeline.model
    assert isinstance(model, ShaciraModel)
    metrics = ImageMetrics(use_lpips=has_lpips_weights())
    rows: list[dict[str, float]] = []
    seconds = 0.0
    size = [0, 0]
    for camera, batch in pipeline.datamanager.fixed_indices_eval_dataloader:  # pyright: ignore
        if not rows:
            _warm_up(model, camera)
        begin = time.perf_counter()
        outputs = model.get_outputs_for_camera(camera)
        _wait(model)
        seconds += time.perf_counter() - begin
        predicted = outputs["rgb"]
        truth = model.renderer_rgb.blend_background(batch["image"].to(model.device))
        row = metrics(predicted, truth)
        ms_ssim = multiscale_ssim(predicted, truth)
        rows.append(row if ms_ssim is None else {**row, "ms_ssim": ms_ssim})
        size = [int(truth.shape[1]), int(truth.shape[0])]
    if not rows:
        raise ValueError("expected test views, found none")
    # A metric that some view has no value for has no mean.
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {
        **{name: sum(row[name] for row in rows) / len(rows) for name in names},
        "psnr_by_view": [round(row["psnr"], 4) for row in rows],
        "num_views": len(rows),
        "resolution": size,
        "render_seconds": seconds,
        "backend": _backend_description(model),
    }


def _backend_description(model: ShaciraModel) -> str:
    """Backend, device, and the number format in which networks are trained if it is a short one."""
    backend, where = model.scene.encoding.backend, model.device.type
    if where == "cuda":
        where = f"{where} ({torch.cuda.get_device_name(model.device)})"
    short = backend.precision != "float32"
    trained = f", networks trained in {backend.precision}" if short else ""
    return f"{backend.name} on {where}{trained}"


def _warm_up(model: ShaciraModel, camera: Any) -> None:
    """Renders a thumbnail: kernels are compiled or loaded on first use, which is no rendering."""
    small = copy.deepcopy(camera)
    small.rescale_output_resolution(32 / max(int(camera.width), int(camera.height)))
    model.get_outputs_for_camera(small)
    _wait(model)


def _wait(model: ShaciraModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
