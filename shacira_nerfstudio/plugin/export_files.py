"""The files of an export folder, see :mod:`shacira_nerfstudio.plugin.export_folder`, and what is
checked before and after they are written. Knows no runs."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig

from shacira_nerfstudio.codec import PackedScene, decode_scene, encode_scene
from shacira_nerfstudio.output_files import check_output_dir, write_file
from shacira_nerfstudio.plugin import bitstream
from shacira_nerfstudio.plugin.exported_run import CHECKPOINTS, ExportedRunConfig
from shacira_nerfstudio.plugin.stored_cameras import SCENE_NAME

MIN_EXPORT_BYTES = 16 << 20
"""Room that an export should find before it begins."""


def check_export_folder(folder: Path) -> None:
    """Refuses what cannot be written, and the folder of a run, whose checkpoints would be lost
    without its configuration."""
    check_output_dir(folder, MIN_EXPORT_BYTES)
    if (folder / "config.yml").exists() and not (folder / SCENE_NAME).exists():
        raise ValueError(
            f"expected a new folder or one of an earlier export or import as output_dir, got "
            f"{folder}, which has a config.yml of its own"
        )


def check_round_trip(scene: PackedScene, data: bytes, decoded: PackedScene | None = None) -> None:
    """Raises ValueError unless the bytes decode to the scene and encode to themselves.

    Args:
        decoded: What they decode to, where that has been done already.
    """
    decoded = decoded or decode_scene(data)
    if decoded != scene:
        raise ValueError("expected the file to decode to the packed scene, found another one")
    if encode_scene(decoded) != data:
        raise ValueError("expected the decoded file to encode to the same bytes, found others")


def write_export_folder(config: TrainerConfig, step: int, data: bytes, out: Path) -> None:
    """Writes the three files, each at once or not at all; config.yml last."""
    run = ExportedRunConfig.of(copy.deepcopy(config), step)
    manager: Any = run.pipeline.datamanager
    for owner in (run, manager, manager.dataparser):
        if isinstance(owner.data, Path) and owner.data.exists():
            owner.data = owner.data.resolve()  # the command may run in another folder
    state = {f"_model.{key}": value for key, value in bitstream.as_state_dict(data).items()}
    checkpoint = io.BytesIO()
    torch.save({"step": step, "pipeline": state}, checkpoint)
    wrapper = out / CHECKPOINTS / f"step-{step:09d}.ckpt"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    write_file(out / SCENE_NAME, data)
    write_file(wrapper, checkpoint.getvalue())
    write_file(out / "config.yml", yaml.dump(run))
    for earlier in wrapper.parent.glob("step-*.ckpt"):
        if earlier.name != wrapper.name:  # of an earlier export: nothing refers to it
            earlier.unlink()
