"""OCCU: any shape comes back, blocks by hand, sides, limits."""

import make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import modest, seeds

from shacira_nerfstudio.codec import SceneFormatError
from shacira_nerfstudio.codec.bitio import varint
from shacira_nerfstudio.codec.sections.occupancy import (
    decode_occupancy,
    encode_occupancy,
    max_cells,
)


def decoded(payload, num_dims, **options):
    return decode_occupancy(memoryview(payload), num_dims, **options)


@modest(60)
@given(
    seed=seeds,
    shape=st.lists(st.sampled_from([1, 2, 7, 8, 9, 31, 33]), min_size=2, max_size=3),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_round_trip(seed, shape, share):
    occupancy = np.random.default_rng(seed).random(shape) < share
    payload = encode_occupancy(occupancy)
    assert np.array_equal(decoded(payload, len(shape)), occupancy)
    sides = shape[:1] if len(set(shape)) == 1 else [0, *shape]
    assert payload.startswith(b"".join(map(varint, sides)))


def test_smooth_shapes_take_few_bytes():
    ball = make.tiny_occupancy()
    assert len(encode_occupancy(ball)) < ball.size / 20
    disc = make.tiny_video().occupancy
    assert len(encode_occupancy(disc)) < disc.size / 8
    assert len(encode_occupancy(np.ones((300, 40, 2), dtype=bool))) < 20


def test_order_of_axes_matters():
    occupancy = np.random.default_rng(0).random((5, 17, 40)) < 0.3
    turned = np.ascontiguousarray(occupancy.transpose(2, 0, 1))
    assert np.array_equal(decoded(encode_occupancy(turned), 3), turned)
    assert encode_occupancy(turned) != encode_occupancy(occupancy)


def test_what_is_no_occupancy():
    square = encode_occupancy(np.eye(5, dtype=bool))
    for payload, message in (
        (b"\0\x05\x05" + square[1:], "different numbers of cells"),
        (b"\0\x05\x00" + square[1:], "cells per axis from 1"),
        (varint(4097) + square[1:], "cells per axis from 0 to 4096"),
        (square + b"\0", "OCCU"),
        (b"\0\x05\x06" + square[1:], "OCCU"),
    ):
        with pytest.raises(SceneFormatError, match=message):
            decoded(payload, 2)
    with pytest.raises(SceneFormatError, match="at most 24 cells, found 5 x 5"):
        decoded(square, 2, max_cells=24)


def test_how_many_cells_a_file_may_ask_for():
    assert max_cells(100) == 1 << 21
    assert max_cells(20_000) == 512 * 20_000
    assert max_cells(10**9) == 1 << 24
