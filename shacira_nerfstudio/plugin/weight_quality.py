"""What network weights cost in image quality: the measure by which an export chooses their bits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene, QuantizedTensor
from shacira_nerfstudio.model.pinhole import background_fill
from shacira_nerfstudio.model.volrend import blend_background, render_rays
from shacira_nerfstudio.pack import float_weights, mean_appearance, unpack_scene
from shacira_nerfstudio.weight_choice import Weights, choose_weights

if TYPE_CHECKING:
    from nerfstudio.pipelines.base_pipeline import Pipeline

    from shacira_nerfstudio.plugin.model import ShaciraModel

NUM_RAYS = 1 << 14
"""Pixels on which weights are compared. The losses of two choices are measured on the same ones, so
they differ by what the weights do and not by which pixels were drawn."""
MAX_IMAGES = 32
"""Training images that these pixels come from; each is read from the disk."""


def with_chosen_weights(
    pipeline: Pipeline, scene: PackedScene, *, max_loss_db: float
) -> PackedScene:
    """The packed scene of a trained model with weights of as few bits as a loss of PSNR allows.

    The loss is measured on pixels of the training images: test images have no say in a file.

    Args:
        max_loss_db: See :func:`choose_weights`.
    """
    model: ShaciraModel = pipeline.model  # pyright: ignore[reportAssignmentType]
    field = model.field
    loss = _Loss(model, scene, *_sample_pixels(pipeline))
    layers = float_weights(field, mean_appearance(model.appearance))
    weights = choose_weights(layers, field.bits_of, loss, max_loss_db=max_loss_db)
    return dataclasses.replace(scene, weights=weights)


def _sample_pixels(pipeline: Pipeline) -> tuple[Tensor, Tensor, Tensor]:
    """Origins, directions and colours [R, 3] of pixels of the training images, always the same."""
    dataset = pipeline.datamanager.train_dataset
    model: ShaciraModel = pipeline.model  # pyright: ignore[reportAssignmentType]
    total = len(dataset)
    images = np.linspace(0, total - 1, min(MAX_IMAGES, total)).round().astype(int).tolist()
    rng = np.random.default_rng(0)
    origins, directions, colors = [], [], []
    for index in images:
        image = model.renderer_rgb.blend_background(dataset[index]["image"].to(model.device))
        count = -(-NUM_RAYS // len(images))
        rows, columns = (
            torch.from_numpy(rng.integers(side, size=count)) for side in image.shape[:2]
        )
        camera = dataset.cameras[index : index + 1].to(model.device)
        pixels = torch.stack([rows, columns], -1).to(model.device)
        rays = camera.generate_rays(camera_indices=0, coords=pixels + 0.5)
        origins.append(rays.origins)
        directions.append(torch.nn.functional.normalize(rays.directions, dim=-1))
        colors.append(image[pixels[:, 0], pixels[:, 1]])
    return torch.cat(origins), torch.cat(directions), torch.cat(colors)


class _Loss:
    """Mean squared error of rays under some weights; all else is the file's."""

    def __init__(
        self,
        model: ShaciraModel,
        scene: PackedScene,
        origins: Tensor,
        directions: Tensor,
        colors: Tensor,
    ) -> None:
        self._unpacked = unpack_scene(scene, model.backend, device=str(model.device))
        self._rays, self._colors = (origins, directions), colors
        self._background = background_fill(
            self._unpacked.background, self._unpacked.background_color
        )

    @torch.no_grad()
    def __call__(self, weights: Weights) -> float:
        unpacked = self._unpacked
        for name, parameter in unpacked.field.layers().items():
            value = weights[name]
            if isinstance(value, QuantizedTensor):
                value = torch.from_numpy(value.dequantize())
            parameter.data.copy_(value)
        rendered = render_rays(
            unpacked.field,
            unpacked.occupied,
            unpacked.march,
            *self._rays,
            early_stop=unpacked.early_stop,
        )
        background = self._background
        if isinstance(background, Tensor):
            background = background.to(rendered.color)
        found = blend_background(rendered, background).clamp(0, 1)
        return float((found - self._colors).double().square().mean())
