"""Marching: the very same samples as `reference`."""

import math

import pytest
import torch
import torch.nn.functional as F
from synthetic_inputs import MARCHES, OCCUPANCIES, varied_rays
from synthetic_scenes import BOX

from shacira_nerfstudio.backends import MarchSettings, get_backend
from shacira_nerfstudio.backends.types import MAX_LOG2_STRIDE


def assert_same_samples(found, expected):
    assert torch.equal(found.packed_info.cpu(), expected.packed_info)
    assert torch.equal(found.next_step.cpu(), expected.next_step)
    # Both work in double precision; the last bit of single precision may round differently.
    tolerance = {"rtol": 3e-7, "atol": 1e-7}
    for name in ("t_starts", "t_ends", "positions"):
        value = getattr(found, name)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.cpu(), getattr(expected, name), **tolerance)


def march(backend, device, rays, occupancy, settings, **options):
    rays = [v.to(device) for v in rays]
    options = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    return backend.march(*rays, occupancy.to(device), settings, **options)


@pytest.mark.parametrize("occupancy", OCCUPANCIES)
@pytest.mark.parametrize("settings", MARCHES)
def test_march(rival, device, reference, settings, occupancy):
    rays, cells = varied_rays(), OCCUPANCIES[occupancy]()
    jitter = torch.rand(len(rays[0]))
    for options in ({}, {"jitter": jitter}, {"jitter": jitter, "max_samples": 5}):
        expected = reference.march(*rays, cells, MARCHES[settings], **options)
        found = march(rival, device, rays, cells, MARCHES[settings], **options)
        assert_same_samples(found, expected)
    assert (len(expected.t_starts) == 0) == (occupancy == "empty")


@pytest.mark.parametrize(("num_blocks", "block"), [(3, 1), (5, 1), (10, 1), (3, 8), (6, 8)])
def test_march_where_cells_straddle_the_contraction(rival, device, reference, num_blocks, block):
    # Within such a cell, or block of cells, a ray is straight, then curved: it may leave through
    # another side than it seems.
    settings = MarchSettings("contracted", BOX, near=0.0, far=4.0, step_size=0.005)
    origins = torch.tensor(BOX[0]) + 2 * torch.rand(150, 3)
    rays = origins, F.normalize(torch.randn(150, 3), dim=-1)
    cells = torch.rand(num_blocks, num_blocks, num_blocks) < 0.3
    for axis in range(3):
        cells = cells.repeat_interleave(block, axis)
    found = march(rival, device, rays, cells, settings)
    assert_same_samples(found, reference.march(*rays, cells, settings))


@pytest.mark.parametrize("settings", MARCHES)
def test_march_goes_on_where_it_was_cut(backend, device, settings):
    rays, cells, settings = varied_rays(), OCCUPANCIES["random_8"](), MARCHES[settings]
    options = {"jitter": torch.rand(len(rays[0]))}
    uncut = march(backend, device, rays, cells, settings, **options)
    assert (uncut.next_step == -1).all()
    step, parts = torch.zeros(len(rays[0]), dtype=torch.long), []
    while bool((step >= 0).any()):
        part = march(
            backend, device, rays, cells, settings, first_step=step, max_samples=9, **options
        )
        assert int(part.packed_info[:, 1].max()) <= 9
        # Rays that were done get nothing more, rays that were cut got all they might have.
        assert (part.packed_info[step < 0, 1] == 0).all()
        assert (part.packed_info[part.next_step >= 0, 1] == 9).all()
        parts.append(part)
        step = part.next_step.cpu()
    assert len(parts) > 2
    order = torch.cat([part.ray_indices for part in parts]).sort(stable=True).indices
    for name in ("t_starts", "t_ends", "positions"):
        joined = torch.cat([getattr(part, name) for part in parts])[order]
        assert torch.equal(joined, getattr(uncut, name))


def random_strides(size):
    """Whole regions of long strides, so that some samples are long, and single cells of any."""
    coarse = torch.randint(0, MAX_LOG2_STRIDE + 1, (2, 2, 2))
    strides = torch.nn.functional.interpolate(coarse[None, None].float(), size=(size,) * 3)[0, 0]
    single = torch.randint(0, MAX_LOG2_STRIDE + 1, strides.shape)
    return torch.where(torch.rand(strides.shape) < 0.1, single, strides).to(torch.uint8)


@pytest.mark.parametrize("occupancy", ["full", "random_8"])
@pytest.mark.parametrize("settings", MARCHES)
def test_samples_that_stand_for_several_steps(rival, device, reference, settings, occupancy):
    rays, cells = varied_rays(), OCCUPANCIES[occupancy]()
    options = {"log2_strides": random_strides(len(cells)), "jitter": torch.rand(len(rays[0]))}
    limits = torch.rand(len(rays[0]), 2) + torch.tensor([0.0, 1.5])
    for more in ({}, {"max_samples": 5}, {"limits": limits}):
        expected = reference.march(*rays, cells, MARCHES[settings], **options, **more)
        found = march(rival, device, rays, cells, MARCHES[settings], **options, **more)
        assert_same_samples(found, expected)


@pytest.mark.parametrize("settings", MARCHES)
def test_strides_of_full_space(backend, device, settings):
    rays, jitter = varied_rays(), torch.rand(len(varied_rays()[0]))
    cells, settings = torch.ones(8, 8, 8, dtype=torch.bool), MARCHES[settings]
    options = {"jitter": jitter}
    single = march(backend, device, rays, cells, settings, **options)
    counts = single.packed_info[:, 1].cpu()
    for exponent in (0, 1, 3):
        strides = torch.full(cells.shape, exponent, dtype=torch.uint8)
        merged = march(backend, device, rays, cells, settings, log2_strides=strides, **options)
        assert_tiles_the_same_spans(merged, single)
        found, length = merged.packed_info[:, 1].cpu(), 2**exponent
        assert (found >= counts / length).all()
        # Besides whole samples, there are single steps at the end of a ray at most.
        assert (found <= counts // length + 2 * length * exponent).all()
        assert exponent == 0 or int(found.sum()) < int(counts.sum())


def assert_tiles_the_same_spans(merged, single):
    """Where everything is occupied, samples follow one another without gaps, from the same begin
    to the same end, and each is looked at within itself."""
    for ray, ((first, count), (begin, number)) in enumerate(
        zip(merged.packed_info.tolist(), single.packed_info.tolist(), strict=True)
    ):
        assert (count > 0) == (number > 0), ray
        if count:
            starts = merged.t_starts[first : first + count]
            ends = merged.t_ends[first : first + count]
            torch.testing.assert_close(starts[1:], ends[:-1], rtol=3e-7, atol=1e-7)
            assert starts[0] == single.t_starts[begin]
            torch.testing.assert_close(ends[-1], single.t_ends[begin + number - 1])


@pytest.mark.parametrize("settings", MARCHES)
def test_march_few_rays(rival, device, reference, settings):
    cells, settings = OCCUPANCIES["full"](), MARCHES[settings]
    none = march(rival, device, [torch.zeros(0, 3)] * 2, cells, settings, max_samples=3)
    assert none.t_starts.shape == none.t_ends.shape == none.next_step.shape == (0,)
    assert none.positions.shape == (0, 3)
    assert none.packed_info.shape == (0, 2)
    rays = [torch.tensor([[0.1, 0.2, -5.0]]), torch.tensor([[0.0, 0.0, 1.0]])]
    found = march(rival, device, rays, cells, settings)
    assert_same_samples(found, reference.march(*rays, cells, settings))
    assert int(found.packed_info[0, 1]) > 10


def test_march_laws(backend, device):
    rays, cells = varied_rays(), OCCUPANCIES["random_8"]()
    for settings in MARCHES.values():
        samples = march(backend, device, rays, cells, settings)
        cell = (samples.positions.cpu() * 8).floor().long().clamp(0, 7)
        assert cells[cell[:, 0], cell[:, 1], cell[:, 2]].all()
        assert (samples.t_ends > samples.t_starts).all()
        # Front to back, without overlap; ends and starts of neighbours may round differently.
        same_ray = samples.ray_indices[1:] == samples.ray_indices[:-1]
        gap = (samples.t_starts[1:] - samples.t_ends[:-1])[same_ray]
        assert (gap >= -1e-6 * samples.t_ends[:-1][same_ray]).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("which", ["origins", "directions"])
def test_rays_that_are_not_finite_are_named(value, which):
    """Compiled code would read where there is nothing."""
    broken = dict(zip(("origins", "directions"), map(torch.clone, varied_rays()), strict=True))
    broken[which][4, 1] = value
    cells = torch.ones(8, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"expected {which} of rays .* in ray 4"):
        get_backend("cpu_numba").march(*broken.values(), cells, MARCHES["affine"])
