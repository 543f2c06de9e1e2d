"""Inputs of single operations, with all that may go wrong among them."""

import itertools

import torch
import torch.nn.functional as F
from synthetic_scenes import BOX

from shacira_nerfstudio.backends import MarchSettings

MARCHES = {
    "affine": MarchSettings("affine", BOX, near=0.05, far=30.0, step_size=0.031),
    "affine_knee": MarchSettings("affine", BOX, near=0.0, far=30.0, step_size=0.03, knee=3.0),
    "contracted": MarchSettings("contracted", BOX, near=0.05, far=5.0, step_size=0.05),
    "contracted_knee": MarchSettings(
        "contracted", BOX, near=0.05, far=1000.0, step_size=0.043, knee=2.0
    ),
}
# From 32 cells on, blocks of them are skipped at once.
OCCUPANCIES = {
    "empty": lambda: torch.zeros(8, 8, 8, dtype=torch.bool),
    "full": lambda: torch.ones(8, 8, 8, dtype=torch.bool),
    "one_cell": lambda: torch.ones(1, 1, 1, dtype=torch.bool),
    "random_8": lambda: torch.rand(8, 8, 8) < 0.3,
    "random_12": lambda: torch.rand(12, 12, 12) < 0.3,
    "sparse_32": lambda: torch.rand(32, 32, 32) < 0.01,
    "sparse_64": lambda: torch.rand(64, 64, 64) < 0.003,
}


def varied_rays(count=72):
    """Random rays from inside and outside, many of which miss; then rays along the axes."""
    origins, directions = torch.randn(count, 3), F.normalize(torch.randn(count, 3), dim=-1)
    centre = torch.tensor(BOX).mean(0)
    origins[: count // 4] = centre + (torch.rand(count // 4, 3) - 0.5)  # inside
    origins[count // 4 :] *= 4  # mostly outside
    # Half of those look at the box.
    half = slice(count // 4, 5 * count // 8)
    directions[half] = F.normalize(centre + torch.randn(count, 3)[half] * 0.3 - origins[half])
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    # Along the axes, from the centre (on the border of cells), from far, and missing.
    starts = [centre.expand(6, 3), centre - 5 * axes, centre + 5 + 5 * axes, torch.rand(6, 3) - 0.3]
    return torch.cat([origins, *starts]), torch.cat([directions, *[axes] * 4])


def positions(count, num_dims):
    """Random ones, then as many edge cases as fit: exactly 0 and 1, outside, on a vertex."""
    x = torch.rand(count, num_dims)
    edges = list(itertools.product((0.0, 1.0, -0.25, 1.5, 0.5), repeat=num_dims))
    edges = torch.tensor(edges)[:count]
    x[: len(edges)] = edges
    return x


def packed_samples(counts):
    """Random samples of rays with so many each; among them opaque and empty ones."""
    counts = torch.tensor(counts, dtype=torch.long)
    total = int(counts.sum())
    sigmas = torch.rand(total) * 4
    sigmas[3::7], sigmas[5::11] = 0.0, 1e6
    t_starts = torch.rand(total) + torch.arange(total) * 0.01
    info = torch.stack([counts.cumsum(0) - counts, counts], 1)
    return sigmas, torch.rand(total, 3), t_starts, t_starts + torch.rand(total) * 0.2, info


def logistic_problem(grid, num_rows):
    """Latents, some far out, where probabilities end below the floor of 1e-10; scale, shift."""
    latents = torch.randn(grid.num_entries, 2) * 3
    latents[::50] *= 20
    return latents, torch.rand(num_rows, 2) + 0.3, torch.randn(num_rows, 2)


def coded_problem(grid, num_bins):
    """Latents, some beyond the tables and some exact integers; tables, three a level but one in
    the first; classes."""
    latents = torch.randn(grid.num_entries, 2) * 3
    latents[::50] *= 20
    latents[::7] = latents[::7].round()
    first_table = torch.tensor([0, *range(1, 3 * grid.num_levels - 2, 3)], dtype=torch.int32)
    lengths = torch.rand(3 * grid.num_levels - 2, num_bins) * 10
    classes = torch.randint(-1, 3, latents.shape, dtype=torch.int16)
    classes[: grid.offsets[1]].clamp_(max=0)
    return latents, lengths, classes, first_table
