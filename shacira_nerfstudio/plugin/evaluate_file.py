"""A lone file, measured on the test pictures of a data set as ns-eval measures an export folder.

Such a folder is made for as long as that takes, and opened through the same door: there is no
second way to evaluate. A file does not say how its data set was read, so that the data parser and
its options are stated as for ns-train; what the file does know, its background, is filled in.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig

from shacira_nerfstudio.codec import PackedScene, load_scene
from shacira_nerfstudio.plugin.evaluate import (
    OnView,
    Run,
    check_eval_targets,
    evaluate_opened,
    host_output_to_stderr,
    open_run,
)
from shacira_nerfstudio.plugin.import_scene import (
    default_dataparser,
    import_scene,
    named_dataparser,
)

logger = logging.getLogger(__name__)
_BACKGROUND_OPTIONS = ("alpha_color", "background")
"""Options of data parsers that say what pictures with alpha are put on."""


def evaluate_file(
    file: Path,
    *,
    data: Path | None = None,
    dataparser: Sequence[str] = (),
    camera_res_scale_factor: float = 1.0,
    output_path: Path | None = None,
    render_output_path: Path | None = None,
    allow_truncated: bool = False,
    on_view: OnView | None = None,
) -> dict[str, float]:
    """Means and standard deviations over the test pictures, under the names that ns-eval uses.

    Args:
        data: The data set; None if the data parser's options name it.
        dataparser: Name of a data parser, then its options as after ``ns-train shacira``; by
            default the one that the file names, with its default options.
        camera_res_scale_factor: As the run had it: 0.5 measures at half of the pictures'
            resolution.
        output_path: Where to write the numbers as ns-eval does, JSON; None for nowhere.
        render_output_path: Folder for the rendered images.
        allow_truncated: Accept a file that was cut off.
        on_view: Gets each view as it is measured.
    """
    check_eval_targets(output_path, render_output_path)
    scene = load_scene(file, allow_truncated=allow_truncated)
    parser = _dataparser(scene, dataparser)
    data = data or _own_data(parser, dataparser)
    with tempfile.TemporaryDirectory(prefix="shacira_eval_") as folder:
        config = import_scene(
            file,
            Path(folder) / "export",
            data=data,
            dataparser=parser,
            camera_res_scale_factor=camera_res_scale_factor,
            allow_truncated=allow_truncated,
        )
        run = open_run(config)
        _say_if_sizes_differ(run, scene)
        return evaluate_opened(
            run,
            file,
            output_path=output_path,
            render_output_path=render_output_path,
            on_view=on_view,
        )


def _dataparser(scene: PackedScene, arguments: Sequence[str]) -> DataParserConfig:
    """With the options that are stated, and the file's background where none is."""
    name, options = (arguments[0], arguments[1:]) if arguments else (named_dataparser(scene), ())
    parser: Any = default_dataparser(name)
    assert scene.rendering is not None or scene.kind != "radiance_field"
    background = scene.rendering.background if scene.rendering else ""
    if background in ("white", "black"):
        for option in _BACKGROUND_OPTIONS:
            if hasattr(parser, option):
                setattr(parser, option, background)
    with host_output_to_stderr():
        return tyro.cli(
            tyro.conf.FlagConversionOff[type(parser)],  # pyright: ignore
            default=parser,
            args=list(options),
            prog=f"shacira eval FILE {name}",
        )


def _own_data(parser: Any, arguments: Sequence[str]) -> Path:
    if not any(argument.partition("=")[0] == "--data" for argument in arguments):
        raise ValueError("expected a data set to compare with (--data), got none")
    return Path(parser.data)


def _say_if_sizes_differ(run: Run, scene: PackedScene) -> None:
    """Numbers at another resolution are no mistake, but others than those of the training run."""
    manager: Any = run.pipeline.datamanager
    if scene.cameras is None:
        return
    cameras = manager.train_dataset.cameras
    found = {(int(w), int(h)) for w, h in zip(cameras.width, cameras.height, strict=True)}
    stored = {(int(w), int(h)) for w, h in scene.cameras.sizes}
    if found & stored:
        return
    (width, height), (own_width, own_height) = max(found), max(stored)
    factor = manager.config.camera_res_scale_factor * own_width / width
    logger.warning(
        "the file was trained on pictures of %dx%d, these are %dx%d: its export folder is measured "
        "with the former; if the run scaled them, --camera-res-scale-factor %.4g does so here",
        own_width,
        own_height,
        width,
        height,
        factor,
    )
