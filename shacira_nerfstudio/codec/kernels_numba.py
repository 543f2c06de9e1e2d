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
def pull(bases, lookup, freqs, starts, precision, states, words, position):
    """Twin of ``rans._pull``."""
    num_lanes = len(states)
    letters = np.zeros(len(bases), dtype=np.int32)
    mask, shift = np.uint64((1 << precision) - 1), np.uint64(precision)
    lane = 0
    for i in range(len(bases)):
        x = states[lane]
        slot = x & mask
        letter = lookup[bases[i] + np.int64(slot)]
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
def scatter(entries, slab_support, around, place, support, magnitude):
    """Twin of ``contexts._scatter``."""
    for i in range(len(entries)):
        if slab_support[i]:
            entry = entries[i]
            support[entry] = max(support[entry], slab_support[i])
            magnitude[entry] = max(magnitude[entry], around[place[i]])


@_jit
def support_slab(occupied, first, last):
    """Twin of ``contexts._support_slab`` in three dimensions."""
    resolution, cells = len(first), occupied.shape[1]
    around = np.zeros((resolution + 1, resolution + 1), dtype=np.uint8)
    counts = np.zeros((cells + 1, cells + 1), dtype=np.int32)
    for y in range(cells):
        count = np.int32(0)
        for z in range(cells):
            count += np.int32(occupied[y, z])
            counts[y + 1, z + 1] = counts[y, z + 1] + count
    touched = np.zeros(resolution + 2, dtype=np.uint8)
    pairs = np.zeros((2, resolution + 1), dtype=np.uint8)
    was_empty = True
    for y in range(resolution + 1):
        before, after = pairs[(y + 1) % 2], pairs[y % 2]
        if y == resolution:
            after[:] = 0
            is_empty = True
        elif y > 0 and first[y] == first[y - 1] and last[y] == last[y - 1]:
            after[:] = before
            is_empty = was_empty
        else:
            row = counts[last[y]] - counts[first[y]]
            is_empty = row[cells] == 0
            if is_empty:
                after[:] = 0
            else:
                for z in range(resolution):
                    touched[z + 1] = row[last[z]] > row[first[z]]
                for z in range(resolution + 1):
                    after[z] = touched[z] + touched[z + 1]
        if not (was_empty and is_empty):
            around[y] = before + after
        was_empty = is_empty
    return around


@_jit
def magnitude_slab(magnitudes, entries, side):
    """Twin of gathering a slab's magnitudes for ``contexts._pair_sums``."""
    around = np.empty((side - 1, side - 1), dtype=np.uint8)
    before = np.zeros(side - 1, dtype=np.uint8)
    for y in range(side):
        left = magnitudes[entries[y * side]]
        for z in range(side - 1):
            right = magnitudes[entries[y * side + z + 1]]
            pair = left + right
            if y:
                around[y - 1, z] = before[z] + pair
            before[z] = pair
            left = right
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
