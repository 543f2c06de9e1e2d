"""Small radiance fields of integers, as files hold them: everything that a renderer asks for."""

import numpy as np

from shacira_nerfstudio.codec import CameraSet, PackedScene, QuantizedTensor, RenderSettings
from shacira_nerfstudio.codec.latents.features import reached_entries
from shacira_nerfstudio.codec.sections.cameras import rounded_cameras
from shacira_nerfstudio.grid import GridSpec

GEOMETRY = 3


def ball_of_cells(side=24):
    """Occupied cells: a ball with some specks around it."""
    axis = (np.arange(side) + 0.5) / side - 0.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    specks = np.random.default_rng(1).random((side,) * 3) < 0.01
    return (x * x + y * y + z * z < 0.1) | specks


def _symbols(grid, latent_dim, occupancy, rng):
    """Integers of several magnitudes; channels lean on each other and on pairs of entries."""
    size = rng.laplace(scale=1.2, size=(grid.num_entries // 2, 1)).repeat(2, 0)
    symbols = np.round(size + rng.laplace(scale=0.4, size=(grid.num_entries, latent_dim)))
    for level in range(grid.num_levels):
        rows = symbols[grid.offsets[level] : grid.offsets[level + 1]]
        rows[~reached_entries(grid, level, occupancy)] = 0
    return symbols.astype(np.int16)


def make_weights(num_inputs, *, hidden=8, num_color_layers=2, sh_degree=2, seed=0):
    """Both networks, by name, and the architecture that describes them."""
    rng = np.random.default_rng(seed)
    widths = {
        "density_mlp": [num_inputs, hidden, 1 + GEOMETRY],
        "color_mlp": [sh_degree**2 + GEOMETRY, *[hidden] * num_color_layers, 3],
    }
    weights = {}
    for network, sizes in widths.items():
        for index, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            values = rng.integers(-127, 128, (outputs, inputs)).astype(np.int16)
            steps = ((rng.random(outputs) + 0.5) / 127 / inputs**0.5).astype(np.float32)
            weights[f"{network}.{index}.weight"] = QuantizedTensor(values, steps)
            values = rng.integers(-20, 100, outputs).astype(np.int16)
            bias = QuantizedTensor(values, np.array([0.01], np.float32))
            weights[f"{network}.{index}.bias"] = bias
    architecture = {
        "hidden_dim": hidden,
        "geo_feat_dim": GEOMETRY,
        "num_color_layers": num_color_layers,
        "sh_degree": sh_degree,
    }
    return weights, architecture


def make_cameras(count=3, width=40, height=30):
    """Cameras on a circle around the middle."""
    poses = np.zeros((count, 3, 4))
    for number, angle in enumerate(np.linspace(0, 4, count)):
        back = np.array([np.cos(angle), np.sin(angle), 0.4])
        back /= np.linalg.norm(back)
        right = np.cross([0, 0, 1], back)
        right /= np.linalg.norm(right)
        poses[number] = np.stack([right, np.cross(back, right), back, 2.5 * back], axis=1)
    return rounded_cameras(
        CameraSet(
            poses.astype(np.float32),
            np.array([[40, 40, width / 2, height / 2]] * count, np.float32),
            np.array([[width, height]] * count, np.uint32),
        )
    )


def make_field(contraction="affine", latent_dim=1, *, max_res=70, log2_hashmap_size=10, **changes):
    """A packed scene with cameras; ``contracted`` has a knee and repeats the last sample."""
    grid = GridSpec.create(
        num_levels=6, base_res=5, max_res=max_res, log2_hashmap_size=log2_hashmap_size
    )
    occupancy = changes.pop("occupancy", ball_of_cells())
    weights, architecture = make_weights(grid.num_levels * latent_dim)
    is_affine = contraction == "affine"
    rendering = RenderSettings(
        contraction=contraction,
        box=np.array([[-1, -1, -1], [1, 1, 1.25]], np.float32),
        near=0.05,
        far=20.0,
        step_size=0.02,
        knee=0.0 if is_affine else 1.5,
        background="white" if is_affine else "last_sample",
        background_color=(1.0, 1.0, 1.0) if is_affine else (0.0, 0.0, 0.0),
        early_stop=1e-3,
    )
    content = {
        "kind": "radiance_field",
        "architecture": architecture,
        "grid": grid,
        "symbols": _symbols(grid, latent_dim, occupancy, np.random.default_rng(latent_dim)),
        "occupancy": occupancy,
        "weights": weights,
        "rendering": rendering,
        "cameras": make_cameras(),
        "meta": {"tool": "test", "title": "é\n\x7f</script>", "step": 7},
    }
    return PackedScene(**{**content, **changes})
