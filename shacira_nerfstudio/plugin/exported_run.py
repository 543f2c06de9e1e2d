"""The configuration in an export folder, which finds its checkpoint beside itself.

An export folder is renamed, copied and sent, but the host does not tell a configuration where it
was read from (``eval_setup``). The path is taken from that function's frame: the one thing that all
ns-* commands and ours go through. Whoever reads the YAML in another way gets an error, never the
checkpoint of another folder.

The path of this module is part of every configuration that is saved; it does not move.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig

from shacira_nerfstudio.plugin.stored_cameras import (
    SCENE_NAME,
    StoredCamerasDataParserConfig,
    has_stored_cameras,
    use_stored_cameras,
)

CHECKPOINTS = Path("ckpt")


@dataclasses.dataclass
class ExportedRunConfig(TrainerConfig):
    """Of a run that consists of a file: it can be looked at and measured, not trained."""

    @classmethod
    def of(cls, config: TrainerConfig, step: int) -> ExportedRunConfig:
        """A run's configuration for a folder that holds the file of a step; shares its parts."""
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        # The step is stated, because the folder may hold an earlier export's checkpoint.
        values |= {"load_dir": None, "load_step": step, "output_dir": Path(".")}
        values |= {"experiment_name": ".", "timestamp": ".", "relative_model_dir": CHECKPOINTS}
        return cls(**values)

    def get_base_dir(self) -> Path:
        return Path(self.output_dir)

    def get_checkpoint_dir(self) -> Path:
        """Beside the YAML file that the host is loading. The first thing that it asks for: paths
        of this folder are made right here."""
        path = _path_that_is_loading()
        if path is None:
            raise ValueError(
                "expected an export folder to be opened by nerfstudio's eval_setup, as ns-viewer, "
                "ns-eval and ns-render do, got a configuration that is used in another way; it "
                "cannot be trained"
            )
        self.output_dir = path.resolve().parent
        checkpoint = self.output_dir / CHECKPOINTS / f"step-{self.load_step or 0:09d}.ckpt"
        if not checkpoint.is_file():
            raise FileNotFoundError(
                f"expected {checkpoint} beside {path}, found nothing: an export folder is whole or "
                f"not at all; `shacira import {SCENE_NAME} --output-dir NEW` makes one of a file"
            )
        self._find_data()
        return checkpoint.parent

    def _find_data(self) -> None:
        """Takes the cameras in the file where the data set is not on this machine."""
        manager: Any = self.pipeline.datamanager
        file = self.output_dir / SCENE_NAME
        if isinstance(manager.dataparser, StoredCamerasDataParserConfig):
            manager.dataparser.data = file
            return
        data = manager.data or manager.dataparser.data
        if data is None or Path(data).exists():
            return
        remedy = f"`shacira import {file} --output-dir NEW --data DATA` takes another one"
        if not (file.is_file() and has_stored_cameras(file)):
            raise FileNotFoundError(f"expected the data set at {data}, found nothing: {remedy}")
        warnings.warn(
            f"expected the data set at {data}, found nothing: showing the cameras stored in the "
            f"file, which cannot be evaluated; {remedy}",
            stacklevel=2,
        )
        use_stored_cameras(self, file)


def _path_that_is_loading() -> Path | None:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "nerfstudio.utils.eval_utils":
            path = frame.f_locals.get("config_path")
            if isinstance(path, Path):
                return path
        frame = frame.f_back
    return None
