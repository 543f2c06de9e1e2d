"""A run without its data set: the cameras stored in a .shacira file and grey placeholder images.

Looking works (ns-viewer, ns-render camera-path, interpolate, spiral); measuring is refused, because
there are no images to compare with. Not an entry point: only `shacira import` writes such runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from nerfstudio.data.dataparsers.base_dataparser import (
    DataParser,
    DataParserConfig,
    DataparserOutputs,
)
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from PIL import Image

from shacira_nerfstudio.codec import load_scene
from shacira_nerfstudio.plugin.host_cameras import host_cameras

PLACEHOLDER_NAME = "placeholder.png"
"""Beside the .shacira file; stands for every image."""


@dataclass
class StoredCamerasDataParserConfig(DataParserConfig):
    """Serves the cameras that a .shacira file holds."""

    _target: type = field(default_factory=lambda: StoredCamerasDataParser)
    data: Path = Path("scene.shacira")
    """The .shacira file."""


@dataclass
class StoredCamerasDataParser(DataParser):
    """The same cameras for every split."""

    config: StoredCamerasDataParserConfig

    def _generate_dataparser_outputs(
        self, split: str = "train", **kwargs: Any
    ) -> DataparserOutputs:
        scene = load_scene(self.config.data)
        if scene.cameras is None or scene.rendering is None:
            raise ValueError(f"expected stored cameras in {self.config.data}, found none")
        cameras = host_cameras(scene.cameras)
        placeholder = self.config.data.with_name(PLACEHOLDER_NAME)
        return DataparserOutputs(
            image_filenames=[placeholder] * len(cameras),
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.from_numpy(scene.rendering.box.copy())),
        )


def write_placeholder(folder: Path) -> None:
    """A small grey image: the host loads one per camera, of whatever size."""
    Image.new("RGB", (16, 16), (128, 128, 128)).save(folder / PLACEHOLDER_NAME)


@dataclass
class StoredCamerasPipelineConfig(VanillaPipelineConfig):
    """A pipeline that looks but does not measure."""

    _target: type = field(default_factory=lambda: StoredCamerasPipeline)


class StoredCamerasPipeline(VanillaPipeline):
    """Refuses everything that would compare with placeholder images."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            "expected a data set, got the cameras stored in a .shacira file: without images there "
            "is nothing to compare with; run `shacira import` again with --data"
        )

    get_train_loss_dict = get_eval_loss_dict = _refuse
    get_eval_image_metrics_and_images = _refuse
    get_average_image_metrics = get_average_eval_image_metrics = _refuse
