"""How good a scene looks, measured on pixels that stay the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.model.scene import RadianceScene


@dataclass(frozen=True)
class ProbeRays:
    """Rays of training images, and what they should look like."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    """Of unit length."""
    colors: Float[Tensor, "R 3"]
    """On the scene's background."""

    def every(self, stride: int) -> ProbeRays:
        """Every so many-th of them."""
        return ProbeRays(self.origins[::stride], self.directions[::stride], self.colors[::stride])

    def to(self, device: torch.device) -> ProbeRays:
        """The same elsewhere."""
        rays = (self.origins, self.directions, self.colors)
        return ProbeRays(*(tensor.to(device) for tensor in rays))


def psnr(predicted: Tensor, truth: Tensor) -> Float[Tensor, ""]:
    """Of colours in [0, 1], in dB; at most 100."""
    return -10 * F.mse_loss(predicted, truth).double().clamp_min(1e-10).log10()


def probe_psnr(scene: RadianceScene, rays: ProbeRays) -> float:
    """Of the rounded scene, which is left in the mode that it was in."""
    training = scene.training
    scene.eval()
    try:
        return psnr(scene.render_colors(rays.origins, rays.directions), rays.colors).item()
    finally:
        scene.train(training)


def evenly_spaced(total: int, at_most: int) -> list[int]:
    """Numbers below a total, evenly spread, ends included; all if there are no more."""
    return np.linspace(0, total - 1, min(at_most, total)).round().astype(int).tolist()
