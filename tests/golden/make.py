"""Writes the golden file of the current format version: `python tests/golden/make.py`.

Everything comes from the integers below, no training and no random generator, so the file can be
made again anywhere. Run it only for a new format version; golden files of released versions never
change.
"""

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
from shacira_nerfstudio.codec.sections.cameras import rounded_cameras
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.grid import GridSpec

FOLDER = pathlib.Path(__file__).parent
NAME = "v3_tiny"


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
    """Two channels: large in the middle of the ball, the second one leaning on the first; in the
    finest level entries also lean on their partners."""
    symbols = np.zeros((grid.num_entries, 2), dtype=np.int16)
    draws = numbers(2 * grid.num_entries, 2).reshape(-1, 2)
    for level in range(grid.num_levels):
        side = grid.resolutions[level]
        begin, end = grid.offsets[level], grid.offsets[level + 1]
        vertices = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1)
        busy = np.zeros(end - begin, dtype=np.int64)
        centre = np.abs(2 * vertices - side + 1).max(axis=-1) * 3 <= side
        np.maximum.at(busy, grid.vertex_index(level, vertices).ravel(), centre.ravel().astype(int))
        spread = np.where(busy, 9, 2)
        first = draws[begin:end, 0] % spread - spread // 2
        if level == grid.num_levels - 1:
            first[1::2] = first[::2] + first[1::2] // 3
        second = first // 2 + draws[begin:end, 1] % 2
        reached = reached_entries(grid, level, occupancy)
        symbols[begin:end] = np.where(reached[:, None], np.stack([first, second], axis=1), 0)
    symbols[0, 0] = -300
    return symbols


def tiny_scene():
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
    return PackedScene(
        kind="radiance_field",
        architecture={"features_per_level": 2, "width": 8, "direction_encoding": "sh4"},
        grid=grid,
        symbols=tiny_symbols(grid, occupancy),
        occupancy=occupancy,
        weights=weights,
        rendering=rendering,
        cameras=rounded_cameras(cameras),
        meta={"comment": "golden file, version 3", "licence": "CC0-1.0", "steps": 0},
        prefix_psnr=(1200, 1850, 2125, 2400, 2599),
    )


def as_json(scene):
    """What a decoder must find, in lists that any language reads."""
    rendering, cameras = scene.rendering, scene.cameras
    return {
        "kind": scene.kind,
        "architecture": dict(scene.architecture),
        "num_dims": scene.grid.num_dims,
        "resolutions": list(scene.grid.resolutions),
        "table_sizes": list(scene.grid.table_sizes),
        "symbols": scene.symbols.tolist(),
        "occupancy": [
            "".join(map(str, row)) for row in scene.occupancy.reshape(-1, 12).astype(int)
        ],
        "weights": {
            name: {"values": tensor.values.tolist(), "steps": tensor.steps.tolist()}
            for name, tensor in scene.weights.items()
        },
        "rendering": {
            "contraction": rendering.contraction,
            "box": rendering.box.tolist(),
            "near": rendering.near,
            "far": rendering.far,
            "step_size": rendering.step_size,
            "knee": rendering.knee,
            "background": rendering.background,
            "background_color": list(rendering.background_color),
            "early_stop": rendering.early_stop,
        },
        "cameras": {
            "camera_to_worlds": cameras.camera_to_worlds.tolist(),
            "intrinsics": cameras.intrinsics.tolist(),
            "sizes": cameras.sizes.tolist(),
        },
        "meta": dict(scene.meta),
        "prefix_psnr": list(scene.prefix_psnr),
    }


if __name__ == "__main__":
    scene = tiny_scene()
    (FOLDER / f"{NAME}.shacira").write_bytes(encode_scene(scene))
    text = json.dumps(as_json(scene), separators=(",", ":"), sort_keys=True)
    (FOLDER / f"{NAME}.json").write_text(text + "\n")
