"""The two networks over tiles of samples: a tile goes through all layers while it is in the cache.

A tile holds TILE samples, channel after channel: element (c, i) of an activation is
``[c * TILE + i]``, so that the innermost loop of every product runs over samples, is contiguous,
and has a length known to the compiler. Matrices are padded with zeros to multiples of four, so that
no loop has a remainder. All arrays are float32.

A network is one flat array of parameters and an int64 table with one row per layer, see
:class:`shacira_nerfstudio.backends.cpu_numba.networks.shade.PackedNetworks`.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FAST
from shacira_nerfstudio.backends.cpu_numba.networks import bfloat16_kernels
from shacira_nerfstudio.backends.networks import MAX_LOG_DENSITY

TILE = bfloat16_kernels.TILE
ROWS, COLUMNS, WEIGHT, BIAS, TRANSPOSED = 0, 1, 2, 3, 4
"""Columns of a layer's row in the table: padded sizes, then where its parts begin."""
_ZERO = np.float32(0)
_SIGN, _HALF, _TINY = np.int32(31), np.float32(0.5), np.float32(1e-30)
_U = np.uint64
"""Loops that have to be vectorised count without a sign: a signed index may be negative, which the
compiler would have to provide for at every access."""
_TILE = np.uint64(TILE)


@numba.njit(**FAST)
def multiply(params, at, rows, columns, x, y):
    """y[j] += sum_k weight[j, k] x[k]; ``weight`` [rows, columns] begins at ``params[at]``."""
    for j in range(0, rows, 2):
        y0, y1 = _U(j * TILE), _U((j + 1) * TILE)
        for k in range(0, columns, 4):
            w = at + j * columns + k
            a0, a1, a2, a3 = params[w], params[w + 1], params[w + 2], params[w + 3]
            v = w + columns
            b0, b1, b2, b3 = params[v], params[v + 1], params[v + 2], params[v + 3]
            k0, k1 = _U(k * TILE), _U((k + 1) * TILE)
            k2, k3 = _U((k + 2) * TILE), _U((k + 3) * TILE)
            for i in range(_TILE):
                x0, x1, x2, x3 = x[k0 + i], x[k1 + i], x[k2 + i], x[k3 + i]
                y[y0 + i] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                y[y1 + i] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3


@numba.njit(**FAST)
def product(params, halves, at, rows, columns, x, y, pairs):
    """As :func:`multiply`, in bfloat16 if there are ``halves``, see :func:`work_space`."""
    if len(halves):
        bfloat16_kernels.pair_channels(x, columns, pairs)
        bfloat16_kernels.multiply(halves, at // 2, rows, columns, pairs, y)
    else:
        multiply(params, at, rows, columns, x, y)


@numba.njit(**FAST)
def linear(params, halves, layer, x, y, pairs):
    """y = weight x + bias."""
    for j in range(layer[ROWS]):
        bias, y0 = params[layer[BIAS] + j], _U(j * TILE)
        for i in range(_TILE):
            y[y0 + i] = bias
    product(params, halves, layer[WEIGHT], layer[ROWS], layer[COLUMNS], x, y, pairs)


@numba.njit(**FAST)
def relu(y, count):
    """Zeroes what is negative in rows 0 : count. By sign bits: a comparison would not vectorise."""
    bits = y.view(np.int32)
    for i in range(_U(count * TILE)):
        bits[i] &= ~(bits[i] >> _SIGN)


@numba.njit(**FAST)
def relu_backward(d, y, count):
    """Zeroes d where y, an output of :func:`relu`, is 0 (or below 1e-30). Arithmetic with a sign,
    for the same reason."""
    for c in range(count):
        c0 = _U(c * TILE)
        for i in range(_TILE):
            d[c0 + i] *= _HALF + math.copysign(_HALF, y[c0 + i] - _TINY)


@numba.njit(**FAST)
def input_gradient(params, halves, layer, d, dx, pairs):
    """dx = weight^T d."""
    clear(dx, 0, layer[COLUMNS])
    product(params, halves, layer[TRANSPOSED], layer[COLUMNS], layer[ROWS], d, dx, pairs)


@numba.njit(**FAST)
def add_outer(d, x, rows, columns, grads, at):
    """Adds d x^T, summed over a tile's samples, to ``grads`` [rows, columns] from ``at`` on."""
    for j in range(0, rows, 4):
        j0, j1 = _U(j * TILE), _U((j + 1) * TILE)
        j2, j3 = _U((j + 2) * TILE), _U((j + 3) * TILE)
        for k in range(0, columns, 2):
            k0, k1 = _U(k * TILE), _U((k + 1) * TILE)
            s00, s01, s10, s11 = _ZERO, _ZERO, _ZERO, _ZERO
            s20, s21, s30, s31 = _ZERO, _ZERO, _ZERO, _ZERO
            for i in range(_TILE):
                x0, x1 = x[k0 + i], x[k1 + i]
                d0, d1, d2, d3 = d[j0 + i], d[j1 + i], d[j2 + i], d[j3 + i]
                s00 += d0 * x0
                s01 += d0 * x1
                s10 += d1 * x0
                s11 += d1 * x1
                s20 += d2 * x0
                s21 += d2 * x1
                s30 += d3 * x0
                s31 += d3 * x1
            g = at + j * columns + k
            grads[g] += s00
            grads[g + 1] += s01
            grads[g + columns] += s10
            grads[g + columns + 1] += s11
            grads[g + 2 * columns] += s20
            grads[g + 2 * columns + 1] += s21
            grads[g + 3 * columns] += s30
            grads[g + 3 * columns + 1] += s31


@numba.njit(**FAST)
def parameter_gradient(d, x, layer, grads, pairs):
    """Adds d x^T to the gradient of the weight, and d to that of the bias. In bfloat16 if there are
    ``pairs``."""
    rows, columns = layer[ROWS], layer[COLUMNS]
    if len(pairs):
        others = pairs[rows * (TILE // 2) :]
        bfloat16_kernels.pair_samples(d, rows, pairs)
        bfloat16_kernels.pair_samples(x, columns, others)
        bfloat16_kernels.add_outer(pairs, others, rows, columns, grads, layer[WEIGHT])
    else:
        add_outer(d, x, rows, columns, grads, layer[WEIGHT])
    for j in range(rows):
        total, j0 = _ZERO, _U(j * TILE)
        for i in range(_TILE):
            total += d[j0 + i]
        grads[layer[BIAS] + j] += total


@numba.njit(**FAST)
def clear(tile, first, last):
    """Zeroes rows first : last of a tile."""
    for i in range(_U(first * TILE), _U(last * TILE)):
        tile[i] = _ZERO


@numba.njit(**FAST)
def load(source, first, count, begin, n, tile, at):
    """Rows first : first + count of source [C, S], samples begin : begin + n, into a tile's rows
    from ``at`` on. The tile's remaining samples become 0."""
    for c in range(count):
        row, values = (at + c) * TILE, source[first + c]
        for i in range(_U(n)):
            tile[_U(row) + i] = values[_U(begin) + i]
        for i in range(_U(n), _TILE):
            tile[_U(row) + i] = _ZERO


@numba.njit(**FAST)
def store(tile, at, count, target, first, begin, n):
    """The reverse of :func:`load`."""
    for c in range(count):
        row, values = (at + c) * TILE, target[first + c]
        for i in range(_U(n)):
            values[_U(begin) + i] = tile[_U(row) + i]


@numba.njit(**FAST)
def widest(layers):
    """Rows or columns of the largest layer."""
    most = 0
    for index in range(len(layers)):
        most = max(most, layers[index, ROWS], layers[index, COLUMNS])
    return most


@numba.njit(**FAST)
def work_space(halves, layers):
    """Room for a product's factors in bfloat16; none where ``halves`` is empty.

    Args:
        halves: int32, ``params`` by :func:`bfloat16_kernels.bfloat16_pairs`; empty for networks in
            float32.
    """
    return np.empty(widest(layers) * TILE if len(halves) else 0, np.int32)


@numba.njit(**FAST)
def density_forward(z, params, halves, layers, outputs, begin, end):
    """Writes outputs [G, S], the outputs of the density network, for samples begin:end.

    Args:
        z: Latents [K, S].
        halves: See :func:`work_space`.
        layers: int64 [2, 5].
    """
    first, second = layers[0], layers[1]
    pairs = work_space(halves, layers)
    x = np.empty(first[COLUMNS] * TILE, np.float32)
    hidden = np.empty(first[ROWS] * TILE, np.float32)
    y = np.empty(second[ROWS] * TILE, np.float32)
    clear(x, z.shape[0], first[COLUMNS])
    for s in range(begin, end, TILE):
        n = min(TILE, end - s)
        load(z, 0, z.shape[0], s, n, x, 0)
        linear(params, halves, first, x, hidden, pairs)
        relu(hidden, first[ROWS])
        linear(params, halves, second, hidden, y, pairs)
        store(y, 0, outputs.shape[0], outputs, 0, s, n)


@numba.njit(**FAST)
def load_color_input(features, rays, outputs, s, n, tile, columns):
    """Ray features [R, A], then geometry outputs[1:], then zeros."""
    width = features.shape[1]
    for i in range(n):
        ray = rays[s + i]
        for a in range(width):
            tile[a * TILE + i] = features[ray, a]
    for a in range(width):
        for i in range(n, TILE):
            tile[a * TILE + i] = _ZERO
    load(outputs, 1, outputs.shape[0] - 1, s, n, tile, width)
    clear(tile, width + outputs.shape[0] - 1, columns)


@numba.njit(**FAST)
def apply_layers(params, halves, layers, x, y, pairs):
    """Takes a tile x through all layers, with rectified linear units between them; y is of the same
    size, to work in. Returns the two, the one with the outputs first."""
    for index in range(len(layers)):
        linear(params, halves, layers[index], x, y, pairs)
        if index + 1 < len(layers):
            relu(y, layers[index, ROWS])
        x, y = y, x
    return x, y


@numba.njit(**FAST)
def color_forward(outputs, features, rays, params, halves, layers, sigma, rgb, begin, end):
    """Writes sigma [S] and rgb [S, 3] for samples begin:end.

    Args:
        outputs: [G, S]; the first is log density.
        features: [R, A]; ``rays`` int64 [S] says which row is a sample's.
        layers: int64 [colour layers, 5].
    """
    size = widest(layers) * TILE
    x, y = np.empty(size, np.float32), np.empty(size, np.float32)
    limit, pairs = np.float32(MAX_LOG_DENSITY), work_space(halves, layers)
    for s in range(begin, end, TILE):
        n = min(TILE, end - s)
        load_color_input(features, rays, outputs, s, n, x, layers[0, COLUMNS])
        x, y = apply_layers(params, halves, layers, x, y, pairs)
        for i in range(n):
            sigma[s + i] = math.exp(min(outputs[0, s + i], limit))
            for c in range(3):
                rgb[s + i, c] = np.float32(1) / (np.float32(1) + math.exp(-x[c * TILE + i]))


@numba.njit(**FAST)
def shade_backward(
    z, outputs, features, rays, params, halves, density_layers, color_layers, sigma, rgb,
    grad_sigma, grad_rgb, grads, grad_z, grad_inputs, begin, end,
):  # fmt: skip
    """Gradients of samples begin:end; activations are computed again.

    Args:
        grads: Like ``params``; gradients are added.
        grad_z: [K, S], written.
        grad_inputs: [S, A] of the ray features, written; [0, A] if nobody wants it.
    """
    num_layers = len(color_layers)
    size = max(widest(density_layers), widest(color_layers)) * TILE
    pairs = np.empty(size if len(halves) else 0, np.int32)
    activations = np.empty((num_layers + 1, size), np.float32)
    d, dx = np.zeros(size, np.float32), np.empty(size, np.float32)
    hidden, width = np.empty(size, np.float32), features.shape[1]
    first, second = density_layers[0], density_layers[1]
    for s in range(begin, end, TILE):
        n = min(TILE, end - s)
        load_color_input(features, rays, outputs, s, n, activations[0], color_layers[0, COLUMNS])
        for index in range(num_layers - 1):
            layer = color_layers[index]
            linear(params, halves, layer, activations[index], activations[index + 1], pairs)
            relu(activations[index + 1], color_layers[index, ROWS])
        clear(d, 0, color_layers[num_layers - 1, ROWS])
        for i in range(n):
            for c in range(3):
                value = rgb[s + i, c]
                d[c * TILE + i] = grad_rgb[s + i, c] * value * (np.float32(1) - value)
        for index in range(num_layers - 1, -1, -1):
            parameter_gradient(d, activations[index], color_layers[index], grads, pairs)
            input_gradient(params, halves, color_layers[index], d, dx, pairs)
            if index:
                relu_backward(dx, activations[index], color_layers[index, COLUMNS])
            d, dx = dx, d
        if len(grad_inputs):
            for i in range(n):
                for a in range(width):
                    grad_inputs[s + i, a] = d[a * TILE + i]
        # The gradient in outputs: density first, then what the colour network says of the geometry.
        clear(dx, 0, second[ROWS])
        for i in range(n):
            dx[i] = grad_sigma[s + i] * sigma[s + i]
        for i in range(_U((outputs.shape[0] - 1) * TILE)):
            dx[_TILE + i] = d[_U(width * TILE) + i]
        d, dx = dx, d
        x = activations[0]
        load(z, 0, z.shape[0], s, n, x, 0)
        clear(x, z.shape[0], first[COLUMNS])
        linear(params, halves, first, x, hidden, pairs)
        relu(hidden, first[ROWS])
        parameter_gradient(d, hidden, second, grads, pairs)
        input_gradient(params, halves, second, d, dx, pairs)
        relu_backward(dx, hidden, first[ROWS])
        parameter_gradient(dx, x, first, grads, pairs)
        input_gradient(params, halves, first, dx, d, pairs)
        store(d, 0, z.shape[0], grad_z, 0, s, n)
