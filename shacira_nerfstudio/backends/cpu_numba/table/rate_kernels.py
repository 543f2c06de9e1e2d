"""What rows of the table of latents cost, one level at a time, and the gradients of that."""

from __future__ import annotations

import math

import numba
import numpy as np

from shacira_nerfstudio.backends.cpu_numba.compilation import FAST, FUSED
from shacira_nerfstudio.backends.cpu_numba.table.noise_kernels import noise_at
from shacira_nerfstudio.backends.sparse_rows import RATE_BLOCK

_HALF, _ONE = np.float32(0.5), np.float32(1)
FLOOR = np.float32(1e-10)
"""Added to probabilities, as in the entropy model."""
BATCH = 256
"""Elements whose rate is computed together, in loops that the compiler can vectorise."""
_FARTHEST = np.float32(60)
"""Cap on logits: exp(-60) is far below :data:`FLOOR` and still a normal number."""


@numba.njit(**FAST)
def _exponentials(x, bits, scale, out, count):
    """out = exp(-x), x from 0 to 60. Error 3e-7 of the value.

    exp(-x) = 2^k 2^f with an integer k and f within 1/2; a polynomial (Taylor) for 2^f, and k goes
    into the exponent's bits. ``scale`` is ``bits`` seen as float32.
    """
    for i in range(count):
        y = x[i] * np.float32(-1.4426950408889634)
        k = np.int32(y - _HALF)  # to the nearest: y is not positive
        f = (y - np.float32(k)) * np.float32(0.6931471805599453)
        bits[i] = (k + np.int32(127)) << np.int32(23)
        p = np.float32(1 / 720) * f + np.float32(1 / 120)
        p = p * f + np.float32(1 / 24)
        p = p * f + np.float32(1 / 6)
        p = p * f + _HALF
        out[i] = (p * f + _ONE) * f + _ONE
    for i in range(count):
        out[i] *= scale[i]


@numba.njit(**FAST)
def _logarithms(x, bits, out, count):
    """out = log2(x) of positive normal numbers. Error 2e-7 and 2e-7 of the value.

    ``bits`` is ``x`` seen as int32. With x = 2^k m and m in [2/3, 4/3): ln m = 2 artanh((m - 1) /
    (m + 1)), by its series up to the ninth power.
    """
    for i in range(count):
        k = (bits[i] - np.int32(0x3F2AAAAB)) >> np.int32(23)
        bits[i] -= k << np.int32(23)
        out[i] = np.float32(k)
    for i in range(count):
        z = (x[i] - _ONE) / (x[i] + _ONE)
        w = z * z
        p = w * np.float32(1 / 9) + np.float32(1 / 7)
        p = p * w + np.float32(1 / 5)
        p = p * w + np.float32(1 / 3)
        out[i] += z * (p * w + _ONE) * np.float32(2 * 1.4426950408889634)


@numba.njit(**FAST)
def _rate(v, a, b, q, bits, slope_v, slope_a, slope_b, work, ints, floats, count):
    """log2 of the probability of noisy latents v under logistic densities (a, b), and the
    gradients of bits, its negative.

    With m = v a + b the middle of the interval, mirrored so that it is not negative, u = m + a/2
    its far end, t = exp(-u) and q = exp(-a):

        P = sigmoid(u) - sigmoid(u - a) = t (1 - q) / ((1 + t) (t + q)),

    which cancels nothing. All arrays float32 of BATCH elements; ``ints`` is ``floats`` as int32.
    """
    for i in range(count):
        work[i] = min(abs(v[i] * a[i] + b[i]) + _HALF * a[i], _FARTHEST)
    _exponentials(work, ints, floats, bits, count)
    for i in range(count):
        t = bits[i]
        near, far = _ONE / (_ONE + t), _ONE / (t + q[i])
        rest = _ONE - q[i]
        probability = t * rest * near * far
        factor = np.float32(-1.4426950408889634) * probability / (probability + FLOOR)
        s = t * far - near
        signed = s * math.copysign(_ONE, v[i] * a[i] + b[i])
        slope_v[i] = factor * signed * a[i]
        slope_b[i] = factor * signed
        slope_a[i] = factor * (signed * v[i] + _HALF * s + q[i] / rest + q[i] * far)
        floats[i] = probability + FLOOR
    _logarithms(floats, ints, bits, count)


@numba.njit(**FUSED)
def _rated_rows(size, first, stride, origin, rows):
    """Writes to ``rows``, int32, which rows of a level are rated, and returns how many: those of
    the blocks ``first::stride`` of 16 rows of the whole table, where the level begins at
    ``origin``."""
    count = 0
    block = origin // RATE_BLOCK
    block += (first - block) % stride
    last = (origin + size + RATE_BLOCK - 1) // RATE_BLOCK
    while block < last:
        begin = max(block * RATE_BLOCK - origin, 0)
        for row in range(begin, min((block + 1) * RATE_BLOCK - origin, size)):
            rows[count] = row
            count += 1
        block += stride
    return count


@numba.njit(**FUSED)
def logistic_bits(latents, first, stride, scale, shift, seed, origin, rows, grad, totals):
    """Bits of some rows of one level under logistic densities, and their gradients.

    Args:
        latents: float32 [size, d], of this level.
        first, stride: Of the blocks of 16 rows of the whole table that count.
        scale, shift: float32 [d].
        seed: uint32.
        origin: The level's first row in the whole table.
        rows: int32; receives the rows that were rated, within the level.
        grad: float32 [len(rows), d]; receives d bits / d latent.
        totals: float64 [d, 3]; receives the sums of bits, d bits / da and d bits / db.

    Returns:
        How many rows were rated.
    """
    num_channels = latents.shape[1]
    count = _rated_rows(len(latents), first, stride, origin, rows)
    scratch = np.empty((9, BATCH), np.float32)
    v, a, b, q, bits = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    slope_v, slope_a, slope_b, work = scratch[5], scratch[6], scratch[7], scratch[8]
    ints = np.empty(BATCH, np.int32)
    floats = ints.view(np.float32)
    tails = np.exp(-scale)
    for c in range(num_channels):
        for start in range(0, count, BATCH):
            n = min(BATCH, count - start)
            for i in range(n):
                row = rows[start + i]
                index = np.uint32((origin + row) * num_channels + c)
                v[i] = latents[row, c] + noise_at(index, seed)
                a[i], b[i], q[i] = scale[c], shift[c], tails[c]
            _rate(v, a, b, q, bits, slope_v, slope_a, slope_b, work, ints, floats, n)
            for i in range(n):
                grad[start + i, c] = slope_v[i]
                totals[c, 0] -= bits[i]
                totals[c, 1] += slope_a[i]
                totals[c, 2] += slope_b[i]
    return count


@numba.njit(inline="always", **FUSED)
def _cost(table, q, middle):
    """Code lengths, linear between bins and beyond the last two; q counts bins from the first."""
    below = min(max(np.int32(math.floor(q)), np.int32(0)), np.int32(2 * middle - 1))
    low = table[below]
    return low + (q - np.float32(below)) * (table[below + 1] - low)


@numba.njit(**FUSED)
def coded_bits(latents, classes, first, stride, lengths, bins_per_unit, origin, rows, grad, total):
    """Bits of some rows of one level under tables of code lengths, and their gradients.

    Args:
        latents: float32 [size, d], of this level; ``classes`` int16 [size, d], -1 costs nothing.
        first, stride: Of the blocks of 16 rows of the whole table that count.
        lengths: float32 [K, W], the tables of this level; ``bins_per_unit`` float32.
        origin: The level's first row in the whole table.
        rows: int32; receives the rows whose gradient is not 0, within the level.
        grad: float32 [len(rows), d]; receives d bits / d latent.
        total: float64 [1]; receives the sum of bits.

    Returns:
        How many rows have a gradient.
    """
    num_channels, middle = latents.shape[1], lengths.shape[1] // 2
    shift, half = np.float32(middle), _HALF * bins_per_unit
    bits, count = 0.0, 0
    for index in range(_rated_rows(len(latents), first, stride, origin, rows)):
        row, is_moved = rows[index], False
        for c in range(num_channels):
            grad[count, c] = np.float32(0)
            kind = classes[row, c]
            if kind >= 0:
                table, q = lengths[kind], latents[row, c] * bins_per_unit + shift
                rounded = np.float32(np.rint(latents[row, c])) * bins_per_unit + shift
                bits += _cost(table, rounded, middle)
                slope = _cost(table, q + half, middle) - _cost(table, q - half, middle)
                grad[count, c] = slope
                is_moved = is_moved or slope != 0
        rows[count] = row  # not beyond those that were read
        count += is_moved
    total[0] = bits
    return count


@numba.njit(**FUSED)
def add_rows(rows, grad, factor, origin, values, touched):
    """values[origin + rows] += factor * grad, and marks these rows.

    Args:
        rows: int32 [n], within a level; grad float32 [n, d].
        values: float32 [E, d] and ``touched`` uint8 [E / 8], of the whole table.
    """
    for i in range(len(rows)):
        row = origin + rows[i]
        for c in range(grad.shape[1]):
            values[row, c] += factor * grad[i, c]
        touched[row >> 3] |= np.uint8(1) << np.uint8(row & 7)
