"""The quality of what a run's file would show now, on rays that stay the same all along."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from shacira_nerfstudio.plugin.model import ShaciraModel

_SEED = 20231004
_IMAGES, _RAYS_PER_IMAGE = 32, 512


class FixedRays:
    """Some rays of evenly spread training images, drawn once: the same for every run on a scene."""

    def __init__(self, datamanager: Any) -> None:
        dataset = datamanager.train_dataset
        generator = torch.Generator().manual_seed(_SEED)
        count = min(_IMAGES, len(dataset))
        indices, colors = [], []
        for number in torch.linspace(0, len(dataset) - 1, count).round().long().tolist():
            item = dataset[number]
            image = item["image"]
            allowed = torch.arange(image.shape[0] * image.shape[1])
            if "mask" in item:
                allowed = item["mask"].flatten().nonzero()[:, 0].cpu()
            if not len(allowed):
                continue
            picked = allowed[torch.randint(len(allowed), (_RAYS_PER_IMAGE,), generator=generator)]
            rows, columns = picked // image.shape[1], picked % image.shape[1]
            indices.append(torch.stack([torch.full_like(rows, number), rows, columns], 1))
            colors.append(image.to("cpu")[rows, columns])
        self._bundle = datamanager.train_ray_generator(torch.cat(indices))
        self._colors = torch.cat(colors)

    @torch.no_grad()
    def psnr(self, model: ShaciraModel) -> float:
        """Of the rounded model; it is left in the mode it was in."""
        training = model.training
        model.eval()
        try:
            rgb = model.get_outputs(self._bundle.to(model.device))["rgb"]
            truth = model.renderer_rgb.blend_background(self._colors.to(model.device))
            error = torch.mean((rgb - truth) ** 2).item()
        finally:
            model.train(training)
        return -10 * math.log10(max(error, 1e-10))
