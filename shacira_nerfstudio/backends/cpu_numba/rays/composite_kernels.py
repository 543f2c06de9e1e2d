"""Compositing, a range of rays at a time."""

from __future__ import annotations

import math

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FUSED


@numba.njit(**FUSED)
def composite_forward(
    sigmas, rgbs, t_starts, t_ends, packed_info, color, accumulation, distance, begin, end
):  # fmt: skip
    """Writes color [R, C], accumulation [R] and distance [R] of rays begin:end. See
    `Backend.composite`."""
    num_channels = rgbs.shape[1]
    total = np.zeros(num_channels)
    for ray in range(begin, end):
        optical_depth, acc, dist = 0.0, 0.0, 0.0
        total[:] = 0
        first = packed_info[ray, 0]
        for s in range(first, first + packed_info[ray, 1]):
            depth = sigmas[s] * (t_ends[s] - t_starts[s])
            weight = math.exp(-optical_depth) * -math.expm1(-depth)
            optical_depth += depth
            acc += weight
            dist += weight * (0.5 * (t_starts[s] + t_ends[s]))
            for c in range(num_channels):
                total[c] += weight * rgbs[s, c]
        for c in range(num_channels):
            color[ray, c] = total[c]
        accumulation[ray] = acc
        distance[ray] = dist


@numba.njit(**FUSED)
def composite_backward(
    sigmas, rgbs, t_starts, t_ends, packed_info, grad_color, grad_accumulation, grad_distance,
    grad_sigmas, grad_rgbs, begin, end,
):  # fmt: skip
    """Writes grad_sigmas [S] and grad_rgbs [S, C] for rays begin:end.

    With g_i the gradient of the loss in w_i: dL/dsigma_i = delta_i (T_{i+1} g_i - sum_{j>i} w_j
    g_j).
    """
    num_channels = rgbs.shape[1]
    for ray in range(begin, end):
        first, count = packed_info[ray, 0], packed_info[ray, 1]
        # Back to front: the suffix sum grows, and the optical depth shrinks to what lies in front.
        optical_depth = 0.0
        for s in range(first, first + count):
            # In double precision as below: the second loop takes away what this one added.
            optical_depth += sigmas[s] * np.float64(t_ends[s] - t_starts[s])
        suffix = 0.0
        behind = math.exp(-optical_depth)
        for s in range(first + count - 1, first - 1, -1):
            delta = np.float64(t_ends[s] - t_starts[s])
            depth = sigmas[s] * delta
            optical_depth -= depth
            front = math.exp(-optical_depth)
            weight = front * -math.expm1(-depth)
            g = grad_accumulation[ray] + grad_distance[ray] * (0.5 * (t_starts[s] + t_ends[s]))
            for c in range(num_channels):
                g += grad_color[ray, c] * rgbs[s, c]
                grad_rgbs[s, c] = weight * grad_color[ray, c]
            grad_sigmas[s] = delta * (behind * g - suffix)
            suffix += weight * g
            behind = front
