"""The network of a picture over tiles of samples, see :mod:`network_kernels`."""

from __future__ import annotations

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FAST
from shacira_nerfstudio.backends.cpu_numba.networks.network_kernels import (
    COLUMNS,
    ROWS,
    TILE,
    apply_layers,
    clear,
    input_gradient,
    linear,
    load,
    parameter_gradient,
    relu,
    relu_backward,
    store,
    widest,
)


@numba.njit(**FAST)
def pixel_forward(z, params, layers, out, begin, end):
    """Writes out [C, S] for samples begin:end.

    Args:
        z: Latents [K, S].
        layers: int64 [layers, 5].
    """
    size, none = widest(layers) * TILE, np.empty(0, np.int32)
    x, y = np.empty(size, np.float32), np.empty(size, np.float32)
    for s in range(begin, end, TILE):
        n = min(TILE, end - s)
        load(z, 0, z.shape[0], s, n, x, 0)
        clear(x, z.shape[0], layers[0, COLUMNS])
        x, y = apply_layers(params, none, layers, x, y, none)
        store(x, 0, out.shape[0], out, 0, s, n)


@numba.njit(**FAST)
def pixel_backward(z, grad_out, params, layers, grads, grad_z, begin, end):
    """Gradients of samples begin:end; activations are computed again.

    Args:
        grad_out: [C, S].
        grads: Like ``params``; gradients are added.
        grad_z: [K, S], written.
    """
    last, none = len(layers) - 1, np.empty(0, np.int32)
    size = widest(layers) * TILE
    activations = np.empty((len(layers), size), np.float32)
    d, dx = np.empty(size, np.float32), np.empty(size, np.float32)
    for s in range(begin, end, TILE):
        n = min(TILE, end - s)
        load(z, 0, z.shape[0], s, n, activations[0], 0)
        clear(activations[0], z.shape[0], layers[0, COLUMNS])
        for index in range(last):
            linear(params, none, layers[index], activations[index], activations[index + 1], none)
            relu(activations[index + 1], layers[index, ROWS])
        load(grad_out, 0, grad_out.shape[0], s, n, d, 0)
        clear(d, grad_out.shape[0], layers[last, ROWS])
        for index in range(last, -1, -1):
            parameter_gradient(d, activations[index], layers[index], grads, none)
            input_gradient(params, none, layers[index], d, dx, none)
            if index:
                relu_backward(dx, activations[index], layers[index, COLUMNS])
            d, dx = dx, d
        store(d, 0, z.shape[0], grad_z, 0, s, n)
