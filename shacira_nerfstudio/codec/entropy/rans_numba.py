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
def walk_features(
    begin,
    end,
    occupied,
    first,
    last,
    index,
    size,
    is_dense,
    parent,
    older,
    support,
    magnitude,
    ancestry,
):
    """``contexts.level_features`` of the slabs from ``begin`` to before ``end``, all in one call.

    Args:
        first, last: As for ``contexts._support_slab``.
        index, size, is_dense: As for ``contexts._shift``.
        parent, older: A coarser level each: the same three of it, then its magnitudes, its vertices
            per axis or 0 if there is none, its cell of each vertex per axis, and each vertex's
            place in one x of these cells.
        support, magnitude, ancestry: Raised in place.
    """
    slabs = _start(first, last, len(occupied))
    vertices, counts = slabs[5], slabs[6]
    parent_state, older_state = _start_around(parent), _start_around(older)
    num = 0
    for x in range(begin, end):
        if _planes(x, x == begin, occupied, first, last, slabs):
            num = _list_touched(slabs)
        if num == 0:
            continue
        _around(x, parent, parent_state)
        _around(x, older, older_state)
        parent_sums, older_sums = parent_state[2], older_state[2]
        parent_place, older_place = parent[6], older[6]
        shift = x if is_dense else x % size
        for i in range(num):
            vertex = np.uint64(vertices[i])
            place = np.int64(index[vertex])
            entry = np.uint64((place + shift) % size if is_dense else place ^ shift)
            support[entry] = _larger(support[entry], counts[i])
            at = np.uint64(parent_place[vertex])
            magnitude[entry] = _larger(magnitude[entry], parent_sums[at])
            at = np.uint64(older_place[vertex])
            ancestry[entry] = _larger(ancestry[entry], older_sums[at])


@_jit
def _larger(a, b):
    """The larger of two bytes, without a branch that nothing could predict."""
    more = np.int64(b) - np.int64(a)
    return np.uint8(a + (more & ~(more >> 63)))


@_jit
def walk_neighbours(begin, end, occupied, first, last, index, size, is_dense, sizes, found):
    """``contexts.neighbour_sizes`` of the slabs from ``begin`` to before ``end``; otherwise as
    :func:`walk_features`."""
    slabs, num = _start(first, last, len(occupied)), 0
    for x in range(begin, end):
        if _planes(x, x == begin, occupied, first, last, slabs):
            num = _list_touched(slabs)
        scatter_neighbours(index, x, size, is_dense, slabs[5][:num], len(first) + 1, sizes, found)


@_jit
def _start(first, last, cells):
    """What a walk over slabs keeps: planes, their row ranges, which of them are below and above,
    level cells of each occupancy cell, and the touched vertices with their counts."""
    resolution = len(first)
    side = resolution + 1
    # Planes 0 and 1 take turns; 2 stays empty.
    planes = np.zeros((3, side * side), dtype=np.uint8)
    ranges = np.zeros((3, side, 2), dtype=np.int64)
    ranges[:, :, 0] = side
    turn = np.full(2, 2, dtype=np.int64)
    begins, ends = np.full(cells, resolution), np.zeros(cells, dtype=np.int64)
    for z in range(resolution):
        for cell in range(first[z], last[z]):
            begins[cell], ends[cell] = min(begins[cell], z), z + 1
    vertices = np.empty(side * side, dtype=np.int32)
    counts = np.empty(side * side, dtype=np.uint8)
    return planes, ranges, turn, begins, ends, vertices, counts


@_jit
def _planes(x, is_first, occupied, first, last, slabs):
    """Turns to the touched level cells of x - 1 and of x; whether they are other ones than
    before."""
    turn, resolution = slabs[2], len(first)
    if is_first:
        # For a plain 0 or 1 numba would compile _plane once more, for that number alone.
        turn[0] = _plane(x - 1, occupied, first, last, slabs, np.int64(0))
        turn[1] = _plane(x, occupied, first, last, slabs, np.int64(1))
        return True
    turn[0], before = turn[1], turn[0]
    # Fine levels repeat the slabs of an occupancy cell.
    if x < resolution and first[x] == first[x - 1] and last[x] == last[x - 1]:
        return before != turn[0]
    turn[1] = _plane(x, occupied, first, last, slabs, np.int64(turn[0] == 0))
    return True


@_jit
def _plane(x, occupied, first, last, slabs, number):
    """Counts the touched level cells of one x around each vertex of the slab into a plane.

    Returns:
        The number of the plane, or that of the empty one if there are none.
    """
    planes, ranges, _, begins, ends, _, _ = slabs
    resolution = len(first)
    if x < 0 or x == resolution:
        return 2
    side = resolution + 1
    plane, row_range = planes[number], ranges[number]
    plane[:] = 0
    row_range[:, 0], row_range[:, 1] = side, 0
    meets = occupied[first[x]].copy()
    for cell in range(first[x] + 1, last[x]):
        meets |= occupied[cell]
    # One zero before and after the touched level cells of a row makes its sums of pairs simple.
    touched = np.zeros(resolution + 2, dtype=np.uint8)
    low, high = resolution, 0
    for y in range(resolution):
        if y == 0 or first[y] != first[y - 1] or last[y] != last[y - 1]:
            touched[low + 1 : high + 1] = 0
            low, high = resolution, 0
            for row in range(first[y], last[y]):
                for cell in range(len(begins)):
                    if meets[row, cell]:
                        touched[begins[cell] + 1 : ends[cell] + 1] = 1
                        low, high = min(low, begins[cell]), max(high, ends[cell])
        if low < high:
            # Indices that begin at 0 let loops be vectorised.
            start = y * side + low
            before = plane[start : start + high + 1 - low]
            after = plane[start + side : start + side + high + 1 - low]
            left, right = touched[low : high + 1], touched[low + 1 : high + 2]
            for z in range(len(left)):
                pair = left[z] + right[z]
                before[z] += pair
                after[z] += pair
            for vertex_row in (y, y + 1):
                row_range[vertex_row, 0] = min(row_range[vertex_row, 0], low)
                row_range[vertex_row, 1] = max(row_range[vertex_row, 1], high + 1)
    return number if row_range[:, 1].max() > 0 else 2


@_jit
def _list_touched(slabs):
    """Lists the vertices with touched level cells around, and how many; returns their number."""
    planes, ranges, turn, _, _, vertices, counts = slabs
    below, above = planes[turn[0]], planes[turn[1]]
    side, num = ranges.shape[1], 0
    for y in range(side):
        low = min(ranges[turn[0], y, 0], ranges[turn[1], y, 0])
        high = max(ranges[turn[0], y, 1], ranges[turn[1], y, 1])
        for vertex in range(y * side + low, y * side + high):
            count = below[vertex] + above[vertex]
            vertices[num], counts[num] = vertex, count
            num += count > 0
    return num


@_jit
def _start_around(coarser):
    """What :func:`_around` keeps: its cell, the pair sums of that cell's upper vertices, and the
    sums over all corners."""
    cells = max(coarser[4] - 1, 1)
    pairs = np.zeros((2, cells * cells), dtype=np.uint8)
    return np.full(1, -2), pairs, np.zeros(cells * cells, dtype=np.uint8)


@_jit
def _around(x, coarser, state):
    """Turns to the coarser level's cells at a slab: the sums over the corners of each."""
    index, size, is_dense, magnitudes, side, parents, _ = coarser
    at, pairs, sums = state
    if side == 0 or parents[x] == at[0]:
        return
    cell = parents[x]
    lower, upper = pairs[cell % 2], pairs[(cell + 1) % 2]
    if cell != at[0] + 1:
        _pair_sums(cell, index, size, is_dense, magnitudes, side, lower)
    _pair_sums(cell + 1, index, size, is_dense, magnitudes, side, upper)
    for place in range(len(sums)):
        sums[place] = lower[place] + upper[place]
    at[0] = cell


@_jit
def _pair_sums(x, index, size, is_dense, magnitudes, side, found):
    """Sums of the four magnitudes at the corners of each cell of one x."""
    shift = x if is_dense else x % size
    line = np.zeros(side, dtype=np.uint8)
    before = np.zeros(side - 1, dtype=np.uint8)
    for y in range(side):
        places = index[y * side : (y + 1) * side]  # from 0 on: loops over it are vectorised
        if is_dense:
            for z in range(side):
                line[z] = magnitudes[np.uint64((places[z] + shift) % size)]
        else:
            for z in range(side):
                line[z] = magnitudes[np.uint64(places[z] ^ shift)]
        if y:
            target = found[(y - 1) * (side - 1) : y * (side - 1)]
            for z in range(side - 1):
                target[z] = before[z] + line[z] + line[z + 1]
        for z in range(side - 1):
            before[z] = line[z] + line[z + 1]


@_jit
def scatter_neighbours(index, x, size, is_dense, vertices, side, sizes, found):
    """Twin of ``contexts._scatter_neighbours`` in three dimensions."""
    # Without signs, divisions are cheaper and indices need no look whether they count from the end.
    one, stride, slots = np.uint64(1), np.uint64(side), np.uint64(size)
    here, is_last = np.uint64(x), x + 1 == side
    for i in range(len(vertices)):
        vertex = np.uint64(vertices[i])
        y = np.uint64(np.uint32(vertices[i]) // np.uint32(side))
        z = vertex - y * stride
        place = np.uint64(index[vertex])
        total = np.uint8(0)
        if x > 0:
            total += sizes[_entry(place, here - one, slots, is_dense)]
        if not is_last:
            total += sizes[_entry(place, here + one, slots, is_dense)]
        if y > 0:
            total += sizes[_entry(np.uint64(index[vertex - stride]), here, slots, is_dense)]
        if y + one < stride:
            total += sizes[_entry(np.uint64(index[vertex + stride]), here, slots, is_dense)]
        if z > 0:
            total += sizes[_entry(np.uint64(index[vertex - one]), here, slots, is_dense)]
        if z + one < stride:
            total += sizes[_entry(np.uint64(index[vertex + one]), here, slots, is_dense)]
        entry = _entry(place, here, slots, is_dense)
        found[entry] = _larger(found[entry], total)


@_jit
def _entry(place, x, size, is_dense):
    """Twin of ``contexts._shift`` for one vertex; a hashed table's size is a power of two."""
    return (place + x) % size if is_dense else place ^ (x & (size - np.uint64(1)))


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
