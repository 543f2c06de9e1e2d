"""Opens runs and measures what they show on the test views of their data set."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.eval_utils import eval_setup

from shacira_nerfstudio.output_files import check_output_dir, write_file
from shacira_nerfstudio.plugin.exported_run import ExportedRunConfig
from shacira_nerfstudio.plugin.metrics import (
    ImageMetrics,
    has_lpips_weights,
    multiscale_ssim,
    unmasked,
)
from shacira_nerfstudio.plugin.model import ShaciraModel
from shacira_nerfstudio.progress import tracked

OnView = Callable[[np.ndarray, np.ndarray, str], None]
"""Gets truth and picture of a view, [H, W, 3] in [0, 1], and a line about it."""


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
        found = "a folder" if load_config.is_dir() else "nothing"
        within = [path for path in (load_config / "config.yml",) if path.is_file()]
        hint = f"; perhaps {within[0]}" if within else ""
        raise FileNotFoundError(f"expected a config.yml at {load_config}, found {found}{hint}")
    test_mode = "test" if with_views else "inference"
    try:
        with host_output_to_stderr():
            config, pipeline, checkpoint, step = eval_setup(
                load_config, test_mode=test_mode, update_config_callback=_check_paths
            )
    except yaml.YAMLError as error:
        raise ValueError(
            f"expected a config.yml of Nerfstudio's, got {load_config}: {error}"
        ) from None
    except AssertionError as error:  # how the host refuses a data set
        reason = str(error) or traceback.format_exc(-1)
        raise ValueError(f"expected a run that Nerfstudio opens, got: {reason}") from error
    if not isinstance(pipeline.model, ShaciraModel):
        raise ValueError(f"expected a run of method shacira, got {config.method_name}")
    return Run(config, pipeline, pipeline.model, checkpoint, step)


def _check_paths(config: TrainerConfig) -> TrainerConfig:
    """Raises FileNotFoundError for a run whose data set or checkpoints are gone; an export folder
    finds its own."""
    if isinstance(config, ExportedRunConfig):
        return config
    manager: Any = config.pipeline.datamanager
    data, checkpoints = manager.data or manager.dataparser.data, config.get_checkpoint_dir()
    if data is not None and not Path(data).exists():
        raise FileNotFoundError(
            f"expected the data set at {data}, found nothing: put it there, or change `data:` in "
            "config.yml"
        )
    if not any(checkpoints.glob("step-*.ckpt")):
        raise FileNotFoundError(
            f"expected checkpoints in {checkpoints}, found none: run this in the folder that the "
            "training ran in, and keep a run where it was written"
        )
    return config


@contextlib.contextmanager
def host_output_to_stderr() -> Iterator[None]:
    """What the host prints while it works is no result of ours."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def evaluate_run(
    load_config: Path,
    *,
    output_path: Path | None = None,
    render_output_path: Path | None = None,
    on_view: OnView | None = None,
) -> dict[str, float]:
    """Nerfstudio's own evaluation: means and standard deviations over the test images, under the
    names that ns-eval uses.

    Args:
        output_path: Where to write them as ns-eval does, JSON; None for nowhere.
        render_output_path: Folder for the rendered images.
        on_view: Gets each view as it is measured.
    """
    check_eval_targets(output_path, render_output_path)
    run = open_run(load_config)
    return evaluate_opened(
        run,
        run.checkpoint,
        output_path=output_path,
        render_output_path=render_output_path,
        on_view=on_view,
    )


def check_eval_targets(output_path: Path | None, render_output_path: Path | None) -> None:
    """Raises OSError for what :func:`evaluate_opened` could not write."""
    if output_path is not None:
        check_output_dir(output_path.parent)
    if render_output_path is not None:
        check_output_dir(render_output_path)


def evaluate_opened(
    run: Run,
    measured: Path,
    *,
    output_path: Path | None = None,
    render_output_path: Path | None = None,
    on_view: OnView | None = None,
) -> dict[str, float]:
    """:func:`evaluate_run` of what is open already.

    Args:
        measured: What the numbers are about: ns-eval's ``checkpoint``.
    """
    _check_test_images(run)
    loader: Any = run.pipeline.datamanager.fixed_indices_eval_dataloader  # pyright: ignore
    with _host_without_bars(), _views_shown(run, on_view):
        results: Any = run.pipeline.get_average_image_metrics(  # pyright: ignore
            _TrackedViews(loader), "eval", output_path=render_output_path, get_std=True
        )
    if output_path is not None:
        content = {
            "experiment_name": run.config.experiment_name,
            "method_name": run.config.method_name,
            "checkpoint": str(measured),
            "results": results,
        }
        output_path.parent.mkdir(parents=True, exist_ok=True)
        write_file(output_path, json.dumps(content, indent=2))
    return results


@contextlib.contextmanager
def _views_shown(run: Run, on_view: OnView | None) -> Iterator[None]:
    """Hands on what the host measures, view by view."""
    dataset: Any = run.pipeline.datamanager.eval_dataset  # pyright: ignore
    numbers = itertools.count()

    def show(truth: torch.Tensor, rendered: torch.Tensor, metrics: Mapping[str, float]) -> None:
        assert on_view is not None
        number = next(numbers)
        name = Path(dataset.image_filenames[number]).name
        values = f"PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}"
        on_view(truth.cpu().numpy(), rendered.cpu().numpy(), f"view {number}, {name}: {values}")

    run.model.on_view = None if on_view is None else show
    try:
        yield
    finally:
        run.model.on_view = None


class _TrackedViews:
    """The host's test views, which say how far they are."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        views: Iterable[Any] = self.loader
        return tracked(views, "evaluating", total=len(self), unit="test images")


class _Log:
    """Standard error that is no terminal, whatever it is: nobody draws bars there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def _host_without_bars() -> Iterator[None]:
    """As :func:`host_output_to_stderr`; our bar is the only one."""
    log: Any = _Log(sys.stderr)
    with contextlib.redirect_stdout(log):
        yield


def _check_test_images(run: Run) -> None:
    if not len(run.pipeline.datamanager.eval_dataset):  # pyright: ignore
        raise ValueError(
            f"expected test images in {run.pipeline.datamanager.get_datapath()}, found none: its "
            "data parser leaves all to training"
        )


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
        mask = batch.get("mask")
        row = metrics(predicted, truth, mask)
        ms_ssim = multiscale_ssim(unmasked(predicted, truth, mask), truth)
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
