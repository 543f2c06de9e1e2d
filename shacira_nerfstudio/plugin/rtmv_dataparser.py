"""Nerfstudio's door to RTMV scenes, and the data set class that reads linear images.

It and what it imports know no data manager, pipeline or trainer: Nerfstudio loads data parser entry
points while ``base_datamanager`` is half imported, so anything more would be a circular import that
takes every ns-* command down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import (
    DataParser,
    DataParserConfig,
    DataparserOutputs,
)
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from numpy.typing import NDArray
from torch import Tensor

from shacira_nerfstudio.plugin import quick_start
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.input_check import FILE_SIZES, camera_sizes
from shacira_nerfstudio.scenes import rtmv
from shacira_nerfstudio.scenes.picture_files import read_lossy_mask, read_pixels

RANDOM = rtmv.RANDOM
PLACEHOLDERS = "shacira_placeholders"
"""Metadata of a data set without pictures: grey ones stand for them, whatever their names."""


@dataclass
class RtmvDataParserConfig(DataParserConfig):
    """Reads an RTMV scene: NNNNN.json, NNNNN.exr (or .png, .jpg), NNNNN.depth.exr."""

    _target: type = field(default_factory=lambda: RtmvDataParser)
    data: Path = Path("data/rtmv/V8")
    """Folder of the scene."""
    background: Literal["white", "black", "random"] = "white"
    """Colour behind the scene, composited with the images' alpha in linear light; random puts each
    training ray on a colour of its own, and evaluates on black."""
    exposure: float = 0.0
    """Gain on the scene's linear colours in stops; +1 doubles them before they are clipped."""
    images: Literal["auto", "exr", "png", "jpg"] = "auto"
    """Which files to read where views have several; auto: exr before png before jpg."""
    downscale_factor: int | None = None
    """Whole factor to shrink images by, averaging in linear light; chosen by max_size if None."""
    max_size: int = 0
    """Longest image side in pixels that the automatic downscale_factor allows; 0 for any."""
    train_share: float = 2 / 3
    """Share of the views, by order from the first on, that training sees; 1 for all."""
    val_share: float = 1 / 30
    """Share of the views, those after, that training is evaluated on; the rest is for ns-eval."""
    eval_interval: int = 0
    """If above 0, every so-manieth view is held out for both instead, and all others train."""
    normalization: Literal["auto", "depth", "box"] = "auto"
    """Where the scene's bounds come from: depth of the training views, the box in the JSON files
    (quicker, less tight), or auto: depth if every training view has it, else the box."""
    scale_factor: float = 0.98
    """Half extent of the scene's longest side in the box [-1, 1]^3; below 1 leaves a margin."""


@dataclass
class RtmvDataParser(DataParser):
    """Cameras and file names of an RTMV scene, moved and scaled to fit [-1, 1]^3.

    Splits are RTMV's by default: two thirds train, the next thirtieth val, the rest test. Training
    evaluates on val, ns-eval on test. Scenes of less than 30 views have no val; test serves both.
    """

    config: RtmvDataParserConfig

    @cached_property
    def frames(self) -> tuple[rtmv.RtmvFrame, ...]:
        """All views of the scene."""
        kind = self.config.images
        suffixes = {"auto": rtmv.IMAGE_SUFFIXES, "jpg": (".jpg", ".jpeg")}.get(kind, (f".{kind}",))
        return rtmv.read_rtmv_scene(self.config.data, suffixes)

    @cached_property
    def splits(self) -> dict[str, Sequence[int]]:
        """Numbers of views by split; one that would be empty gets those of its neighbour."""
        config = self.config
        found = rtmv.split_indices(
            len(self.frames),
            train_share=config.train_share,
            val_share=config.val_share,
            interval=config.eval_interval,
        )
        val = found["val"] or found["test"] or found["train"]
        return {"train": found["train"], "val": val, "test": found["test"] or val}

    @cached_property
    def normalization(self) -> rtmv.RtmvNormalization:
        """From world space to [-1, 1]^3, by the training views for every split."""
        kind, scale_factor = self.config.normalization, self.config.scale_factor
        if not scale_factor > 0:
            raise ValueError(f"expected a scale_factor above 0, got {scale_factor}")
        train = [self.frames[index] for index in self.splits["train"]]
        bounds = rtmv.normalization_from_depth(train) if kind in ("auto", "depth") else None
        if bounds is None and kind in ("auto", "box"):
            bounds = rtmv.normalization_from_box(self.frames)
        if bounds is None:
            wanted = {"depth": "depth", "box": "a scene box"}.get(kind, "depth or a scene box")
            raise ValueError(f"expected {wanted} for every view in {self.config.data}, found none")
        return rtmv.RtmvNormalization(bounds.center, bounds.scale * scale_factor)

    @property
    def downscale(self) -> int:
        """The factor that applies, whether configured or automatic."""
        factor = self.config.downscale_factor
        if factor is None:
            if not self.config.max_size:
                return 1
            longest = max(max(frame.width, frame.height) for frame in self.frames)
            return max(1, math.ceil(longest / self.config.max_size))
        if factor < 1 or factor != int(factor):  # ns-render sets a float
            raise ValueError(f"expected a whole downscale_factor of 1 or more, got {factor}")
        return int(factor)

    def _generate_dataparser_outputs(
        self, split: str = "train", **kwargs: Any
    ) -> DataparserOutputs:
        if split not in self.splits:
            raise ValueError(f"expected a split of {sorted(self.splits)}, got {split!r}")
        frames = [self.frames[index] for index in self.splits[split]]
        to_unit, config = self.normalization, self.config
        transform = torch.eye(4)[:3]
        transform[:, 3] = -torch.tensor(to_unit.center)
        return DataparserOutputs(
            image_filenames=[frame.image_path for frame in frames],
            cameras=_cameras(frames, to_unit, self.downscale),
            alpha_color=None if config.background == RANDOM else _color(config.background),
            scene_box=SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])),
            metadata={
                "rtmv": {
                    "background": config.background,
                    "exposure": config.exposure,
                    "downscale": self.downscale,
                },
                FILE_SIZES: [(frame.width, frame.height) for frame in frames],
            },
            dataparser_transform=transform,
            dataparser_scale=to_unit.scale,
        )


class ShaciraDataset(InputDataset):
    """Nerfstudio's images, or linear ones (RTMV, any EXR) as sRGB; tells the model about the data.

    A background colour implies a bounded scene: whatever is outside it is transparent.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        self.file_sizes = camera_sizes(dataparser_outputs)
        """Width and height of each image in its file."""
        self.pads_alpha = False
        """Whether images without alpha get a full one, to be joined with those that have one."""
        self.alpha_color = color = dataparser_outputs.alpha_color
        DatasetMetadata(
            alpha_color=None if color is None else tuple(color.tolist()),
            cameras=self.cameras,
            is_bounded=True if "rtmv" in self.metadata or color is not None else None,
        ).put_into(self.metadata)

    def get_numpy_image(self, image_idx: int) -> NDArray[np.uint8]:
        """The image in 8 bits, [H, W, 3 or 4]; straight alpha."""
        if PLACEHOLDERS in self.metadata:
            return np.full((16, 16, 3), 128, np.uint8)
        if not self.is_linear(image_idx):
            path = Path(self.image_filenames[image_idx])
            image = read_pixels(path, self.file_sizes[image_idx], self.scale_factor)
            if self.pads_alpha and image.shape[-1] == 3:
                image = np.concatenate([image, np.full_like(image[..., :1], 255)], -1)
            return image
        return (self._read_linear(image_idx) * 255.0 + 0.5).astype(np.uint8)

    def get_image_float32(self, image_idx: int) -> Tensor:
        """The image in [0, 1], [H, W, 3 or 4]; linear sources keep their full precision."""
        if not self.is_linear(image_idx):
            return super().get_image_float32(image_idx)
        return torch.from_numpy(self._read_linear(image_idx))

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """As the host's; but in a JPEG what is nearly black is masked, too."""
        data = super().get_data(image_idx, image_type)
        masks = self._dataparser_outputs.mask_filenames
        if masks is not None and Path(masks[image_idx]).suffix.lower() in (".jpg", ".jpeg"):
            data["mask"] = torch.from_numpy(read_lossy_mask(masks[image_idx], self.scale_factor))
        return data

    def is_linear(self, image_idx: int) -> bool:
        """Whether the image's file holds linear light, in more than 8 bits."""
        path = Path(self.image_filenames[image_idx])
        return "rtmv" in self.metadata or path.suffix.lower() == ".exr"

    def _read_linear(self, image_idx: int) -> NDArray[np.float32]:
        path = Path(self.image_filenames[image_idx])
        options = dict(self.metadata.get("rtmv") or {})
        alpha_color = DatasetMetadata.of(self.metadata).alpha_color
        options.setdefault("background", alpha_color or "white")
        shrink = round(1 / self.scale_factor)
        if not math.isclose(shrink * self.scale_factor, 1.0, rel_tol=1e-3):
            raise ValueError(
                f"expected a camera_res_scale_factor of 1, 1/2, 1/3, ..., got {self.scale_factor}"
            )
        options["downscale"] = options.get("downscale", 1) * shrink
        image = rtmv.read_rtmv_image(path, **options)
        camera = self.cameras[image_idx]
        expected = (int(camera.height), int(camera.width))
        if image.shape[:2] != expected:
            raise ValueError(
                f"expected {expected} rows, columns from {path}, got {image.shape[:2]}"
            )
        return image


def _color(background: str) -> Tensor:
    return torch.from_numpy(rtmv.background_color(background))


def _cameras(
    frames: list[rtmv.RtmvFrame], to_unit: rtmv.RtmvNormalization, downscale: int
) -> Cameras:
    """Cameras at the reduced size; RTMV's axes are Nerfstudio's, so only positions change."""
    poses = np.stack([frame.camera_to_world[:3] for frame in frames])
    poses[:, :, 3] = to_unit.apply(poses[:, :, 3])
    fx, fy, cx, cy = (
        torch.from_numpy(np.array([frame.intrinsics for frame in frames], np.float32) / downscale)
    ).T[:, :, None]
    sizes = torch.tensor([[frame.width, frame.height] for frame in frames]) // downscale
    return Cameras(
        camera_to_worlds=torch.from_numpy(poses.astype(np.float32)),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=sizes[:, :1],
        height=sizes[:, 1:],
        camera_type=CameraType.PERSPECTIVE,
    )


rtmv_dataparser = DataParserSpecification(
    config=RtmvDataParserConfig(),
    description="RTMV scenes: ray-traced views with linear EXR images and depth.",
)

# Here, because nothing of ours is loaded sooner.
quick_start.remember_frozen_modules()
