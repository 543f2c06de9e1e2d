"""Pixels of training images that stay the same, for whoever compares two states of a scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from shacira_nerfstudio.compression.probe import ProbeRays, evenly_spaced

MAX_IMAGES = 32
"""Training images that these pixels come from; each is read from the disk."""
NUM_EXPORT_RAYS = 1 << 13
_STEERING_RAYS_PER_IMAGE, _STEERING_SEED = 512, 20231004

Draw = Callable[[int, int], Tensor]
"""Numbers, row after row, of pixels drawn from an image of so many rows and columns."""
Blend = Callable[[Tensor], Tensor]
"""Puts colours with alpha on the scene's background."""


def export_rays(dataset: Any, blend: Blend) -> ProbeRays:
    """Those on which an export compares its choices."""
    generator = np.random.default_rng(0)
    count = -(-NUM_EXPORT_RAYS // min(MAX_IMAGES, len(dataset)))

    def draw(height: int, width: int) -> Tensor:
        rows, columns = (generator.integers(side, size=count) for side in (height, width))
        return torch.from_numpy(rows * width + columns)

    return _probe_rays(dataset, draw, blend)


def steering_rays(dataset: Any, blend: Blend) -> ProbeRays:
    """Those on which the quality of a run is measured while it is steered."""
    generator = torch.Generator().manual_seed(_STEERING_SEED)
    return _probe_rays(
        dataset,
        lambda height, width: torch.randint(
            height * width, (_STEERING_RAYS_PER_IMAGE,), generator=generator
        ),
        blend,
    )


def _probe_rays(dataset: Any, draw: Draw, blend: Blend) -> ProbeRays:
    """Rays through pixels of evenly spread images; of an image with a mask through those that it
    allows."""
    indices, colors = [], []
    for number in evenly_spaced(len(dataset), MAX_IMAGES):
        item = dataset[number]
        image = item["image"].to("cpu")
        height, width = image.shape[:2]
        if "mask" in item:
            allowed = item["mask"].flatten().nonzero()[:, 0].cpu()
            if not len(allowed):
                continue
            pixels = allowed[draw(1, len(allowed))]
        else:
            pixels = draw(height, width)
        rows, columns = pixels // width, pixels % width
        indices.append(torch.stack([torch.full_like(rows, number), rows, columns], 1))
        colors.append(blend(image[rows, columns]))
    if not indices:
        raise ValueError("expected training pixels outside of masks, found none")
    bundle = RayGenerator(dataset.cameras.to("cpu"))(torch.cat(indices))
    return ProbeRays(bundle.origins, F.normalize(bundle.directions, dim=-1), torch.cat(colors))
