"""What an export leaves out of a file, chosen by the image quality that it costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene, QuantizedTensor, encode_scene
from shacira_nerfstudio.model.occupancy import tidy_cells
from shacira_nerfstudio.model.pinhole import background_fill
from shacira_nerfstudio.model.volrend import blend_background, render_rays
from shacira_nerfstudio.compression.pack import (
    float_weights,
    mean_appearance,
    unpack_scene,
    without_unreached,
)
from shacira_nerfstudio.compression.weight_bits import Weights, choose_weights

if TYPE_CHECKING:
    from nerfstudio.pipelines.base_pipeline import Pipeline

    from shacira_nerfstudio.plugin.model import ShaciraModel

NUM_RAYS = 1 << 13
"""Pixels on which choices are compared. Two losses are measured on the same ones, so they differ by
what was chosen and not by which pixels were drawn."""
MAX_IMAGES = 32
"""Training images that these pixels come from; each is read from the disk."""
DB_PER_OCTAVE = 1.0
"""PSNR that half the bytes may cost: curves of rate and distortion are steeper."""
_MIN_OCTAVES = 0.015
"""Coarser cells that save less than a percent are not worth rays that take longer."""


def economical_scene(
    pipeline: Pipeline, pack: Callable[[Tensor], PackedScene], *, max_loss_db: float
) -> PackedScene:
    """The scene of a trained model in few bytes: without stray occupied cells, if that is no loss,
    with coarser ones, if that pays, and with weights of as few bits as a loss of PSNR allows.

    The loss is measured on pixels of the training images: test images have no say in a file.

    Args:
        pack: Makes the scene from occupied cells.
        max_loss_db: Of all together, compared with the model as it was trained.
    """
    model: ShaciraModel = pipeline.model  # pyright: ignore[reportAssignmentType]
    pixels = _sample_pixels(pipeline)
    layers = float_weights(model.field, mean_appearance(model.appearance))
    scene = pack(model.occupancy.occupied)
    loss = _Loss(model, scene, *pixels)
    before = loss(layers)

    def lost(other: _Loss) -> float:
        return 10 * math.log10(max(other(layers), 1e-12) / max(before, 1e-12))

    spent = 0.0
    tidy = pack(tidy_cells(model.occupancy.occupied))
    tidy_loss = _Loss(model, tidy, *pixels)
    tidy_lost = lost(tidy_loss)
    if tidy_lost <= max_loss_db / 2:
        scene, loss, spent = tidy, tidy_loss, max(tidy_lost, 0.0)
    coarse = coarser_occupancy(scene)
    if coarse is not None:
        octaves = math.log2(len(encode_scene(scene)) / len(encode_scene(coarse)))
        if octaves >= _MIN_OCTAVES:
            coarse_loss = _Loss(model, coarse, *pixels)
            coarse_lost = lost(coarse_loss)
            if coarse_lost <= min(max_loss_db, spent + DB_PER_OCTAVE * octaves):
                scene, loss, spent = coarse, coarse_loss, max(coarse_lost, 0.0)
    left = max_loss_db - spent
    weights = choose_weights(layers, model.field.bits_of, loss, max_loss_db=left)
    return dataclasses.replace(scene, weights=weights)


def coarser_occupancy(scene: PackedScene) -> PackedScene | None:
    """The scene with cells of twice the size, each occupied if any in it was; None if its cells
    cannot be paired.

    Rays then take some more samples, of the same latents: what fine cells do not reach is 0.
    """
    occupancy = scene.occupancy
    if occupancy is None or len(occupancy) % 2:
        return None
    half = len(occupancy) // 2
    pairs = occupancy.reshape(*[half, 2] * occupancy.ndim)
    axes = tuple(range(1, 2 * occupancy.ndim, 2))
    occupancy = pairs.any(axis=axes)
    # Fewer levels may be crowded now: what nothing reaches then is no longer stored.
    symbols = without_unreached(scene.grid, scene.symbols, occupancy)
    return dataclasses.replace(scene, occupancy=occupancy, symbols=symbols)


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
