"""What a PackedScene refuses to be, and how its parts compare."""

import dataclasses

import make
import numpy as np
import pytest

from shacira_nerfstudio.codec import CameraSet, QuantizedTensor, RenderSettings

TINY = make.tiny_scene()


def test_weights_dequantize_by_row_or_as_a_whole():
    values = np.array([[1, -2], [3, 4]], dtype=np.int16)
    by_row = QuantizedTensor(values, np.array([0.5, 2], dtype=np.float32))
    assert by_row.dequantize().tolist() == [[0.5, -1], [6, 8]]
    whole = QuantizedTensor(values, np.array([0.5], dtype=np.float32))
    assert whole.dequantize().dtype == np.float32
    assert whole.dequantize().tolist() == [[0.5, -1], [1.5, 2]]


def test_numbers_become_float32():
    rendering = dataclasses.replace(TINY.rendering, step_size=0.1)
    assert rendering.step_size == float(np.float32(0.1)) != 0.1


BAD = {
    "kind": {"kind": "image"},
    "prefix_psnr": {"prefix_psnr": (1, 2, 3, 4)},
    "prefix_psnr ": {"prefix_psnr": (1, 2, 3, 4, 1 << 16)},
    "levels present": {"num_levels_present": 5},
    "symbols 0 in levels": {"num_levels_present": 2},
    "symbols as int16": {"symbols": TINY.symbols.astype(np.int32)},
    "symbols as int16 ": {"symbols": TINY.symbols[:-1]},
    "channels": {"symbols": TINY.symbols[:, :0]},
    "4095": {"symbols": np.full_like(TINY.symbols, 4096)},
    "occupancy of 1 to 4096": {"occupancy": TINY.occupancy[:, :0]},
    "occupancy of 1 to 4096 ": {"occupancy": np.zeros((4097, 1, 1), dtype=bool)},
    "16777216 in all": {"occupancy": np.zeros((4096, 4096, 2), dtype=bool)},
    "occupancy as bool": {"occupancy": TINY.occupancy[0]},
    "occupancy as bool ": {"occupancy": TINY.occupancy.astype(np.uint8)},
    "named": {"weights": {"A": TINY.weights["color_mlp.0.bias"]}},
    "architecture keys": {"architecture": {"Width": 1}},
    "architecture.width": {"architecture": {"width": 1.5}},
    "architecture.name": {"architecture": {"name": "é"}},
    "meta.flag": {"meta": {"flag": True}},
    "meta.big": {"meta": {"big": 2**53}},
    "box of 3 axes": {
        "rendering": dataclasses.replace(
            TINY.rendering, box=np.array([[0, 0], [1, 1]], dtype=np.float32)
        )
    },
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_scene(message):
    with pytest.raises(ValueError, match=message.strip()):
        dataclasses.replace(TINY, **BAD[message])


@pytest.mark.parametrize(
    "change",
    [
        {"contraction": "none"},
        {"background": "pink"},
        {"near": -1.0},
        {"far": 0.1},
        {"far": float("inf")},
        {"step_size": 0.0},
        {"knee": -1.0},
        {"early_stop": 1.0},
        {"background_color": (0.0, 0.0, 2.0)},
        {"background_color": (0.0, 0.0)},
        {"box": np.zeros((2, 3), dtype=np.float32)},
        {"box": np.zeros((2, 3))},
    ],
)
def test_what_are_no_render_settings(change):
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(TINY.rendering, **change)


def test_what_are_no_tensors_and_cameras():
    one = np.ones(1, dtype=np.float32)
    for values, steps in (
        (np.zeros(3), one),
        (np.zeros(0, dtype=np.int16), one),
        (np.full(3, 2048, dtype=np.int16), one),
        (np.zeros(3, dtype=np.int16), -one),
        (np.zeros(3, dtype=np.int16), one * np.nan),
        (np.zeros(3, dtype=np.int16), np.ones(2, dtype=np.float32)),
        (np.zeros((1, 1, 1, 1), dtype=np.int16), one),
    ):
        with pytest.raises(ValueError, match="expected"):
            QuantizedTensor(values, steps)
    cameras = TINY.cameras
    for change in ({"intrinsics": cameras.intrinsics[:1]}, {"sizes": cameras.sizes.astype(int)}):
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(cameras, **change)
    with pytest.raises(ValueError, match="cameras"):
        CameraSet(np.zeros((0, 3, 4), dtype="f4"), np.zeros((0, 4)), np.zeros((0, 2)))


def test_equality_is_by_content():
    assert make.tiny_scene() == TINY
    assert dataclasses.replace(TINY, meta={}) != TINY
    assert dataclasses.replace(TINY, rendering=None) != TINY
    assert TINY != "scene"
    assert isinstance(TINY.rendering, RenderSettings)
