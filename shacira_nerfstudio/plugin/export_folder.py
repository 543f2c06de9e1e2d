"""The export: a trained model to scene.shacira, in a folder that every ns-* command opens.

    OUT/scene.shacira              the product; its length is the size we report
    OUT/config.yml                 the run's configuration, pointed at OUT/ckpt
    OUT/ckpt/step-000030000.ckpt   the file's bytes as a tensor, see plugin/bitstream.py

Whatever reads OUT/config.yml thus renders the decoded file.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from rich.table import Table

from shacira_nerfstudio import __version__
from shacira_nerfstudio.codec import (
    CameraSet,
    PackedScene,
    decode_scene,
    describe,
    encode_scene,
    save_scene,
)
from shacira_nerfstudio.codec.sections.cameras import rounded_cameras
from shacira_nerfstudio.compression.pack import mean_appearance, pack_field, render_settings
from shacira_nerfstudio.plugin.bitstream import KEY
from shacira_nerfstudio.compression.export_search import economical_scene
from shacira_nerfstudio.plugin.export_command import MAX_CAMERAS, ExportShacira
from shacira_nerfstudio.plugin.model import ShaciraModel
from shacira_nerfstudio.plugin.prefix_psnr import measure_prefixes

if TYPE_CHECKING:
    from nerfstudio.pipelines.base_pipeline import Pipeline

SCENE_NAME = "scene.shacira"


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export wrote."""

    path: Path
    """The .shacira file."""
    facts: dict[str, Any]
    """See :func:`shacira_nerfstudio.codec.describe`."""
    checkpoint_bytes: int | None
    """Length of the training checkpoint; None if the model came from a file already."""


def export_run(options: ExportShacira) -> ExportResult:
    """Exports the run, or the export folder, that ``options.load_config`` describes."""
    for name in ("max_cameras", "psnr_views", "max_loss_db"):
        if getattr(options, name) < 0:
            raise ValueError(f"expected {name} of 0 or more, got {getattr(options, name)}")
    if not options.load_config.is_file():
        raise FileNotFoundError(f"expected a config YAML file at {options.load_config}")
    _check_output_dir(options.output_dir)
    config, pipeline, checkpoint, step = eval_setup(options.load_config, test_mode="inference")
    model = pipeline.model
    if not isinstance(model, ShaciraModel):
        raise ValueError(f"expected a run of method shacira, got {config.method_name}")
    stated = {name: getattr(options, name) for name in ("comment", "author", "licence")}
    stated = {name: text for name, text in stated.items() if text}
    is_run = model.file_scene is None
    if model.file_scene is not None:
        scene = repack_file(model.file_scene, meta=stated, max_cameras=options.max_cameras)
    else:
        pack = partial(
            pack_run, model, config, pipeline, step, stated=stated, max_cameras=options.max_cameras
        )
        if options.max_loss_db and not model.config.target_size_kb:
            scene = economical_scene(pipeline, pack, max_loss_db=options.max_loss_db)
        else:
            scene = pack()
    data = encode_scene(scene)
    if options.psnr_views:
        psnr = measure_prefixes(pipeline, data, num_views=options.psnr_views)
        scene = dataclasses.replace(scene, prefix_psnr=psnr)
        data = encode_scene(scene)
    if options.verify:
        check_round_trip(scene, data)
    write_export_folder(config, step, data, options.output_dir)
    path = options.output_dir / SCENE_NAME
    if options.verify and path.read_bytes() != data:
        raise ValueError(f"expected {path} to hold what was written to it, found other bytes")
    return ExportResult(path, describe(data), checkpoint.stat().st_size if is_run else None)


def _check_output_dir(out: Path) -> None:
    """Refuses to overwrite the configuration of a run, without which its checkpoints are lost."""
    if (out / "config.yml").exists() and not (out / SCENE_NAME).exists():
        raise ValueError(
            f"expected a new folder or one of an earlier export as output_dir, got {out}, which "
            f"has a config.yml of its own"
        )


def pack_run(
    model: ShaciraModel,
    config: TrainerConfig,
    pipeline: Pipeline,
    step: int,
    occupied: torch.Tensor | None = None,
    *,
    stated: Mapping[str, str | int] | None = None,
    max_cameras: int = MAX_CAMERAS,
) -> PackedScene:
    """The scene that the file of a run holds, with what it says about the run.

    Args:
        occupied: Occupied cells; by default the model's own.
        stated: Further facts.
    """
    meta = {**training_facts(config, pipeline, step), **(stated or {})}
    return pack_model(model, occupied, meta=meta, max_cameras=max_cameras)


def pack_model(
    model: ShaciraModel,
    occupied: torch.Tensor | None = None,
    *,
    meta: Mapping[str, str | int] | None = None,
    max_cameras: int = MAX_CAMERAS,
) -> PackedScene:
    """The scene that a model's file holds, trained or itself from a file; a trained one's weights
    have the bits of training.

    Args:
        occupied: Occupied cells; by default the model's own.
    """
    settings, config = model.settings, model.config
    facts = (model.kwargs.get("metadata") or {}).get("shacira") or {}
    return pack_field(
        model.field,
        model.occupancy.occupied if occupied is None else occupied,
        render_settings(
            settings.render,
            background=settings.background,
            background_color=settings.background_color,
            early_stop=config.early_stop,
        ),
        appearance=mean_appearance(model.appearance),
        cameras=_stored_cameras(facts.get("cameras"), max_cameras),
        meta=meta,
        num_levels_present=model.file_scene and model.file_scene.num_levels_present,
    )


def repack_file(
    scene: PackedScene, *, meta: Mapping[str, str | int], max_cameras: int
) -> PackedScene:
    """A decoded file's scene, with new facts on top of its own: without any, the same file."""
    return dataclasses.replace(
        scene,
        meta={**scene.meta, **meta},
        cameras=thin_cameras(scene.cameras, max_cameras),
    )


def training_facts(config: TrainerConfig, pipeline: Pipeline, step: int) -> dict[str, str | int]:
    """What the file says about how it was made: no paths, no dates, nothing about the machine."""
    model, parser = config.pipeline.model, config.pipeline.datamanager.dataparser
    names = [name for name, known in all_dataparsers.items() if type(known) is type(parser)]
    return {
        "tool": f"shacira_nerfstudio {__version__}",
        "method": str(config.method_name),
        "step": step,
        "max_num_iterations": config.max_num_iterations,
        **_rate_facts(pipeline.model),
        "quantizer": model.quantizer,
        "dataparser": names[0] if names else type(parser).__name__,
        "num_train_images": len(pipeline.datamanager.train_dataset),
    }


def _rate_facts(model: ShaciraModel) -> dict[str, str]:
    """The weight of the rate at the end, and what it was steered to, if it was."""
    facts = {"rate_lambda": f"{model.rate_steering.rate_lambda:.4g}"}
    for name in ("target_size_kb", "target_psnr"):
        if getattr(model.config, name):
            facts[name] = f"{getattr(model.config, name):g}"
    return facts


def camera_set(cameras: Cameras | None) -> CameraSet | None:
    """The pinhole cameras among the host's, without lens distortion; None if there are none."""
    if cameras is None:
        return None
    cameras = cameras.flatten().to("cpu")
    cameras = cameras[cameras.camera_type[:, 0] == CameraType.PERSPECTIVE.value]
    if not len(cameras):
        return None
    optics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], 1)
    return CameraSet(
        camera_to_worlds=cameras.camera_to_worlds.numpy().astype(np.float32),
        intrinsics=optics.numpy().astype(np.float32),
        sizes=torch.cat([cameras.width, cameras.height], 1).numpy().astype(np.uint32),
    )


def _stored_cameras(cameras: Cameras | None, count: int) -> CameraSet | None:
    """Some of the host's cameras with poses that are small in a file."""
    chosen = thin_cameras(camera_set(cameras), count)
    return None if chosen is None else rounded_cameras(chosen)


def thin_cameras(cameras: CameraSet | None, count: int) -> CameraSet | None:
    """At most so many cameras, evenly spread over their order."""
    if cameras is None or count == 0:
        return None
    total = len(cameras.sizes)
    keep = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    return CameraSet(cameras.camera_to_worlds[keep], cameras.intrinsics[keep], cameras.sizes[keep])


def check_round_trip(scene: PackedScene, data: bytes) -> None:
    """Raises ValueError unless the bytes decode to the scene and encode to themselves."""
    decoded = decode_scene(data)
    if decoded != scene:
        raise ValueError("expected the file to decode to the packed scene, found another one")
    if encode_scene(decoded) != data:
        raise ValueError("expected the decoded file to encode to the same bytes, found others")


def write_export_folder(config: TrainerConfig, step: int, data: bytes, out: Path) -> None:
    """Writes the three files, each at once or not at all; config.yml last."""
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    run = copy.deepcopy(config)
    run.load_dir, run.output_dir = None, out
    run.experiment_name = run.timestamp = "."
    # Absolute: wins over method and timestamp folders. The step is stated, because the folder may
    # hold an earlier export's checkpoint of a later step.
    run.relative_model_dir, run.load_step = out / "ckpt", step
    manager = run.pipeline.datamanager
    for owner in (run, manager, manager.dataparser):
        if isinstance(owner.data, Path) and owner.data.exists():
            owner.data = owner.data.resolve()  # the command may run in another folder
    bits = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    checkpoint = io.BytesIO()
    torch.save({"step": step, "pipeline": {f"_model.{KEY}": bits}}, checkpoint)
    save_scene(out / SCENE_NAME, data)
    run.relative_model_dir.mkdir(exist_ok=True)
    # The host reads every name in that folder as a step: the unfinished file lies elsewhere.
    part = out / ".ckpt.part"
    part.write_bytes(checkpoint.getvalue())
    os.replace(part, run.relative_model_dir / f"step-{step:09d}.ckpt")
    part = out / ".config.yml.part"
    part.write_text(yaml.dump(run), "utf8")
    os.replace(part, out / "config.yml")


def print_report(result: ExportResult, *, as_json: bool = False) -> None:
    """A table of where the bytes went, or what `shacira info` says as JSON."""
    if as_json:
        facts = {"file": str(result.path), "checkpoint_bytes": result.checkpoint_bytes}
        print(json.dumps({**facts, **result.facts}, indent=2, sort_keys=True))
        return
    total = result.facts["bytes"]
    table = Table("part", "bytes", "share", title=f"{result.path.name}: {total:,} bytes")
    for column in table.columns[1:]:
        column.justify = "right"
    for part, count in result.facts["bytes_by_part"].items():
        table.add_row(part, f"{count:,}", f"{100 * count / total:.1f} %")
    table.add_section()
    table.add_row("total", f"{total:,}", "100.0 %")
    if result.checkpoint_bytes is not None:
        ratio = result.checkpoint_bytes / total
        table.add_row("training checkpoint", f"{result.checkpoint_bytes:,}", f"{ratio:.1f} times")
    CONSOLE.print(table)
    path = result.path.resolve()
    CONSOLE.print(f":white_check_mark: {escape(str(path))}", soft_wrap=True)
    opens = f"ns-viewer --load-config {path.with_name('config.yml')}"
    CONSOLE.print(f"Look at it with {escape(opens)}", soft_wrap=True)
