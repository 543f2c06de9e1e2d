"""Pictures with edges and slopes, from formulas."""

import numpy as np


def picture(width=48, height=36, channels=3, bits=8):
    """Integers [H, W, C]: a disc on a slope, each channel another one."""
    y, x = np.mgrid[:height, :width]
    disc = (x - 0.6 * width) ** 2 + (y - 0.4 * height) ** 2 < (0.25 * width) ** 2
    parts = [x / width, y / height, np.where(disc, 0.9, 0.2), np.where(disc | (x < 5), 1.0, 0.0)]
    picked = {1: [2], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    values = np.stack([0.5 * parts[k] + 0.5 * parts[2] if k < 2 else parts[k] for k in picked], -1)
    return np.rint(values * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def frames(count=6, **sizes):
    """Integers [T, H, W, C]: the same, moving to the right."""
    return np.stack([np.roll(picture(**sizes), 2 * t, axis=1) for t in range(count)])
