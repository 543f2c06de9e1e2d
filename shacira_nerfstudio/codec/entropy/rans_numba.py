"""The coder's inner loops under numba: the same bytes and integers as ``rans``, compiled.

Imported only by ``codec.compiled``, on first use. Everything is compiled without parallel threads
and without the GIL, so that callers may decode several files at once; compiled code is cached on
disk.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)


@_jit
def find_indices(values, table_index, first, minimums, freqs):
    """Twin of ``rans._find_indices``."""
    indices = np.empty(len(values), dtype=np.int32)
    if len(first) == 2 and first[1] > 1 and np.all(freqs > 0):
        # One table without gaps, as in small levels: nothing to look up, so this is vectorised.
        low, num_symbols = np.int64(minimums[0]), np.uint64(first[1])
        are_outside = False
        for i in range(len(values)):
            index = np.int64(values[i]) - low
            indices[i] = index
            are_outside |= np.uint64(index) >= num_symbols
        return indices[: 0 if are_outside else len(indices)], not are_outside
    count, all_occur = 0, True
    for i in range(len(values)):
        table = np.uint64(table_index[i])
        begin, end = np.int64(first[table]), np.int64(first[table + np.uint64(1)])
        index = begin + (np.int64(values[i]) - np.int64(minimums[table]))
        if index < begin or index >= end or freqs[np.uint64(index)] == 0:
            all_occur = False
            break
        indices[count] = index
        count += end - begin > 1
    return indices[: count if all_occur else 0], all_occur


@_jit
def push(indices, freqs, starts, precision, states):
    """Twin of ``rans._push``.

    Division by f is a multiplication by R = floor(2^(32 + p) / f) + 1. With x < 2^(32 - p) f, which
    holds once a word was taken off, the error x (R - 2^(32 + p) / f) / 2^(32 + p) is at most
    x / 2^(32 + p) < f / 2^(2 p) <= 1 / f: too little to reach the next integer. Nor does the
    product overflow: x R <= 2^(32 + p) x / f + x < 2^64.
    """
    whole, to_quotient = np.uint64(1 << precision), np.uint64(32 + precision)
    word_bits, half = np.uint64(16), np.uint64(32)
    to_bound, low_half = np.uint64(32 - precision), np.uint64(0xFFFFFFFF)
    reciprocals = np.empty(len(freqs), dtype=np.uint64)
    # x' = 2^p quotient + (x - quotient f) + c = x + quotient (2^p - f) + c: two numbers, one load.
    steps = np.empty(len(freqs), dtype=np.uint64)
    for index in range(len(freqs)):
        f = np.uint64(freqs[index])
        reciprocals[index] = (np.uint64(1) << to_quotient) // max(f, np.uint64(1)) + np.uint64(1)
        steps[index] = (whole - f) << half | np.uint64(starts[index])
    num_lanes = len(states)
    # Every symbol writes a word behind those that stay; only a full state moves on.
    words = np.empty(len(indices) + 1, dtype=np.uint16)
    free = np.uint64(len(indices))
    begin = (len(indices) - 1) // num_lanes * num_lanes
    end = len(indices) - begin
    while begin >= 0:
        for lane in range(end - 1, -1, -1):
            index = np.uint64(indices[begin + lane])
            x = states[lane]
            step = steps[index]
            others = step >> half
            is_full = x >= (whole - others) << to_bound
            words[free] = np.uint16(x)
            free -= np.uint64(is_full)
            x = x >> word_bits if is_full else x
            quotient = x * reciprocals[index] >> to_quotient
            states[lane] = x + quotient * others + (step & low_half)
        begin -= num_lanes
        end = num_lanes
    return words[free + np.uint64(1) :]


@_jit
def pull(table_index, first, minimums, lookup, freqs, starts, precision, states, words, position):
    """Twin of ``rans._pull``."""
    # One load per index: frequency, first slot (both below 2^16 where two indices share the
    # slots), symbol.
    numbers = np.empty(len(freqs), dtype=np.uint64)
    num_tables = len(first) - 1
    advance = np.empty(num_tables, dtype=np.uint64)
    for table in range(num_tables):
        begin, end = first[table], first[table + 1]
        advance[table] = end - begin > 1
        for index in range(begin, end):
            symbol = np.uint64(np.uint16(minimums[table] + (index - begin)))
            slots = np.uint64(freqs[index]) << np.uint64(32)
            numbers[index] = slots | np.uint64(starts[index]) << np.uint64(16) | symbol
    symbols = np.empty(len(table_index), dtype=np.int16)
    mask, shift = np.uint64((1 << precision) - 1), np.uint64(precision)
    low, word_bits, half = np.uint64(0xFFFF), np.uint64(16), np.uint64(32)
    num_lanes, lane = np.uint64(len(states)), np.uint64(0)
    if len(words) == 0:
        words = np.zeros(1, dtype=np.uint16)  # read, but not taken
        num_words = np.uint64(0)
    else:
        num_words = np.uint64(len(words))
    last, place = np.uint64(len(words) - 1), np.uint64(position)
    # No branch depends on the data. The index of a certain table has all slots, which leaves a
    # state as it is; then the lane stays.
    for i in range(len(table_index)):
        table = np.uint64(table_index[i])
        x = states[lane]
        slot = x & mask
        index = np.uint64(first[table]) + np.uint64(lookup[table << shift | slot])
        number = numbers[index]
        x = (number >> half) * (x >> shift) + slot - (number >> word_bits & low)
        is_low = x < np.uint64(65536)
        word = np.uint64(words[min(place, last)])
        states[lane] = x << word_bits | word if is_low else x
        place += np.uint64(is_low)
        symbols[i] = np.int16(number & low)
        lane += advance[table]
        lane = np.uint64(0) if lane == num_lanes else lane
    return symbols, min(np.int64(place), np.int64(num_words) + 1)


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
