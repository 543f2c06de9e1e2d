"""Features of a level's entries under numba: the same integers as ``features``, compiled.

Imported only by ``codec.compiled``, on first use. Everything is compiled without parallel threads
and without the GIL, so that callers may run several kernels at once; compiled code is cached on
disk.

A slab is a plane of rows and columns; that of a picture is a single row. These tuples recur:

    layout    index, shifts, size and is_dense of a ``level_slabs.SlabLayout``, rows and columns
    coarser   layout of a coarser level, or one without columns if there is none; its magnitudes;
              slabs and position of a ``level_slabs.CoarserCells``
    planes    what :func:`_start` makes
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)


@_jit
def scatter_features(
    begin,
    end,
    occupied,
    spans,
    layout,
    parent,
    grandparent,
    touched_cells,
    parent_magnitude,
    grandparent_magnitude,
):
    """``features.level_features`` of the slabs from ``begin`` to before ``end``, all in one call.

    Args:
        occupied, spans: As in ``level_slabs.TouchedSlabs``, always of three axes.
        parent, grandparent: A coarser level each.
        touched_cells, parent_magnitude, grandparent_magnitude: Raised in place.
    """
    index, shifts, size, is_dense, rows, columns = layout
    planes = _start(occupied, spans, rows, columns)
    vertices, counts = planes[5], planes[6]
    parent_state, grandparent_state = _start_coarser(parent), _start_coarser(grandparent)
    num = 0
    for x in range(begin, end):
        if _turn_planes(x, x == begin, occupied, spans, planes):
            num = _list_touched(planes, rows)
        if num == 0:
            continue
        _turn_coarser(x, parent, parent_state)
        _turn_coarser(x, grandparent, grandparent_state)
        parent_sums, grandparent_sums = parent_state[2], grandparent_state[2]
        parent_position, grandparent_position = parent[3], grandparent[3]
        shift = np.int64(shifts[x])
        for i in range(num):
            vertex = np.uint64(vertices[i])
            place = np.int64(index[vertex])
            entry = np.uint64((place + shift) % size if is_dense else place ^ shift)
            touched_cells[entry] = _larger(touched_cells[entry], counts[i])
            at = np.uint64(parent_position[vertex])
            parent_magnitude[entry] = _larger(parent_magnitude[entry], parent_sums[at])
            at = np.uint64(grandparent_position[vertex])
            grandparent_magnitude[entry] = _larger(
                grandparent_magnitude[entry], grandparent_sums[at]
            )


@_jit
def _larger(a, b):
    """The larger of two bytes, without a branch that nothing could predict."""
    more = np.int64(b) - np.int64(a)
    return np.uint8(a + (more & ~(more >> 63)))


@_jit
def scatter_neighbours(begin, end, occupied, spans, layout, magnitudes, result):
    """``features.neighbour_magnitudes`` of the slabs from ``begin`` to before ``end``; otherwise as
    :func:`scatter_features`."""
    planes, num = _start(occupied, spans, layout[4], layout[5]), 0
    for x in range(begin, end):
        if _turn_planes(x, x == begin, occupied, spans, planes):
            num = _list_touched(planes, layout[4])
        _scatter_neighbours(x, layout, planes[5][:num], magnitudes, result)


@_jit
def _start(occupied, spans, rows, columns):
    """What a run over slabs keeps: planes, their row ranges, which of them are below and above,
    level cells of each occupancy cell, and the touched vertices with their counts."""
    along_columns = spans[2]
    num_cells, resolution = occupied.shape[2], len(along_columns)
    # Planes 0 and 1 take turns; 2 stays empty. Each has one more row than it has rows of level
    # cells; where there is a single row of vertices, nobody reads that one.
    plane_rows = len(spans[1]) + 1
    planes = np.zeros((3, plane_rows * columns), dtype=np.uint8)
    ranges = np.zeros((3, plane_rows, 2), dtype=np.int64)
    ranges[:, :, 0] = columns
    turn = np.full(2, 2, dtype=np.int64)
    begins, ends = np.full(num_cells, resolution), np.zeros(num_cells, dtype=np.int64)
    for z in range(resolution):
        for cell in range(along_columns[z, 0], along_columns[z, 1]):
            begins[cell], ends[cell] = min(begins[cell], z), z + 1
    vertices = np.empty(rows * columns, dtype=np.int32)
    counts = np.empty(rows * columns, dtype=np.uint8)
    return planes, ranges, turn, begins, ends, vertices, counts


@_jit
def _turn_planes(x, is_first, occupied, spans, planes):
    """Turns to the touched level cells of x - 1 and of x; whether they are other ones than
    before."""
    turn, along = planes[2], spans[0]
    if is_first:
        # For a plain 0 or 1 numba would compile _count_plane once more, for that number alone.
        turn[0] = _count_plane(x - 1, occupied, spans, planes, np.int64(0))
        turn[1] = _count_plane(x, occupied, spans, planes, np.int64(1))
        return True
    turn[0], before = turn[1], turn[0]
    # Fine levels repeat the slabs of an occupancy cell.
    if x < len(along) and along[x, 0] == along[x - 1, 0] and along[x, 1] == along[x - 1, 1]:
        return before != turn[0]
    turn[1] = _count_plane(x, occupied, spans, planes, np.int64(turn[0] == 0))
    return True


@_jit
def _count_plane(x, occupied, spans, planes, number):
    """Counts the touched level cells of one x around each vertex of the slab into a plane.

    Returns:
        The number of the plane, or that of the empty one if there are none.
    """
    along, along_rows, along_columns = spans
    if x < 0 or x == len(along):
        return 2
    begins, ends = planes[3], planes[4]
    plane, row_range = planes[0][number], planes[1][number]
    resolution = len(along_columns)
    columns = resolution + 1
    plane[:] = 0
    row_range[:, 0], row_range[:, 1] = columns, 0
    meets = occupied[along[x, 0]].copy()
    for cell in range(along[x, 0] + 1, along[x, 1]):
        meets |= occupied[cell]
    # One zero before and after the touched level cells of a row makes its sums of pairs simple.
    touched = np.zeros(resolution + 2, dtype=np.uint8)
    low, high = resolution, 0
    for y in range(len(along_rows)):
        first, last = along_rows[y, 0], along_rows[y, 1]
        if y == 0 or first != along_rows[y - 1, 0] or last != along_rows[y - 1, 1]:
            touched[low + 1 : high + 1] = 0
            low, high = resolution, 0
            for row in range(first, last):
                for cell in range(len(begins)):
                    if meets[row, cell]:
                        touched[begins[cell] + 1 : ends[cell] + 1] = 1
                        low, high = min(low, begins[cell]), max(high, ends[cell])
        if low < high:
            # Indices that begin at 0 let loops be vectorised.
            start = y * columns + low
            before = plane[start : start + high + 1 - low]
            after = plane[start + columns : start + columns + high + 1 - low]
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
def _list_touched(planes, rows):
    """Lists the vertices with touched level cells around, and how many; returns their number."""
    counted, ranges, turn, _, _, vertices, counts = planes
    below, above = counted[turn[0]], counted[turn[1]]
    columns, num = len(below) // ranges.shape[1], 0
    for y in range(rows):
        low = min(ranges[turn[0], y, 0], ranges[turn[1], y, 0])
        high = max(ranges[turn[0], y, 1], ranges[turn[1], y, 1])
        for vertex in range(y * columns + low, y * columns + high):
            count = below[vertex] + above[vertex]
            vertices[num], counts[num] = vertex, count
            num += count > 0
    return num


@_jit
def _start_coarser(coarser):
    """What :func:`_turn_coarser` keeps: its cell, the pair sums of that cell's lower and upper
    vertices, and the sums over all corners."""
    rows, columns = coarser[0][4], coarser[0][5]
    num_cells = max(rows - 1, 1) * max(columns - 1, 1)
    pairs = np.zeros((2, num_cells), dtype=np.uint8)
    return np.full(1, -2), pairs, np.zeros(num_cells, dtype=np.uint8)


@_jit
def _turn_coarser(x, coarser, state):
    """Turns to the coarser level's cells at a slab: the sums over the corners of each."""
    layout, magnitudes, slabs, _ = coarser
    at, pairs, sums = state
    if layout[5] == 0 or slabs[x] == at[0]:
        return
    cell = slabs[x]
    lower, upper = pairs[cell % 2], pairs[(cell + 1) % 2]
    if cell != at[0] + 1:
        _pair_sums(cell, layout, magnitudes, lower)
    _pair_sums(cell + 1, layout, magnitudes, upper)
    for place in range(len(sums)):
        sums[place] = lower[place] + upper[place]
    at[0] = cell


@_jit
def _pair_sums(x, layout, magnitudes, result):
    """Sums of the four magnitudes, two in a single row, at the corners of each cell of one x."""
    index, shifts, size, is_dense, rows, columns = layout
    shift = np.int64(shifts[x])
    line = np.zeros(columns, dtype=np.uint8)
    before = np.zeros(columns - 1, dtype=np.uint8)
    for y in range(rows):
        places = index[y * columns : (y + 1) * columns]  # from 0 on: loops over it are vectorised
        if is_dense:
            for z in range(columns):
                line[z] = magnitudes[np.uint64((places[z] + shift) % size)]
        else:
            for z in range(columns):
                line[z] = magnitudes[np.uint64(places[z] ^ shift)]
        if y or rows == 1:
            cell_row = max(y - 1, 0)
            target = result[cell_row * (columns - 1) : (cell_row + 1) * (columns - 1)]
            for z in range(columns - 1):
                target[z] = before[z] + line[z] + line[z + 1]
        for z in range(columns - 1):
            before[z] = line[z] + line[z + 1]


@_jit
def _scatter_neighbours(x, layout, vertices, magnitudes, result):
    """``features._scatter_neighbours`` of one slab."""
    index, shifts, size, is_dense, num_rows, num_columns = layout
    # Without signs, divisions are cheaper and indices need no look whether they count from the end.
    one, rows, columns = np.uint64(1), np.uint64(num_rows), np.uint64(num_columns)
    slots, here, is_last = np.uint64(size), np.uint64(shifts[x]), x + 1 == len(shifts)
    before = np.uint64(shifts[max(x - 1, 0)])
    after = here if is_last else np.uint64(shifts[x + 1])
    for i in range(len(vertices)):
        vertex = np.uint64(vertices[i])
        y = np.uint64(np.uint32(vertices[i]) // np.uint32(num_columns))
        z = vertex - y * columns
        place = np.uint64(index[vertex])
        total = np.uint8(0)
        if x > 0:
            total += magnitudes[_entry(place, before, slots, is_dense)]
        if not is_last:
            total += magnitudes[_entry(place, after, slots, is_dense)]
        if y > 0:
            total += magnitudes[_entry(np.uint64(index[vertex - columns]), here, slots, is_dense)]
        if y + one < rows:
            total += magnitudes[_entry(np.uint64(index[vertex + columns]), here, slots, is_dense)]
        if z > 0:
            total += magnitudes[_entry(np.uint64(index[vertex - one]), here, slots, is_dense)]
        if z + one < columns:
            total += magnitudes[_entry(np.uint64(index[vertex + one]), here, slots, is_dense)]
        entry = _entry(place, here, slots, is_dense)
        result[entry] = _larger(result[entry], total)


@_jit
def _entry(place, shift, size, is_dense):
    """``level_slabs.SlabLayout.entries`` of one vertex."""
    return (place + shift) % size if is_dense else place ^ shift
