"""GRID, RNDR and psnr: shortest forms, resolutions per axis, what is refused."""

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import grids, modest, renderings

from shacira_nerfstudio.codec import SceneFormatError
from shacira_nerfstudio.codec.sections.grid_and_rendering import (
    decode_grid,
    decode_prefix_psnr,
    decode_rendering,
    encode_grid,
    encode_prefix_psnr,
    encode_rendering,
)
from shacira_nerfstudio.grid import GridSpec

TINY = make.tiny_scene().grid
VIDEO = make.tiny_video().grid


def refused(payload, message):
    with pytest.raises(SceneFormatError, match=message):
        decode_grid(memoryview(payload))


@modest(60)
@given(grid=grids(), latent_dim=st.integers(1, 16))
def test_round_trip(grid, latent_dim):
    payload = encode_grid(grid, latent_dim)
    assert decode_grid(memoryview(payload)) == (grid, latent_dim)
    are_equal = all(len(set(axes)) == 1 for axes in grid.resolutions)
    assert payload[0] == grid.num_dims + (0 if are_equal else 128)


def test_equal_axes_are_stored_once():
    expected = b"\x03\x05\x02" + b"\x04\x00" + b"\x02\x00" + b"\x04\x00" + b"\x05\x0a" + b"\x09\x0a"
    assert encode_grid(TINY, 2) == expected


def test_other_axes_one_by_one():
    assert VIDEO.resolutions[:2] == ((6, 4, 2), (10, 6, 3))
    payload = encode_grid(VIDEO, 2)
    assert payload.startswith(b"\x83\x04\x02" + b"\x06\x04\x02\x00" + b"\x04\x02\x01\x00")
    assert decode_grid(memoryview(payload)) == (VIDEO, 2)
    one_axis = GridSpec(2, ((2, 2), (2, 3)), (8, 8))
    assert encode_grid(one_axis, 1) == b"\x82\x02\x01" + b"\x02\x02\x00" + b"\x00\x01\x00"


def test_what_is_no_grid():
    """Of the tiny grid: a dense level, and a hashed one of 2^10 entries."""
    grid = encode_grid(TINY, 2)
    for payload, message in (
        (grid[:4] + b"\x06" + grid[5:], "shortest form"),  # 2^6 = 4^3
        (grid[:4] + b"\xff\x40" + grid[5:], "shortest form"),
        (grid[:-1] + b"\xff\x80\x08", "shortest form"),
        (grid[:4] + b"\x02" + grid[5:], "code of a table size"),
        (grid[:4] + b"\xff\x09" + grid[5:], "valid grid"),
        (grid[:3] + b"\x01" + grid[4:], "valid grid"),
        (grid[:-2] + b"\xff\xff\x7f\x0a", "step of a resolution"),
        (grid[:-2] + b"\xff\xff\x3f\x0a", "valid grid"),
        (b"\x01" + grid[1:], "axes from 2 to 3"),
        (b"\x04" + grid[1:], "axes from 2 to 3"),
        (b"\x84" + grid[1:], "axes from 2 to 3"),
        (b"\x82\x01\x01\x03\x03\x00", "different resolutions"),
        (b"\x82\x01\x01\x03\x01\x00", "valid grid"),
        (b"\x82\x01\x01\x03\x02\x00\x00", "end of the section"),
    ):
        refused(payload, message)


@modest(20)
@given(rendering=renderings(3), psnr=st.lists(st.integers(0, 65535), min_size=1, max_size=9))
def test_rendering_and_psnr(rendering, psnr):
    assert decode_rendering(memoryview(encode_rendering(rendering)), 3) == rendering
    payload = memoryview(encode_prefix_psnr(tuple(psnr)))
    assert decode_prefix_psnr(payload, len(psnr)) == tuple(psnr)
    for count in (len(psnr) - 1, len(psnr) + 1):
        with pytest.raises(SceneFormatError, match="psnr"):
            decode_prefix_psnr(payload, count)
