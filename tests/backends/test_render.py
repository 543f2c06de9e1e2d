"""Rendering for looking, all in one: what `reference` makes of the same rays."""

import pytest
import torch
from synthetic_scenes import SETTINGS, Scene

from shacira_nerfstudio.backends import TableQuantizer
from shacira_nerfstudio.grid import GridSpec

# Weights of up to 200 samples add up to 1 in single precision, behind two networks.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def assert_close(found, expected):
    for name in ("color", "transmittance", "last_color"):
        values = getattr(found, name).cpu(), getattr(expected, name).cpu()
        torch.testing.assert_close(values[0].double(), values[1].double(), **CLOSE)
    # Distances of up to 50.
    distances = found.distance.cpu().double(), expected.distance.cpu().double()
    torch.testing.assert_close(*distances, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("settings", SETTINGS)
def test_render(rival, device, reference, tiny_grid_3d, settings, share):
    scene = Scene(tiny_grid_3d, share=share)
    found = scene.render(rival, SETTINGS[settings], device=device)
    expected = scene.render(reference, SETTINGS[settings], dtype=torch.float64)
    assert_close(found, expected)
    assert found.num_samples == expected.num_samples > 0
    assert found.color.dtype == torch.float32
    assert 0.05 < float(1 - expected.transmittance.mean()) < 1


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.float32])
def test_render_tables_of_all_types(rival, device, reference, tiny_grid_3d, dtype, channels):
    scene = Scene(tiny_grid_3d, channels=channels, dtype=dtype)
    settings = SETTINGS["affine"]
    expected = scene.render(reference, settings, dtype=torch.float64)
    assert_close(scene.render(rival, settings, device=device), expected)


def test_render_with_a_quantizer(rival, device, reference, tiny_grid_3d):
    scene = Scene(tiny_grid_3d, dtype=torch.float32)
    scene.table += torch.rand(scene.table.shape) * 0.8 - 0.4
    for quantizer in (TableQuantizer("round"), TableQuantizer("noise", 5)):
        found, expected = (
            scene.render(backend, SETTINGS["affine"], device=where, quantizer=quantizer)
            for backend, where in ((rival, device), (reference, "cpu"))
        )
        assert_close(found, expected)


@pytest.mark.parametrize("num_levels", [0, 1, 3])
def test_render_reads_the_first_levels_alone(rival, device, reference, tiny_grid_3d, num_levels):
    scene = Scene(tiny_grid_3d)
    for dtype in (torch.int8, torch.float32):
        scene.table = scene.table.to(dtype)
        found, expected = (
            scene.render(backend, SETTINGS["affine"], device=where, num_levels=num_levels)
            for backend, where in ((rival, device), (reference, "cpu"))
        )
        assert_close(found, expected)


def test_render_levels_of_zeros(rival, device, reference, tiny_grid_3d):
    scene, offsets = Scene(tiny_grid_3d), tiny_grid_3d.offsets
    for begin, end in ((offsets[1], offsets[2]), (offsets[4], offsets[5]), (0, offsets[-1])):
        scene.table[begin:end] = 0
        expected = scene.render(reference, SETTINGS["affine"])
        assert_close(scene.render(rival, SETTINGS["affine"], device=device), expected)


def test_render_a_table_that_changes_in_place(rival, device, reference, tiny_grid_3d):
    # What is kept of a table for the next call must not outlive it.
    scene = Scene(tiny_grid_3d)
    values = scene.table.clone()
    for table in (torch.zeros_like(values), values):
        scene.table.copy_(table)
        expected = scene.render(reference, SETTINGS["affine"])
        assert_close(scene.render(rival, SETTINGS["affine"], device=device), expected)


def test_render_one_level_one_ray_no_ray_nothing_there(rival, device, reference):
    scene = Scene(GridSpec(3, ((6, 6, 6),), (216,)), count=1)
    settings = SETTINGS["affine"]
    assert_close(scene.render(rival, settings, device=device), scene.render(reference, settings))
    scene.rays, features = [v[:1] for v in scene.rays], scene.features
    scene.features = features[:1]
    assert_close(scene.render(rival, settings, device=device), scene.render(reference, settings))
    scene.cells[:] = False
    nothing = scene.render(rival, settings, device=device)
    assert nothing.num_samples == 0
    assert not nothing.color.any()
    assert not nothing.last_color.any()
    assert (nothing.transmittance == 1).all()
    scene.rays, scene.features = [torch.zeros(0, 3)] * 2, features[:0]
    none = scene.render(rival, settings, device=device)
    assert none.color.shape == none.last_color.shape == (0, 3)
    assert none.transmittance.shape == none.distance.shape == (0,)


@pytest.mark.parametrize("density", [-6.0, -2.0, 2.0])
@pytest.mark.parametrize("min_weight", [1e-3, 1e-2, 0.1])
def test_small_weights_get_the_colour_of_a_neighbour(
    rival, device, tiny_grid_3d, min_weight, density
):
    scene = Scene(tiny_grid_3d, density=density, share=1.0)
    exact, found = (
        scene.render(rival, SETTINGS["affine"], device=device, min_weight=value)
        for value in (0.0, min_weight)
    )
    # Nothing but colours changes, and all of the weight has some: grey stays grey.
    assert torch.equal(found.transmittance, exact.transmittance)
    assert torch.equal(found.distance, exact.distance)
    assert found.num_samples == exact.num_samples
    error = (found.color - exact.color).abs()
    assert error.max() < 1 - float(exact.transmittance.min()) + 1e-6
    # Colours of neighbours differ by less than 1, and weights above the limit have their own.
    assert error.mean() < 3 * min_weight
    for tensor in scene.weights.color[1]:
        tensor.zero_()
    grey = scene.render(rival, SETTINGS["affine"], device=device, min_weight=min_weight)
    expected = 0.5 * (1 - grey.transmittance)[:, None].expand(-1, 3)
    torch.testing.assert_close(grey.color, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("early_stop", [1e-4, 1e-2, 0.3])
def test_early_stop_leaves_out_less_than_its_value(rival, device, tiny_grid_3d, early_stop):
    scene = Scene(tiny_grid_3d, density=4.0, share=0.5)
    exact, found = (
        scene.render(rival, SETTINGS["affine"], device=device, early_stop=value)
        for value in (0.0, early_stop)
    )
    assert found.num_samples < exact.num_samples
    assert ((found.color - exact.color).abs() <= early_stop + 1e-5).all()
    missing = found.transmittance - exact.transmittance
    assert ((missing >= -1e-6) & (missing <= early_stop)).all()


def test_threads_and_bundles_do_not_change_a_picture(tiny_grid_3d):
    backends = pytest.importorskip("shacira_nerfstudio.backends.cpu_numba.backend")
    scene = Scene(tiny_grid_3d, count=2500)
    options = {"early_stop": 1e-4, "min_weight": 1e-3}
    one, two = (
        scene.render(backends.CpuNumbaBackend(threads), SETTINGS["affine"], **options)
        for threads in (1, 2)
    )
    rays, features = scene.rays, scene.features
    scene.rays, scene.features = [v[700:] for v in rays], features[700:]
    some = scene.render(backends.CpuNumbaBackend(2), SETTINGS["affine"], **options)
    for name in ("color", "transmittance", "distance", "last_color"):
        assert torch.equal(getattr(one, name), getattr(two, name))
        torch.testing.assert_close(getattr(some, name), getattr(one, name)[700:], **CLOSE)
