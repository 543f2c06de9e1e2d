"""Which cells stay while nothing is learned yet, and how many rays fill a batch."""

import dataclasses
import math

import pytest
import torch

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.sampling import AdaptiveSampling, SamplingOptions
from shacira_nerfstudio.model.scene import Background, RadianceScene, SceneSettings

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
MARCH = MarchSettings("contracted", BOX, near=0.05, far=100.0, step_size=0.013, knee=2.0)


@pytest.fixture
def scene(make_field, backend, device):
    settings = SceneSettings(MARCH, MARCH, Background.named("black"), max_stride=16)
    field = make_field(backend, initial_log_density=-5.0)
    with torch.no_grad():  # of one density everywhere
        field.density_mlp[1].weight[0] = 0
        field.density_mlp[1].bias[0] = -5
    return RadianceScene(field, OccupancyGrid(8), settings).to(device)


def options(**values):
    return SamplingOptions(
        **{
            "occupancy_rise": 0.5,
            "target_num_samples": 1000,
            "max_num_rays": 1 << 16,
            "max_stride": 16,
            **values,
        }
    )


def test_space_before_the_cameras_is_not_emptied_before_something_is_learned(scene):
    # Steps far away are longer, and so more opaque: next to them what is near looks empty.
    middle = slice(2, 6)
    near = scene.occupancy.occupied[middle, middle, middle]
    at_once = AdaptiveSampling(options(occupancy_rise=0.0))
    rising = AdaptiveSampling(options())
    rising.update_occupancy(32, scene, num_steps=1000)
    assert scene.occupancy.occupied[middle, middle, middle].all()
    at_once.update_occupancy(32, scene, num_steps=1000)
    near = scene.occupancy.occupied[middle, middle, middle]
    assert not near.any() and scene.occupancy.occupied.any()


def test_the_threshold_rises_to_its_last_value(scene):
    sampling, found = AdaptiveSampling(options(occupancy_warmup=0)), []
    scene.occupancy.update = lambda *_, everywhere, threshold: found.append(threshold)
    for step in (16, 160, 320, 496, 512, 992):
        sampling.update_occupancy(step, scene, num_steps=1000)
    assert found == sorted(found) and found[-2:] == [0.01, 0.01]
    begin = math.exp(-5.0) * MARCH.step_size / 2
    assert found[0] == pytest.approx(begin * (0.01 / begin) ** 0.032)


def test_cells_are_looked_at_every_so_many_steps(scene):
    sampling, steps = AdaptiveSampling(options(occupancy_warmup=64)), []
    scene.update_occupancy = lambda *, everywhere, threshold: steps.append((step, everywhere))
    for step in range(130):
        sampling.update_occupancy(step, scene, num_steps=1000)
    assert steps == [(32, True), *((s, False) for s in range(64, 130, 16))]


@pytest.mark.parametrize("target", [0, 1000])
def test_rays_follow_what_they_cost(scene, target):
    sampling = AdaptiveSampling(options(target_num_samples=target))
    assert sampling.adapts_num_rays == (target > 0)
    rays = (
        torch.zeros(64, 3, device=scene.device),
        torch.eye(3, device=scene.device)[:1].expand(64, 3),
    )
    rendered, _ = scene.train_rays(*rays)
    sampling.note_batch(64, rendered)
    sampling.adapt_num_rays()
    wanted = min(64 * target / rendered.num_samples, 4 * 64) if target else 64
    assert sampling.num_rays == max(64, int((64 + wanted) / 2))


def test_rays_follow_what_the_step_before_last_cost(scene):
    """Where only a GPU knows what a step costs."""
    sampling = AdaptiveSampling(options(target_num_samples=1000))
    rays = (
        torch.zeros(64, 3, device=scene.device),
        torch.eye(3, device=scene.device)[:1].expand(64, 3),
    )
    rendered, _ = scene.train_rays(*rays)
    found = []
    for step in range(4):
        numbers = torch.tensor([100 * (step + 1), 60 * (step + 1)], device=scene.device)
        late = dataclasses.replace(rendered, num_samples=numbers[0], num_marched=numbers[1])
        sampling.note_batch(50, late)
        sampling.adapt_num_rays()
        found.append((sampling.num_visible, sampling.num_rays))
    # Of 50 rays with 100 samples 500 fill the batch, but at most four times as many as there are.
    assert found == [(0, 50), (0, 50), (100, (50 + 200) // 2), (200, (50 + 200) // 2)]
    assert isinstance(sampling.num_rays, int) and isinstance(sampling.metrics()["num_samples"], int)
