"""Tensors as kernels read them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def as_array(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Contiguous, of one number format; the tensor's own memory where it is that already."""
    return tensor.detach().to(dtype).contiguous().numpy()
