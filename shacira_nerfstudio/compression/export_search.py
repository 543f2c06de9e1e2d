"""What an export leaves out of a file, chosen by the image quality that it costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene, QuantizedTensor, encode_scene
from shacira_nerfstudio.compression.pack import float_weights, unpack_scene, without_unreached
from shacira_nerfstudio.compression.probe import ProbeRays
from shacira_nerfstudio.compression.weight_bits import Weights, choose_weights
from shacira_nerfstudio.model.occupancy import remove_isolated_cells
from shacira_nerfstudio.model.scene import RadianceScene

DB_PER_OCTAVE = 1.0
"""PSNR that half the bytes may cost: curves of rate and distortion are steeper."""
_MIN_OCTAVES = 0.015
"""Coarser cells that save less than a percent are not worth rays that take longer."""


def compress_within_loss(
    scene: RadianceScene,
    pack: Callable[[Tensor], PackedScene],
    rays: ProbeRays,
    *,
    max_loss_db: float,
) -> PackedScene:
    """A trained scene in few bytes: without isolated occupied cells, if that is no loss, with
    coarser ones, if that pays, and with weights of as few bits as a loss of PSNR allows.

    Args:
        pack: Packs the scene with some occupied cells.
        rays: Of training images: test images have no say in a file.
        max_loss_db: Of all together, compared with the scene as it was trained.
    """
    weights = float_weights(scene)
    occupied = scene.occupancy.occupied
    packed = pack(occupied)
    loss = _Loss(scene, packed, rays)
    before = loss(weights)

    def lost(other: _Loss) -> float:
        return 10 * math.log10(max(other(weights), 1e-12) / max(before, 1e-12))

    spent = 0.0
    cleaned = pack(remove_isolated_cells(occupied))
    cleaned_loss = _Loss(scene, cleaned, rays)
    cleaned_lost = lost(cleaned_loss)
    if cleaned_lost <= max_loss_db / 2:
        packed, loss, spent = cleaned, cleaned_loss, max(cleaned_lost, 0.0)
    coarse = coarser_occupancy(packed)
    if coarse is not None:
        octaves = math.log2(len(encode_scene(packed)) / len(encode_scene(coarse)))
        if octaves >= _MIN_OCTAVES:
            coarse_loss = _Loss(scene, coarse, rays)
            coarse_lost = lost(coarse_loss)
            if coarse_lost <= min(max_loss_db, spent + DB_PER_OCTAVE * octaves):
                packed, loss, spent = coarse, coarse_loss, max(coarse_lost, 0.0)
    left = max_loss_db - spent
    chosen = choose_weights(weights, scene.field.bits_of, loss, max_loss_db=left)
    return dataclasses.replace(packed, weights=chosen)


def coarser_occupancy(scene: PackedScene) -> PackedScene | None:
    """The scene with cells of twice the size, each occupied if any in it was; None if its cells
    cannot be paired.

    Rays then take some more samples, of the same latents: what fine cells do not reach is 0.
    """
    occupancy = scene.occupancy
    if occupancy is None or any(size % 2 for size in occupancy.shape):
        return None
    pairs = occupancy.reshape([part for size in occupancy.shape for part in (size // 2, 2)])
    occupancy = pairs.any(axis=tuple(range(1, pairs.ndim, 2)))
    # Fewer levels may be saturated now: what nothing reaches then is no longer stored.
    symbols = without_unreached(scene.grid, scene.symbols, occupancy)
    return dataclasses.replace(scene, occupancy=occupancy, symbols=symbols)


class _Loss:
    """Mean squared error of rays under some weights; all else is the file's.

    Losses of two choices are measured on the same rays, so they differ by what was chosen and not
    by which rays were drawn.
    """

    def __init__(self, scene: RadianceScene, packed: PackedScene, rays: ProbeRays) -> None:
        self._scene = unpack_scene(packed, scene.encoding.backend, device=str(scene.device))
        self._rays = rays

    @torch.no_grad()
    def __call__(self, weights: Weights) -> float:
        scene, rays = self._scene, self._rays
        scene.field.set_weights(
            {
                name: torch.from_numpy(value.dequantize())
                if isinstance(value, QuantizedTensor)
                else value
                for name, value in weights.items()
            }
        )
        colors = scene.render_colors(rays.origins, rays.directions, min_weight=0.0)
        return float((colors - rays.colors).double().square().mean())
