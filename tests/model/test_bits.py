"""What rays cost: by a loop over samples and corners, and by laws that need no oracle."""

import itertools

import pytest
import torch

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.backends.networks import density_of
from shacira_nerfstudio.model import bits as bits_module
from shacira_nerfstudio.model.bits import ray_bits
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.scene import Background, RadianceScene, SceneSettings

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
MARCH = MarchSettings("affine", BOX, near=0.0, far=10.0, step_size=0.1)
SETTINGS = SceneSettings(MARCH, MARCH, Background.named("white"), early_stop=0.0)


@pytest.fixture
def scene(make_field, backend, device):
    field = make_field(backend)
    scene = RadianceScene(field, OccupancyGrid(8), SETTINGS).eval()
    scene.occupancy.occupied[:, :, :3] = False
    with torch.no_grad():
        field.density_mlp[1].bias[0] += 1.5
    return scene.to(device)


@pytest.fixture
def rays(device):
    origins = torch.tensor([[0.1, 0.2, 3.0]]).repeat(40, 1)
    towards = torch.rand(40, 3) * 1.6 - 0.8
    towards[0] = torch.tensor([3.0, 3.0, 2.9])  # past the box
    directions = torch.nn.functional.normalize(towards - origins, dim=-1)
    return origins.to(device), directions.to(device)


def entry_bits(scene):
    return torch.rand(scene.encoding.grid.num_entries) * 9


def corners_of(grid, level, x):
    """Entries that position x of the unit cube reads at a level, and the weight of each."""
    cell = [float(v) * (n - 1) + 0.5 for v, n in zip(x, grid.resolutions[level], strict=True)]
    low = [int(c) for c in cell]
    for corner in itertools.product((0, 1), repeat=3):
        vertex = torch.tensor([a + b for a, b in zip(low, corner, strict=True)])
        weight = 1.0
        for c, a, b in zip(cell, low, corner, strict=True):
            weight *= (c - a) if b else 1 - (c - a)
        yield grid.offsets[level] + int(grid.vertex_index(level, vertex)), weight


def test_bits_are_those_of_a_loop_over_samples_levels_and_corners(scene, rays):
    cost, ray = entry_bits(scene), 7
    origins, directions = (part[ray : ray + 1] for part in rays)
    backend, grid = scene.encoding.backend, scene.encoding.grid
    samples = backend.march(origins, directions, scene.occupancy.occupied, MARCH)
    sigmas = density_of(
        backend.density_outputs(scene.encoding(samples.positions), scene.field.effective_weights())
    )
    expected, transmitted = 0.0, 1.0
    for t0, t1, sigma, x in zip(
        samples.t_starts, samples.t_ends, sigmas, samples.positions.cpu(), strict=True
    ):
        opacity = 1 - float(torch.exp(-sigma * (t1 - t0)))
        for level in range(grid.num_levels):
            for entry, weight in corners_of(grid, level, x):
                expected += transmitted * opacity * weight * float(cost[entry])
        transmitted *= 1 - opacity
    assert expected > 1
    found = ray_bits(scene, *rays, cost)[ray]
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_levels", [1, 3, 5])
def test_entries_of_equal_cost_give_opacity_times_levels(scene, rays, num_levels):
    """And levels that are not shown cost nothing."""
    scene.encoding.max_level = num_levels
    cost = torch.full((scene.encoding.grid.num_entries,), 2.5)
    found = ray_bits(scene, *rays, cost)
    opacity = scene.render_rays(*rays, min_weight=0.0).accumulation
    assert float(opacity.max()) > 0.3
    torch.testing.assert_close(found, 2.5 * num_levels * opacity, rtol=1e-4, atol=1e-4)
    assert found[0] == 0  # a ray that meets nothing


def test_only_what_costs_counts(scene, rays):
    grid, cost = scene.encoding.grid, entry_bits(scene)
    both = ray_bits(scene, *rays, cost)
    coarse, fine = cost.clone(), cost.clone()
    coarse[grid.offsets[2] :], fine[: grid.offsets[2]] = 0, 0
    parts = [ray_bits(scene, *rays, part) for part in (coarse, fine)]
    assert all(float(part.max()) > 0.1 for part in parts)
    torch.testing.assert_close(parts[0] + parts[1], both, rtol=1e-4, atol=1e-4)


def test_limits_end_a_ray(scene, rays):
    cost = entry_bits(scene)
    limits = torch.tensor([[0.0, 2.6]]).repeat(len(rays[0]), 1).to(rays[0])
    near = ray_bits(scene, *rays, cost, limits=limits)
    limits[:, 1] = 100.0
    whole = ray_bits(scene, *rays, cost, limits=limits)
    assert torch.equal(whole, ray_bits(scene, *rays, cost))
    assert (near <= whole + 1e-4).all() and float((whole - near).max()) > 0.1


def test_rays_in_chunks_are_the_same(scene, rays, monkeypatch):
    cost = entry_bits(scene)
    whole = ray_bits(scene, *rays, cost)
    monkeypatch.setattr(bits_module, "_CHUNK_RAYS", 7)
    torch.testing.assert_close(ray_bits(scene, *rays, cost), whole, rtol=1e-4, atol=1e-4)
    assert ray_bits(scene, *(part[:0] for part in rays), cost).shape == (0,)


def test_wrong_input_is_named(scene, rays):
    with pytest.raises(ValueError, match=r"bits of \d+ entries, got"):
        ray_bits(scene, *rays, torch.zeros(3))
    origins = rays[0].clone()
    origins[3, 1] = float("nan")
    with pytest.raises(ValueError, match="ray 3"):
        ray_bits(scene, origins, rays[1], entry_bits(scene))
