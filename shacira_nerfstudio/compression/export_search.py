"""What an export leaves out of a file, chosen by the image quality that it costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene, QuantizedTensor, encode_scene
from shacira_nerfstudio.codec.scene_file import encode_latents, encode_side_sections
from shacira_nerfstudio.compression.pack import float_weights, unpack_scene, without_unreached
from shacira_nerfstudio.compression.probe import ProbeRays
from shacira_nerfstudio.compression.weight_bits import Weights, choose_weights
from shacira_nerfstudio.model.occupancy import remove_isolated_cells
from shacira_nerfstudio.model.scene import RadianceScene

DB_PER_OCTAVE = 1.0
"""PSNR that half the bytes may cost: curves of rate and distortion are steeper."""
_MIN_OCTAVES = 0.015
"""Coarser cells that save less than a percent are not worth rays that take longer."""

_FEW = 4
"""Every so many-th ray is enough to compare one tensor's bits; what is taken is measured on
all."""

Progress = Callable[[str, float], None]


def silent(stage: str, done: float) -> None:
    """For whoever does not look."""


def compress_within_loss(
    scene: RadianceScene,
    pack: Callable[[Tensor], PackedScene],
    rays: ProbeRays,
    *,
    max_loss_db: float,
    progress: Progress = silent,
) -> tuple[PackedScene, list[bytes]]:
    """A trained scene in few bytes: without isolated occupied cells, if that is no loss, with
    coarser ones, if that pays, and with weights of as few bits as a loss of PSNR allows.

    Args:
        pack: Packs the scene with some occupied cells.
        rays: Of training images: test images have no say in a file.
        max_loss_db: Of all together, compared with the scene as it was trained.
        progress: Gets the name of each stage, and how much of it is done.

    Returns:
        The scene, and its :func:`encode_latents`.
    """
    progress("choose occupied cells", 0.0)
    weights = float_weights(scene)
    occupied = scene.occupancy.occupied
    packed = pack(occupied)
    loss = _Loss(scene, packed, rays)
    before = loss(weights)

    def lost(other: _Loss) -> float:
        return 10 * math.log10(max(other(weights), 1e-12) / max(before, 1e-12))

    spent = 0.0
    progress("choose occupied cells", 0.3)
    cleaned = pack(remove_isolated_cells(occupied))
    cleaned_loss = _Loss(scene, cleaned, rays)
    cleaned_lost = lost(cleaned_loss)
    if cleaned_lost <= max_loss_db / 2:
        packed, loss, spent = cleaned, cleaned_loss, max(cleaned_lost, 0.0)
    progress("encode latents", 0.0)
    latents = encode_latents(packed)
    coarse = coarser_occupancy(packed)
    if coarse is not None and _octaves_of_cells(packed, latents, coarse) >= _MIN_OCTAVES:
        progress("encode latents of coarser cells", 0.0)
        coarse_latents = encode_latents(coarse)
        sizes = [
            len(encode_scene(which, latents=payloads))
            for which, payloads in ((packed, latents), (coarse, coarse_latents))
        ]
        octaves = math.log2(sizes[0] / sizes[1])
        if octaves >= _MIN_OCTAVES:
            coarse_loss = _Loss(scene, coarse, rays)
            coarse_lost = lost(coarse_loss)
            if coarse_lost <= min(max_loss_db, spent + DB_PER_OCTAVE * octaves):
                packed, loss, spent = coarse, coarse_loss, max(coarse_lost, 0.0)
                latents = coarse_latents
    chosen = choose_weights(
        weights,
        scene.field.bits_of,
        loss,
        max_loss_db=max_loss_db - spent,
        trial_loss_of=loss.on_few_rays,
        progress=lambda done: progress("choose bits of network weights", done),
    )
    return dataclasses.replace(packed, weights=chosen), latents


def _octaves_of_cells(packed: PackedScene, latents: list[bytes], coarse: PackedScene) -> float:
    """What coarser cells can save at best, in halvings of the file: the bytes of the finer ones, of
    which a quarter or so stays. More entries are reached then, never fewer."""
    total = len(encode_scene(packed, latents=latents))
    fine, less = (len(encode_side_sections(which)["OCCU"]) for which in (packed, coarse))
    return math.log2(total / max(total - max(fine - less, 0), 1))


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
        self._rays, self._few = rays, rays.every(_FEW)

    def __call__(self, weights: Weights) -> float:
        return self._measure(weights, self._rays)

    def on_few_rays(self, weights: Weights) -> float:
        """The same on a part of the rays, to compare many choices."""
        return self._measure(weights, self._few)

    @torch.no_grad()
    def _measure(self, weights: Weights, rays: ProbeRays) -> float:
        scene = self._scene
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
