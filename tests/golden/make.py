"""Writes the golden files of the current format version: `python tests/golden/make.py`.

Everything comes from the integers below, no training and no random generator, so the files can be
made again anywhere. Golden files of released versions never change; none is released yet.
"""

import itertools
import json
import pathlib

import numpy as np

from shacira_nerfstudio.codec import (
    CameraSet,
    PackedScene,
    QuantizedTensor,
    RenderSettings,
    encode_scene,
)
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.codec.sections.cameras import rounded_cameras
from shacira_nerfstudio.grid import GridSpec

FOLDER = pathlib.Path(__file__).parent
NAME = "v1_tiny"


def numbers(count, seed):
    """Integers of a linear congruential generator (Knuth's MMIX), the upper 31 bits."""
    state, result = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        result.append(state >> 33)
    return np.array(result, dtype=np.int64)


def tiny_occupancy():
    """A ball with a hole and some specks in 12^3 cells."""
    axis = np.arange(12) * 2 - 11
    distance = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    specks = numbers(12**3, 1).reshape(12, 12, 12) % 400 == 0
    return ((distance <= 60) & (distance >= 20)) | specks


def tiny_symbols(grid, occupancy):
    """Two channels: large in the middle, the second one leaning on the first; in the finest level
    entries also lean on their partners."""
    symbols = np.zeros((grid.num_entries, 2), dtype=np.int16)
    draws = numbers(2 * grid.num_entries, 2).reshape(-1, 2)
    for level in range(grid.num_levels):
        axes = grid.resolutions[level]
        begin, end = grid.offsets[level], grid.offsets[level + 1]
        vertices = np.stack(np.meshgrid(*map(np.arange, axes), indexing="ij"), axis=-1)
        busy = np.zeros(end - begin, dtype=np.int64)
        centre = (np.abs(2 * vertices - np.array(axes) + 1) * 3 <= axes).all(axis=-1)
        np.maximum.at(busy, grid.vertex_index(level, vertices).ravel(), centre.ravel().astype(int))
        spread = np.where(busy, 9, 2)
        first = draws[begin:end, 0] % spread - spread // 2
        if level == grid.num_levels - 1:
            first[1::2] = first[::2] + first[1::2] // 3
        second = first // 2 + draws[begin:end, 1] % 2
        # Nothing is compiled: many tests want these scenes as soon as they are collected.
        reached = reached_entries(grid, level, occupancy, fast=False)
        symbols[begin:end] = np.where(reached[:, None], np.stack([first, second], axis=1), 0)
    return symbols


def tiny_scene():
    """A radiance field with everything that a file may hold."""
    grid = GridSpec.create(num_levels=5, base_res=4, max_res=24, log2_hashmap_size=10)
    occupancy = tiny_occupancy()
    weights = {
        "color_mlp.0.weight": QuantizedTensor(
            (numbers(96, 3) % 21 - 10).astype(np.int16).reshape(8, 12),
            (np.arange(8) + 1).astype(np.float32) / 256,
        ),
        "color_mlp.0.bias": QuantizedTensor(
            (numbers(8, 4) % 2047 - 1000).astype(np.int16), np.array([0.0625], dtype=np.float32)
        ),
        "latent_decoder.scale": QuantizedTensor(
            np.full((5, 2, 2), 64, dtype=np.int16), np.full(5, 0.015625, dtype=np.float32)
        ),
    }
    rendering = RenderSettings(
        contraction="affine",
        box=np.array([[-1, -1, -0.5], [1, 1, 1.5]], dtype=np.float32),
        near=0.125,
        far=6.0,
        step_size=0.01,
        knee=0.0,
        background="color",
        background_color=(1.0, 0.5, 0.25),
        early_stop=0.0001,
    )
    # A quarter turn about z, and one about x by an angle of cosine 3/5.
    poses = [
        [[0, -1, 0, 2], [1, 0, 0, -1.5], [0, 0, 1, 0.25]],
        [[1, 0, 0, -0.5], [0, 0.6, -0.8, 3], [0, 0.8, 0.6, 1]],
    ]
    cameras = CameraSet(
        np.array(poses, dtype=np.float32),
        np.array([[50, 50, 16, 12]] * 2, dtype=np.float32),
        np.array([[32, 24]] * 2, dtype=np.uint32),
    )
    symbols = tiny_symbols(grid, occupancy)
    symbols[0, 0] = -300
    return PackedScene(
        kind="radiance_field",
        architecture={"features_per_level": 2, "width": 8, "direction_encoding": "sh4"},
        grid=grid,
        symbols=symbols,
        occupancy=occupancy,
        weights=weights,
        rendering=rendering,
        cameras=rounded_cameras(cameras),
        meta={"comment": "golden file, version 1", "licence": "CC0-1.0", "steps": 0},
        prefix_psnr=(1200, 1850, 2125, 2400, 2599),
    )


def tiny_image():
    """A picture that is not square: two axes, dense and hashed levels, every entry reached."""
    grid = GridSpec.create(
        num_dims=2, num_levels=4, base_res=(6, 4), max_res=(48, 27), log2_hashmap_size=8
    )
    return PackedScene("image", {"features_per_level": 2}, grid, tiny_symbols(grid, None))


def tiny_video():
    """Three axes of different resolutions; an occupancy grid whose sides differ, too."""
    grid = GridSpec.create(
        num_levels=4, base_res=(6, 4, 2), max_res=(24, 14, 9), log2_hashmap_size=9
    )
    x, y, t = np.meshgrid(np.arange(20), np.arange(9), np.arange(3), indexing="ij")
    occupancy = (x - 6 - 4 * t) ** 2 + 3 * (y - 4) ** 2 <= 24  # a disc that moves
    weights = {"decoder": QuantizedTensor(np.array([[3, -1]], np.int16), np.ones(1, np.float32))}
    return PackedScene(
        "video", {"frames": 9}, grid, tiny_symbols(grid, occupancy), occupancy, weights
    )


def tiny_network(num_inputs, num_channels):
    """Three layers that make something of tiny symbols."""
    weights, widths = {}, (num_inputs, 6, 5, num_channels)
    for index, (columns, rows) in enumerate(itertools.pairwise(widths)):
        values = numbers(rows * columns, 10 + index) % 61 - 30
        steps = (numbers(rows, 20 + index) % 5 + 3).astype(np.float32) / 97
        weights[f"mlp.{index}.weight"] = QuantizedTensor(
            values.astype(np.int16).reshape(rows, columns), steps / columns
        )
        weights[f"mlp.{index}.bias"] = QuantizedTensor(
            (numbers(rows, 30 + index) % 41 + 10).astype(np.int16), np.array([0.01], np.float32)
        )
    return weights


def tiny_picture():
    """A picture that can be shown, with alpha."""
    grid = GridSpec.create(
        num_dims=2, num_levels=3, base_res=(4, 3), max_res=(16, 11), log2_hashmap_size=7
    )
    architecture = {"bits": 8, "channels": 4, "height": 10, "width": 15}
    symbols = tiny_symbols(grid, None)
    return PackedScene("image", architecture, grid, symbols, weights=tiny_network(6, 4))


def tiny_frames():
    """A video that can be shown, grey, of 16 bits."""
    grid = GridSpec.create(num_levels=3, base_res=(4, 3, 2), max_res=(9, 7, 5), log2_hashmap_size=7)
    architecture = {"bits": 16, "channels": 1, "height": 6, "width": 8, "frames": 4}
    architecture |= {"rate_num": 30000, "rate_den": 1001}
    symbols = tiny_symbols(grid, None)
    return PackedScene("video", architecture, grid, symbols, weights=tiny_network(6, 1))


SCENES = {
    NAME: tiny_scene,
    f"{NAME}_image": tiny_image,
    f"{NAME}_video": tiny_video,
    f"{NAME}_picture": tiny_picture,
    f"{NAME}_frames": tiny_frames,
}


def as_json(scene):
    """What a decoder must find, in lists that any language reads."""
    rendering, cameras = scene.rendering, scene.cameras
    found = {
        "kind": scene.kind,
        "architecture": dict(scene.architecture),
        "num_dims": scene.grid.num_dims,
        "resolutions": scene.grid.resolutions,
        "table_sizes": scene.grid.table_sizes,
        "symbols": scene.symbols.tolist(),
        "weights": {
            name: {"values": tensor.values.tolist(), "steps": tensor.steps.tolist()}
            for name, tensor in scene.weights.items()
        },
        "meta": dict(scene.meta),
        "prefix_psnr": scene.prefix_psnr,
    }
    if scene.occupancy is not None:
        shape = scene.occupancy.shape
        rows = scene.occupancy.reshape(-1, shape[-1]).astype(int)
        found |= {"occupancy_shape": shape, "occupancy": ["".join(map(str, row)) for row in rows]}
    if rendering is not None:
        found["rendering"] = vars(rendering) | {"box": rendering.box.tolist()}
    if cameras is not None:
        found["cameras"] = {name: array.tolist() for name, array in vars(cameras).items()}
    return found


if __name__ == "__main__":
    for name, make in SCENES.items():
        scene = make()
        (FOLDER / f"{name}.shacira").write_bytes(encode_scene(scene))
        text = json.dumps(as_json(scene), separators=(",", ":"), sort_keys=True)
        (FOLDER / f"{name}.json").write_text(text + "\n")
