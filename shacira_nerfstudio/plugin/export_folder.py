"""The export: a trained model to scene.shacira, in a folder that every ns-* command opens.

    OUT/scene.shacira              the product; its length is the size we report
    OUT/config.yml                 the run's configuration, which finds OUT/ckpt beside itself
    OUT/ckpt/step-000030000.ckpt   the file's bytes as a tensor, see plugin/bitstream.py

Whatever reads OUT/config.yml thus renders the decoded file, wherever OUT lies by then.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from rich.table import Table

from shacira_nerfstudio.codec import PackedScene, describe, encode_scene
from shacira_nerfstudio.codec.scene_file import encode_latents, read_file
from shacira_nerfstudio.compression.export_search import Progress, compress_within_loss
from shacira_nerfstudio.output_files import only_writer
from shacira_nerfstudio.plugin.evaluate import Run, open_run
from shacira_nerfstudio.plugin.export_files import (
    check_export_folder,
    check_round_trip,
    write_export_folder,
)
from shacira_nerfstudio.plugin.export_options import ExportOptions
from shacira_nerfstudio.plugin.host_cameras import camera_set
from shacira_nerfstudio.plugin.prefix_psnr import measure_prefixes
from shacira_nerfstudio.plugin.probe_rays import export_rays
from shacira_nerfstudio.plugin.progress_line import ProgressLine
from shacira_nerfstudio.plugin.run_metadata import run_metadata
from shacira_nerfstudio.plugin.stored_cameras import SCENE_NAME

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export wrote."""

    path: Path
    """The .shacira file."""
    description: dict[str, Any]
    """See :func:`shacira_nerfstudio.codec.describe`."""
    checkpoint_bytes: int | None
    """Length of the training checkpoint; None if the model came from a file already."""


def export_run(options: ExportOptions) -> ExportResult:
    """Exports the run, or the export folder, that ``options.load_config`` describes."""
    options.check()
    check_export_folder(options.output_dir)
    with only_writer(options.output_dir):
        return _export(options)


def _export(options: ExportOptions) -> ExportResult:
    with ProgressLine("export") as progress:
        progress("open the run", 0.0)
        run = open_run(options.load_config, with_views=False)
        scene, latents = _pack_run(run, options, progress)
        if latents is None:
            progress("encode latents", 0.0)
            latents = encode_latents(scene)
        data = encode_scene(scene, latents=latents)
        if options.psnr_views:
            progress("measure prefixes", 0.0)
            psnr = measure_prefixes(run.pipeline, data, num_views=options.psnr_views)
            scene = dataclasses.replace(scene, prefix_psnr=psnr)
            data = encode_scene(scene, latents=latents)
        progress("decode", 0.0)
        content = read_file(data)
        if options.verify:
            progress("verify", 0.0)
            check_round_trip(scene, data, content.scene)
        progress("write", 0.0)
        write_export_folder(run.config, run.step, data, options.output_dir)
        path = options.output_dir / SCENE_NAME
        if options.verify and path.read_bytes() != data:
            raise ValueError(f"expected {path} to hold what was written to it, found other bytes")
    size = None if run.is_file else run.checkpoint.stat().st_size
    return ExportResult(path, describe(data, content=content), size)


def _pack_run(
    run: Run, options: ExportOptions, progress: Progress
) -> tuple[PackedScene, list[bytes] | None]:
    """The scene of the file: of a run in as few bytes as its loss may allow, of an export folder
    the one that it holds; and its latents, if they were encoded for that."""
    model, meta = run.model, options.user_metadata
    if run.is_file:
        return model.pack(meta=meta, max_cameras=options.max_cameras), None
    dataset: Any = run.pipeline.datamanager.train_dataset
    about_run = run_metadata(
        run.config,
        run.step,
        rate_lambda=model.compressor.rate_lambda,
        num_train_images=len(dataset),
    )
    _say_which_cameras_are_missing(dataset.cameras, options)
    pack = partial(model.pack, meta={**about_run, **meta}, max_cameras=options.max_cameras)
    if not options.max_loss_db or model.config.target_size_kb:
        return pack(), None
    rays = export_rays(dataset, model.renderer_rgb.blend_background).to(model.device)
    return compress_within_loss(
        model.scene, pack, rays, max_loss_db=options.max_loss_db, progress=progress
    )


def _say_which_cameras_are_missing(cameras: Cameras, options: ExportOptions) -> None:
    storable = camera_set(cameras)
    count, total = 0 if storable is None else len(storable.sizes), len(cameras)
    if options.max_cameras and count < total:
        logger.warning(
            "%d of %d training cameras can be stored: a file holds pinhole cameras only, no "
            "fisheye or panorama%s",
            count,
            total,
            ""
            if count
            else "; `shacira render` will have no view, the ns-* commands need the data",
        )


def print_report(result: ExportResult, *, as_json: bool = False) -> None:
    """A table of where the bytes went, or what `shacira info` says as JSON."""
    if as_json:
        where = {"file": str(result.path), "checkpoint_bytes": result.checkpoint_bytes}
        print(json.dumps({**where, **result.description}, indent=2, sort_keys=True))
        return
    total = result.description["bytes"]
    table = Table("part", "bytes", "share", title=f"{result.path.name}: {total:,} bytes")
    for column in table.columns[1:]:
        column.justify = "right"
    for part, count in result.description["bytes_by_part"].items():
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
