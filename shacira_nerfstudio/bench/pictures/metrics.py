"""How like the original a picture of 8 bits is."""

from __future__ import annotations

import numpy as np
import torch
from pytorch_msssim import ms_ssim, ssim


def figures(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """PSNR in dB, SSIM and MS-SSIM of integers [H, W, C] of 8 bits, all channels alike.

    SSIM with a Gaussian window of 11 pixels and a deviation of 1.5 (Wang et al., 2004), MS-SSIM
    over five scales (Wang et al., 2003).
    """
    error = float(np.square(truth.astype(np.float64) - found).mean())
    a, b = (torch.from_numpy(v.astype(np.float32)).permute(2, 0, 1)[None] for v in (truth, found))
    return {
        "psnr": float(10 * np.log10(255**2 / max(error, 1e-10))),
        "ssim": float(ssim(a, b, data_range=255)),
        "ms_ssim": float(ms_ssim(a, b, data_range=255)),
    }
