"""What is measured while training and by ns-eval."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shacira_nerfstudio.codec.sections.occupancy import encode_occupancy
from shacira_nerfstudio.codec.sections.grid_and_rendering import encode_weights
from shacira_nerfstudio.compression.pack import mean_appearance, pack_weights

if TYPE_CHECKING:
    from shacira_nerfstudio.plugin.model import ShaciraModel

logger = logging.getLogger(__name__)


class ImageMetrics:
    """PSNR, SSIM and, if asked for, LPIPS of one image.

    No nn.Module, so that the LPIPS network never enters a checkpoint; built on first use, so that
    nothing is downloaded unless the user asked for it.
    """

    def __init__(self, *, use_lpips: bool) -> None:
        self.use_lpips = use_lpips
        self._lpips: Any = None

    def __call__(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Metrics of [H, W, 3] images in [0, 1]; LPIPS is absent if its weights cannot be had."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        psnr = -10 * math.log10(max(torch.mean((predicted - truth) ** 2).item(), 1e-10))
        a, b = (image.movedim(-1, 0)[None] for image in (predicted, truth))
        ssim = structural_similarity_index_measure(a, b, data_range=1.0)
        metrics = {"psnr": psnr, "ssim": float(ssim)}  # pyright: ignore[reportArgumentType]
        lpips = self._measure_lpips(a, b) if self.use_lpips else None
        if lpips is not None:
            metrics["lpips"] = lpips
        return metrics

    def _measure_lpips(self, a: Tensor, b: Tensor) -> float | None:
        if self._lpips is None:
            try:
                from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

                self._lpips = LearnedPerceptualImagePatchSimilarity(normalize=True).to(a.device)
            except Exception as error:  # any failure of a download or of an optional package
                logger.warning("LPIPS is left out, its network cannot be had: %r", error)
                self._lpips = False
        return float(self._lpips(a.clamp(0, 1), b.clamp(0, 1))) if self._lpips else None


_MS_SSIM_SCALES, _SSIM_KERNEL = 5, 11
"""Halvings of the image plus one, and width of the window, both as in Wang et al. 2003."""


def multiscale_ssim(predicted: Tensor, truth: Tensor) -> float | None:
    """MS-SSIM of [H, W, 3] images in [0, 1]; None for images too small for five scales."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if min(predicted.shape[:2]) // 2 ** (_MS_SSIM_SCALES - 1) < _SSIM_KERNEL:
        return None
    a, b = (image.movedim(-1, 0)[None] for image in (predicted, truth))
    return float(multiscale_structural_similarity_index_measure(a, b, data_range=1.0))


def has_lpips_weights() -> bool:
    """Whether LPIPS can be measured on this machine without a download."""
    from torchvision.models import AlexNet_Weights

    name = AlexNet_Weights.DEFAULT.url.rsplit("/", 1)[1]
    return (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()


def side_bytes(model: ShaciraModel) -> dict[str, int]:
    """Bytes of networks and occupancy as they are, by part, as the file holds them."""
    weights = pack_weights(model.field, mean_appearance(model.appearance))
    return {
        "weights": len(encode_weights(weights)),
        "occupancy": len(encode_occupancy(model.occupancy.occupied.cpu().numpy())),
    }


def estimated_bytes(model: ShaciraModel, latent_bits: float) -> dict[str, float]:
    """Size of the file by part; while training, parts beside the latents are those of the last
    look at the tables.

    Args:
        latent_bits: The encoding's estimate over the whole table.
    """
    sides = model.loop.side_bytes or side_bytes(model)
    parts = {f"estimated_bytes_{name}": float(count) for name, count in sides.items()}
    parts["estimated_bytes_latents"] = latent_bits / 8
    return {**parts, "estimated_bytes": sum(parts.values())}
