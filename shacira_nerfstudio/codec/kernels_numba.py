"""The codec's inner loops under numba: the same bytes and integers as numpy, compiled.

Imported only by ``rans.kernels``, on first use. Everything is compiled without parallel threads and
without the GIL, so that callers may decode several files at once; compiled code is cached on disk.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)


@_jit
def push(freqs, starts, precision, states):
    """Twin of ``rans._push``."""
    num_lanes = len(states)
    words = np.empty(len(freqs), dtype=np.uint16)
    count = 0
    shift, low_bits = np.uint64(precision), np.uint64(0xFFFF)
    for i in range(len(freqs) - 1, -1, -1):
        lane = i % num_lanes
        f = np.uint64(freqs[i])
        x = states[lane]
        if x >= f << np.uint64(32 - precision):
            words[count] = x & low_bits
            count += 1
            x >>= np.uint64(16)
        quotient = x // f
        states[lane] = (quotient << shift) + (x - quotient * f) + np.uint64(starts[i])
    return words[:count]


@_jit
def pull(table_index, lookup, freqs, starts, precision, states, words, position):
    """Twin of ``rans._pull``."""
    num_lanes = len(states)
    letters = np.zeros(len(table_index), dtype=np.int32)
    mask, shift = np.uint64((1 << precision) - 1), np.uint64(precision)
    lane = 0
    for i in range(len(table_index)):
        x = states[lane]
        slot = x & mask
        letter = lookup[(np.int64(table_index[i]) << precision) + np.int64(slot)]
        letters[i] = letter
        x = np.uint64(freqs[letter]) * (x >> shift) + slot - np.uint64(starts[letter])
        if x < np.uint64(65536):
            if position >= len(words):
                return letters, len(words) + 1
            x = x << np.uint64(16) | np.uint64(words[position])
            position += 1
        states[lane] = x
        lane += 1
        if lane == num_lanes:
            lane = 0
    return letters, position


@_jit
def pull_bits(freqs_of_zero, precision, states, words, position):
    """Twin of ``rans._pull_bits``."""
    num_lanes = len(states)
    bits = np.zeros(len(freqs_of_zero), dtype=np.bool_)
    whole, shift = np.uint64(1 << precision), np.uint64(precision)
    mask = whole - np.uint64(1)
    lane = 0
    for i in range(len(freqs_of_zero)):
        zero = np.uint64(freqs_of_zero[i])
        x = states[lane]
        slot = x & mask
        if slot >= zero:
            bits[i] = True
            x = (whole - zero) * (x >> shift) + slot - zero
        else:
            x = zero * (x >> shift) + slot
        if x < np.uint64(65536):
            if position >= len(words):
                return bits, len(words) + 1
            x = x << np.uint64(16) | np.uint64(words[position])
            position += 1
        states[lane] = x
        lane += 1
        if lane == num_lanes:
            lane = 0
    return bits, position


@_jit
def scatter(index, x, size, is_dense, slab_support, around, place, support, magnitude):
    """Twin of ``contexts._scatter``."""
    shift = x if is_dense else x % size
    for i in range(len(index)):
        if slab_support[i]:
            entry = (index[i] + shift) % size if is_dense else index[i] ^ shift
            support[entry] = max(support[entry], slab_support[i])
            magnitude[entry] = max(magnitude[entry], around[place[i]])


@_jit
def support_slab(occupied, first, last):
    """Twin of ``contexts._support_slab`` in three dimensions."""
    resolution, cells = len(first), len(occupied)
    around = np.zeros((resolution + 1, resolution + 1), dtype=np.uint8)
    begin, end = np.full(cells, resolution), np.zeros(cells, dtype=np.int64)
    for z in range(resolution):
        for c in range(first[z], last[z]):
            begin[c], end[c] = min(begin[c], z), z + 1
    # One zero before and after the touched level cells of a row makes its sums of pairs simple.
    touched = np.zeros(resolution + 2, dtype=np.uint8)
    before = np.zeros(resolution + 1, dtype=np.uint8)
    after = np.zeros(resolution + 1, dtype=np.uint8)
    for y in range(resolution + 1):
        before, after = after, before
        if 0 < y < resolution and first[y] == first[y - 1] and last[y] == last[y - 1]:
            after[:] = before
        else:
            touched[:] = 0
            if y < resolution:
                for c in range(cells):
                    for row in range(first[y], last[y]):
                        if occupied[row, c]:
                            touched[begin[c] + 1 : end[c] + 1] = 1
                            break
            for z in range(resolution + 1):
                after[z] = touched[z] + touched[z + 1]
        for z in range(resolution + 1):
            around[y, z] = before[z] + after[z]
    return around


@_jit
def magnitude_slab(index, x, size, is_dense, magnitudes, side):
    """Twin of gathering a slab's magnitudes for ``contexts._pair_sums``."""
    around = np.empty((side - 1, side - 1), dtype=np.uint8)
    before = np.zeros(side, dtype=np.uint8)
    row = np.zeros(side, dtype=np.uint8)
    shift = x if is_dense else x % size
    for y in range(side):
        start = y * side
        for z in range(side):
            place = index[start + z]
            row[z] = magnitudes[(place + shift) % size if is_dense else place ^ shift]
        for z in range(side - 1):
            pair = np.uint8(row[z] + row[z + 1])
            if y:
                around[y - 1, z] = before[z] + pair
            before[z] = pair
    return around


@_jit
def expect(framed, front, shifts, seen):
    """Twin of ``occupancy._expect``."""
    patterns = np.empty(len(front), dtype=np.int64)
    freqs = np.empty(len(front), dtype=np.int64)
    for i in range(len(front)):
        pattern = 0
        for shift in shifts:
            pattern = pattern * 2 + framed[front[i] + shift]
        patterns[i] = pattern
        free, occupied = seen[pattern, 0], seen[pattern, 1]
        freq = ((5 * occupied + 2) << 16) // (5 * (occupied + free) + 4)
        freqs[i] = min(max(freq, 1), 65535)
    return patterns, freqs


@_jit
def learn(patterns, bits, seen):
    """Twin of ``occupancy._learn``."""
    for i in range(len(patterns)):
        seen[patterns[i], np.int64(bits[i])] += 1
