"""What the search of context models does most, compiled: the same integers as in numpy.

Imported only by ``codec.compiled``, on first use. Without parallel threads and without the GIL, so
that several levels may be searched at once; compiled code is cached on disk.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)


@_jit
def scores(
    touched_cells,
    parent_magnitude,
    grandparent_magnitude,
    neighbour_magnitude,
    earlier_magnitude,
    partner,
    weights,
    max_magnitude,
):
    """``ContextModel.scores``; ``weights`` are of these features, in this order."""
    result = np.empty(len(touched_cells), np.int32)
    for i in range(len(result)):
        magnitude = min(abs(np.int64(partner[i])), max_magnitude)
        score = weights[0] * touched_cells[i] + weights[1] * parent_magnitude[i]
        score += weights[2] * grandparent_magnitude[i] + weights[3] * neighbour_magnitude[i]
        score += weights[4] * earlier_magnitude[i] + weights[5] * magnitude
        result[i] = score
    return result


@_jit
def count_symbols(
    scores, position, previous, partner, previous_reach, partner_reach, symbols, counts
):
    """Raises ``counts`` [bin, clipped values, symbol] by the entries of each.

    Args:
        position: Bin of each score.
    """
    width = 2 * partner_reach + 1
    for i in range(len(scores)):
        before = min(max(np.int64(previous[i]), -previous_reach), previous_reach) + previous_reach
        beside = min(max(np.int64(partner[i]), -partner_reach), partner_reach) + partner_reach
        counts[position[scores[i]], before * width + beside, symbols[i]] += 1
