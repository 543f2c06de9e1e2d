"""The codec's inner loops under numba: the same bytes and integers as numpy, compiled.

Imported only by ``rans.kernels``, on first use. Everything is compiled without parallel threads and
without the GIL, so that callers may decode several files at once; compiled code is cached on disk.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)


@_jit
def find_letters(values, table_index, first, minimums, freqs):
    """Twin of ``rans._find_letters``."""
    letters = np.empty(len(values), dtype=np.int32)
    if len(first) == 2 and first[1] > 1 and np.all(freqs > 0):
        # One table without gaps, as in small levels: nothing to look up, so this is vectorised.
        low, num_letters = np.int64(minimums[0]), np.uint64(first[1])
        are_outside = False
        for i in range(len(values)):
            letter = np.int64(values[i]) - low
            letters[i] = letter
            are_outside |= np.uint64(letter) >= num_letters
        return letters[: 0 if are_outside else len(letters)], not are_outside
    count, all_occur = 0, True
    for i in range(len(values)):
        table = np.uint64(table_index[i])
        begin, end = np.int64(first[table]), np.int64(first[table + np.uint64(1)])
        letter = begin + (np.int64(values[i]) - np.int64(minimums[table]))
        if letter < begin or letter >= end or freqs[np.uint64(letter)] == 0:
            all_occur = False
            break
        letters[count] = letter
        count += end - begin > 1
    return letters[: count if all_occur else 0], all_occur


@_jit
def push(letters, freqs, starts, precision, states):
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
    for letter in range(len(freqs)):
        f = np.uint64(freqs[letter])
        reciprocals[letter] = (np.uint64(1) << to_quotient) // max(f, np.uint64(1)) + np.uint64(1)
        steps[letter] = (whole - f) << half | np.uint64(starts[letter])
    num_lanes = len(states)
    # Every symbol writes a word behind those that stay; only a full state moves on.
    words = np.empty(len(letters) + 1, dtype=np.uint16)
    free = np.uint64(len(letters))
    begin = (len(letters) - 1) // num_lanes * num_lanes
    end = len(letters) - begin
    while begin >= 0:
        for lane in range(end - 1, -1, -1):
            letter = np.uint64(letters[begin + lane])
            x = states[lane]
            step = steps[letter]
            others = step >> half
            is_full = x >= (whole - others) << to_bound
            words[free] = np.uint16(x)
            free -= np.uint64(is_full)
            x = x >> word_bits if is_full else x
            quotient = x * reciprocals[letter] >> to_quotient
            states[lane] = x + quotient * others + (step & low_half)
        begin -= num_lanes
        end = num_lanes
    return words[free + np.uint64(1) :]


@_jit
def pull(table_index, first, minimums, lookup, freqs, starts, precision, states, words, position):
    """Twin of ``rans._pull``."""
    # One load per letter: frequency, first slot (both below 2^16 where two letters share the
    # slots), symbol.
    facts = np.empty(len(freqs), dtype=np.uint64)
    num_tables = len(first) - 1
    advance = np.empty(num_tables, dtype=np.uint64)
    for table in range(num_tables):
        begin, end = first[table], first[table + 1]
        advance[table] = end - begin > 1
        for letter in range(begin, end):
            symbol = np.uint64(np.uint16(minimums[table] + (letter - begin)))
            slots = np.uint64(freqs[letter]) << np.uint64(32)
            facts[letter] = slots | np.uint64(starts[letter]) << np.uint64(16) | symbol
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
    # No branch depends on the data. The letter of a certain table has all slots, which leaves a
    # state as it is; then the lane stays.
    for i in range(len(table_index)):
        table = np.uint64(table_index[i])
        x = states[lane]
        slot = x & mask
        letter = np.uint64(first[table]) + np.uint64(lookup[table << shift | slot])
        fact = facts[letter]
        x = (fact >> half) * (x >> shift) + slot - (fact >> word_bits & low)
        is_low = x < np.uint64(65536)
        word = np.uint64(words[min(place, last)])
        states[lane] = x << word_bits | word if is_low else x
        place += np.uint64(is_low)
        symbols[i] = np.int16(fact & low)
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


@_jit
def scatter(index, x, size, is_dense, vertices, counts, around, place, support, magnitude):
    """Twin of ``contexts._scatter``."""
    shift = x if is_dense else x % size
    for i in range(len(vertices)):
        vertex = vertices[i]
        entry = (index[vertex] + shift) % size if is_dense else index[vertex] ^ shift
        support[entry] = max(support[entry], counts[i])
        magnitude[entry] = max(magnitude[entry], around[place[vertex]])


@_jit
def scatter_neighbours(index, x, size, is_dense, vertices, side, sizes, found):
    """Twin of ``contexts._scatter_neighbours`` in three dimensions."""
    for vertex in vertices:
        y, z = vertex // side, vertex % side
        place = index[vertex]
        total = np.uint8(0)
        if x > 0:
            total += sizes[_entry(place, x - 1, size, is_dense)]
        if x + 1 < side:
            total += sizes[_entry(place, x + 1, size, is_dense)]
        if y > 0:
            total += sizes[_entry(index[vertex - side], x, size, is_dense)]
        if y + 1 < side:
            total += sizes[_entry(index[vertex + side], x, size, is_dense)]
        if z > 0:
            total += sizes[_entry(index[vertex - 1], x, size, is_dense)]
        if z + 1 < side:
            total += sizes[_entry(index[vertex + 1], x, size, is_dense)]
        entry = _entry(place, x, size, is_dense)
        found[entry] = max(found[entry], total)


@_jit
def _entry(place, x, size, is_dense):
    """Twin of ``contexts._shift`` for one vertex; a hashed table's size is a power of two."""
    return (place + x) % size if is_dense else place ^ (x & (size - 1))


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
