"""Rays, cells, tables and networks for what takes them all."""

import itertools

import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends import IDENTITY, FieldArrays, MarchSettings, NetworkWeights

BOX = ((-1.0, -0.5, -1.5), (1.0, 1.5, 0.5))
SETTINGS = {
    "affine": MarchSettings("affine", BOX, near=0.05, far=30.0, step_size=0.031),
    "affine_knee": MarchSettings("affine", BOX, near=0.0, far=30.0, step_size=0.03, knee=3.0),
    "contracted": MarchSettings("contracted", BOX, near=0.05, far=50.0, step_size=0.043, knee=2.0),
}
WIDTH, GEOMETRY, FEATURES = 16, 5, 4


def make_rays(count):
    """Rays towards the box, from outside and from inside; every seventh looks away."""
    centre = torch.tensor(BOX).mean(0)
    origins = centre + F.normalize(torch.randn(count, 3), dim=-1) * 4
    origins[::5] = centre + (torch.rand(len(origins[::5]), 3) - 0.5)
    directions = F.normalize(centre + torch.randn(count, 3) * 0.4 - origins, dim=-1)
    directions[::7] *= -1
    axes = torch.cat([torch.eye(3), -torch.eye(3)])  # along the borders of cells, too
    return torch.cat([origins, centre - 3 * axes]), torch.cat([directions, axes])


def make_weights(num_inputs, density=1.0):
    """Both networks; ``density`` moves the log density, and how much of a ray is seen with it."""
    sizes = {
        "density_mlp": [num_inputs, WIDTH, 1 + GEOMETRY],
        "color_mlp": [FEATURES + GEOMETRY, WIDTH, 3],
    }
    weights = {}
    for network, widths in sizes.items():
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            weights[f"{network}.{index}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
            weights[f"{network}.{index}.bias"] = torch.randn(outputs) * 0.3
    weights["density_mlp.1.weight"][0] *= 2
    weights["density_mlp.1.bias"][0] = density
    return NetworkWeights.from_named(weights)


class Scene:
    """Rays, cells and a field: all that `march_visible` and `render` take."""

    def __init__(self, grid, *, channels=1, dtype=torch.int8, share=0.3, density=1.0, count=300):
        self.grid = grid
        table = torch.randint(-2, 3, (grid.num_entries, channels))
        self.table = table.to(dtype)
        self.rays = make_rays(count)
        self.cells = torch.rand(16, 16, 16) < share
        self.weights = make_weights(grid.num_levels * channels, density)
        self.features = torch.randn(len(self.rays[0]), FEATURES)

    def field(self, *, device="cpu", dtype=None, quantizer=IDENTITY, num_levels=None):
        table, weights = self.table, self.weights
        if dtype is not None:
            table, weights = table.to(dtype), weights.map(lambda name, w: w.to(dtype))
        if device != "cpu":
            table, weights = table.to(device), weights.map(lambda name, w: w.to(device))
        return FieldArrays(table, self.grid, weights, quantizer, num_levels)

    def march_visible(
        self,
        backend,
        settings,
        *,
        device="cpu",
        early_stop=1e-4,
        jitter=None,
        max_samples=0,
        limits=None,
        log2_strides=None,
        **of_field,
    ):
        return backend.march_visible(
            *(v.to(device) for v in (*self.rays, self.cells)),
            settings,
            self.field(device=device, **of_field),
            early_stop=early_stop,
            jitter=None if jitter is None else jitter.to(device),
            max_samples=max_samples,
            limits=None if limits is None else limits.to(device),
            log2_strides=None if log2_strides is None else log2_strides.to(device),
        )

    def render(
        self,
        backend,
        settings,
        *,
        device="cpu",
        dtype=None,
        early_stop=0.0,
        min_weight=0.0,
        limits=None,
        **of_field,
    ):
        *rays, features = (v.to(device, dtype) for v in (*self.rays, self.features))
        return backend.render(
            *rays,
            self.cells.to(device),
            settings,
            self.field(device=device, dtype=dtype, **of_field),
            features,
            early_stop=early_stop,
            min_weight=min_weight,
            limits=None if limits is None else limits.to(device),
        )
