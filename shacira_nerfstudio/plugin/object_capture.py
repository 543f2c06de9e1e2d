"""Pictures that are cut out show an object on nothing, whatever the data parser makes of them.

A parser that knows no background colour hands such pictures on with their alpha, and a scene that
reaches to infinity then learns fog. Here the pixels decide: an object ends at a box around what all
cameras see of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from numpy.typing import NDArray

from shacira_nerfstudio.compression.probe import evenly_spaced
from shacira_nerfstudio.plugin.input_check import camera_sizes
from shacira_nerfstudio.plugin.rtmv_dataparser import PLACEHOLDERS
from shacira_nerfstudio.scenes.picture_files import read_header, read_pixels
from shacira_nerfstudio.scenes.visual_hull import Box, Silhouette, hull_box

logger = logging.getLogger(__name__)

_NUM_PICTURES = 24
_EMPTY_SHARE = 0.1
"""Mean share of transparent pixels from which pictures are cut out, and not merely retouched."""
_SEARCH = 2.0
"""The hull is looked for in the parser's box, so many times as large."""


@dataclass(frozen=True)
class ObjectCapture:
    """An object that was cut out."""

    empty_share: float
    """Mean share of transparent pixels."""
    box: Box | None
    """A cube around it; None where silhouettes do not tell."""

    @property
    def reason(self) -> str:
        """What was found, for people."""
        if self.box is None:
            fits = "in the data parser's box"
        else:
            (x, y, z), (high, *_) = self.box
            half = (high - x) / 2
            center = ", ".join(f"{value + half:.2g}" for value in (x, y, z))
            fits = f"within {half:.2g} of ({center})"
        return (
            f"pictures are cut out ({self.empty_share:.0%} of their pixels are transparent): "
            f"an object {fits}, on white"
        ).replace("%", " %", 1)


def find_object(outputs: DataparserOutputs) -> ObjectCapture | None:
    """What pictures with alpha show; None without alpha, or where pictures cannot be read."""
    is_settled = outputs.alpha_color is not None or "rtmv" in outputs.metadata
    if is_settled or PLACEHOLDERS in outputs.metadata:
        return None
    paths, sizes = outputs.image_filenames, camera_sizes(outputs)
    chosen = evenly_spaced(len(paths), _NUM_PICTURES)
    try:
        if not any(read_header(paths[index]).has_alpha for index in chosen):
            return None
        pictures = [read_pixels(paths[index], sizes[index]) for index in chosen]
    except (OSError, ValueError) as error:
        # A file of ours says all itself; a checkpoint does not.
        logger.warning("It cannot be told whether pictures are cut out: %s", error)
        return None
    solid = [
        picture[..., 3] > 127 if picture.shape[-1] == 4 else np.ones(picture.shape[:2], bool)
        for picture in pictures
    ]
    empty_share = 1 - float(np.mean([mask.mean() for mask in solid]))
    if empty_share < _EMPTY_SHARE:
        return None
    is_pinhole = (outputs.cameras.camera_type == CameraType.PERSPECTIVE.value).all()
    return ObjectCapture(empty_share, _box(outputs, chosen, solid) if is_pinhole else None)


def _box(
    outputs: DataparserOutputs, chosen: list[int], solid: list[NDArray[np.bool_]]
) -> Box | None:
    cameras = outputs.cameras.flatten().to("cpu")
    poses = cameras.camera_to_worlds[chosen].numpy().astype(np.float64)
    lenses = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], 1)[chosen].tolist()
    views = [Silhouette(*parts) for parts in zip(poses, map(tuple, lenses), solid, strict=True)]
    low, high = outputs.scene_box.aabb.numpy().astype(np.float64)
    center, half = (low + high) / 2, _SEARCH * (high - low).max() / 2
    return hull_box(views, center - half, center + half)
