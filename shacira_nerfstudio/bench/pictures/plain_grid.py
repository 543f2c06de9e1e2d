"""A plain Instant-NGP of a picture or a video: floats, no rate, no file but its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shacira_nerfstudio.model.image_field import ImageField
from shacira_nerfstudio.pictures.layout import PixelLayout
from shacira_nerfstudio.pictures.options import PictureOptions
from shacira_nerfstudio.pictures.training import PictureTraining


@dataclass(frozen=True)
class PlainGrid:
    """A trained one, its parameters rounded to half floats."""

    field: ImageField
    layout: PixelLayout
    num_bytes: int
    """Of these parameters alone."""

    @torch.no_grad()
    def pixels(self, frame: int = 0) -> np.ndarray:
        """Integers [H, W, C] of a picture, or of a frame of a video."""
        layout = self.layout
        x, y = np.meshgrid(
            (np.arange(layout.width) + 0.5) / layout.width,
            (np.arange(layout.height) + 0.5) / layout.height,
        )
        axes = [x, y, np.full_like(x, (frame + 0.5) / layout.frames)][: len(layout.axes)]
        positions = np.stack([v.ravel() for v in axes], 1).astype(np.float32)
        shown = (self.field(torch.from_numpy(positions)).clamp(0, 1) * layout.largest).round()
        shape = (layout.height, layout.width, layout.channels)
        return shown.view(shape).numpy().astype(layout.dtype)


def trained_plain_grid(pixels: Any, layout: PixelLayout, options: PictureOptions) -> PlainGrid:
    """Trains one with ``choices="ngp"`` of ``options``."""
    run = PictureTraining(pixels, layout, options)
    run.train()
    field = run.field.eval()
    parameters = [field.encoding.latents, *field.mlp.parameters()]
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(parameter.half().float())
    return PlainGrid(field, layout, 2 * sum(parameter.numel() for parameter in parameters))
