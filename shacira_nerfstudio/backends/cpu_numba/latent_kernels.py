"""Passes over the table of latents: quantisation noise and the rate.

The noise of an element depends on a seed and its index alone, so threads need no state of their own
and results do not depend on their number.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_COMPILE = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nsz", "arcp"},
    "error_model": "numpy",
}
_TO_UNIT = np.float32(2.0**-24)
FLOOR = 1e-10
"""Added to probabilities, as in the entropy model."""


@numba.njit(inline="always", **_COMPILE)
def uniform(seed, index):
    """A number in [0, 1) from 24 bits of a 64-bit mix (the finaliser of SplitMix64).

    Args:
        seed, index: uint64.
    """
    z = seed + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float32(z >> np.uint64(40)) * _TO_UNIT


@numba.njit(**_COMPILE)
def add_noise(latents, seed, out, begin, end):
    """out[i] = latents[i] + u_i - 0.5 for i in begin:end, both flat float32."""
    for i in range(begin, end):
        out[i] = latents[i] + (uniform(seed, np.uint64(i)) - np.float32(0.5))


@numba.njit(inline="always", **_COMPILE)
def _sigmoid(x):
    return np.float32(1) / (np.float32(1) + math.exp(-x))


@numba.njit(**_COMPILE)
def logistic_bits(latents, first, stride, scale, shift, seed, origin, grad, totals):
    """Bits of every stride-th row of one level under a logistic density, and their gradients.

    With v the noisy latent, P = sigmoid((v + 1/2) a + b) - sigmoid((v - 1/2) a + b) and
    bits = -log2(P + 1e-10).

    Args:
        latents: float32 [size, d], of this level.
        scale, shift: float32 [d], a and b.
        origin: Index of the level's first element in the whole table, for the noise.
        grad: float32 [rows read, d]; receives d bits / d latent.
        totals: float64 [d, 3]; receives the sums of bits, d bits / da and d bits / db.
    """
    num_channels = latents.shape[1]
    inverse_ln2 = 1.0 / math.log(2.0)
    for c in range(num_channels):
        a, b = scale[c], shift[c]
        bits, grad_a, grad_b = 0.0, 0.0, 0.0
        row = 0
        for i in range(first, latents.shape[0], stride):
            noise = uniform(seed, np.uint64(origin + i * num_channels + c)) - np.float32(0.5)
            v = latents[i, c] + noise
            upper, lower = (v + np.float32(0.5)) * a + b, (v - np.float32(0.5)) * a + b
            # In the upper tail both sigmoids are near 1; mirrored, the difference keeps its digits.
            sign = np.float32(-1) if upper + lower > 0 else np.float32(1)
            p_upper, p_lower = _sigmoid(sign * upper), _sigmoid(sign * lower)
            probability = sign * (p_upper - p_lower)
            factor = -inverse_ln2 / (probability + FLOOR)
            bits -= math.log(probability + FLOOR) * inverse_ln2
            slope_upper, slope_lower = p_upper * (1 - p_upper), p_lower * (1 - p_lower)
            slope = factor * (slope_upper - slope_lower)
            grad[row, c] = slope * a
            grad_b += slope
            grad_a += factor * (
                (v + np.float32(0.5)) * slope_upper - (v - np.float32(0.5)) * slope_lower
            )
            row += 1
        totals[c, 0], totals[c, 1], totals[c, 2] = bits, grad_a, grad_b
