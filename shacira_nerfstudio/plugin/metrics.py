"""What is measured of images, by ns-eval and by others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shacira_nerfstudio.compression.probe import psnr

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

        a, b = (image.movedim(-1, 0)[None] for image in (predicted, truth))
        ssim = structural_similarity_index_measure(a, b, data_range=1.0)
        metrics = {"psnr": psnr(predicted, truth).item(), "ssim": float(ssim)}  # pyright: ignore[reportArgumentType]
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
