"""How the cameras of a capture stand to one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_TURN_DEGREES = 30.0
"""From their mean direction: cameras that turn further look around."""
MAX_DEPTH = 0.5
"""Of how far apart cameras stand across that direction: those that stand further apart along it
walk into the scene."""


def faces_forward(poses: NDArray[np.floating]) -> bool:
    """Whether all cameras look about the same way from about the same plane.

    Args:
        poses: Camera to world, [N, 3, 4]; cameras look along their negative third axis.
    """
    if not len(poses):
        return False
    forward = -np.asarray(poses[:, :, 2], np.float64)
    mean = forward.mean(0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        return False
    mean /= length
    if (forward @ mean).min() < np.cos(np.radians(MAX_TURN_DEGREES)):
        return False
    position = np.asarray(poses[:, :, 3], np.float64)
    along = position @ mean
    across = position - along[:, None] * mean
    width = 2 * np.linalg.norm(across - across.mean(0), axis=1).max()
    return bool(np.ptp(along) <= MAX_DEPTH * width)
