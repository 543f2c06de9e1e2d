"""Samples that light reaches: those of `reference`, which looks at all of them."""

import pytest
import torch
from synthetic_scenes import SETTINGS, Scene

from shacira_nerfstudio.backends import TableQuantizer

NAMES = ("t_starts", "t_ends", "positions", "packed_info", "latents", "density_outputs")


def find(scene, backend, settings="affine", **options):
    return scene.march_visible(backend, SETTINGS[settings], **options)


def assert_same(found, expected):
    assert torch.equal(found.packed_info.cpu(), expected.packed_info)
    for name in NAMES:
        a, b = getattr(found, name).cpu(), getattr(expected, name)
        assert a.shape == b.shape
        # Behind sums of 16 products in single precision.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.fixture
def scene(tiny_grid_3d):
    # Dense enough for most rays to become opaque.
    return Scene(tiny_grid_3d, share=0.3, density=3.0)


@pytest.mark.parametrize("early_stop", [0.0, 1e-4, 0.5])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_samples_that_light_reaches(rival, device, reference, scene, settings, early_stop):
    jitter = torch.rand(len(scene.rays[0]))
    options = {"jitter": jitter, "early_stop": early_stop}
    found = find(scene, rival, settings, device=device, **options)
    expected = find(scene, reference, settings, **options)
    assert_same(found, expected)
    assert (found.next_step == -1).all()
    visible = len(expected.t_starts)
    assert 0 < visible <= found.num_marched <= expected.num_marched
    assert (visible < expected.num_marched) == (early_stop > 0)


@pytest.mark.parametrize("settings", SETTINGS)
def test_samples_that_stand_for_several_steps(rival, device, reference, scene, settings):
    size = len(scene.cells)
    options = {"log2_strides": torch.randint(0, 3, (size,) * 3, dtype=torch.uint8)}
    options["jitter"] = torch.rand(len(scene.rays[0]))
    expected = find(scene, reference, settings, **options)
    assert_same(find(scene, rival, settings, device=device, **options), expected)
    single = find(scene, reference, settings, jitter=options["jitter"])
    assert 0 < expected.num_marched < single.num_marched


@pytest.mark.parametrize("mode", ["none", "round", "noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tables_under_every_quantizer(rival, device, reference, tiny_grid_3d, mode, channels):
    scene = Scene(tiny_grid_3d, channels=channels, dtype=torch.float32)
    scene.table += torch.rand(scene.table.shape) * 0.8 - 0.4
    quantizer = TableQuantizer(mode, 5)
    found = find(scene, rival, device=device, quantizer=quantizer)
    assert_same(found, find(scene, reference, quantizer=quantizer))


@pytest.mark.parametrize("num_levels", [0, 2])
def test_levels_that_are_not_read_are_0(rival, device, reference, scene, num_levels):
    found = find(scene, rival, device=device, num_levels=num_levels)
    assert_same(found, find(scene, reference, num_levels=num_levels))
    assert not found.latents[:, num_levels:].any()


@pytest.mark.parametrize("max_samples", [1, 8, 13])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_ray_ends_after_so_many_samples(rival, device, reference, scene, settings, max_samples):
    options = {"settings": settings, "max_samples": max_samples}
    found = find(scene, rival, device=device, **options)
    expected = find(scene, reference, **options)
    assert_same(found, expected)
    found_step = found.next_step.cpu()
    truncated, maybe = found_step >= 0, expected.next_step >= 0
    assert truncated.any()
    # A backend may also say so of rays that became opaque before.
    assert (maybe | ~truncated).all()
    assert torch.equal(found_step[truncated], expected.next_step[truncated])


@pytest.mark.parametrize("case", ["no ray", "one ray", "nothing occupied", "many in one ray"])
def test_edges(rival, device, reference, tiny_grid_3d, case):
    scene = Scene(tiny_grid_3d, share=1.0, density=-20.0, count=40)
    if case == "nothing occupied":
        scene.cells[:] = False
    elif case != "many in one ray":
        scene.rays = [v[: {"no ray": 0, "one ray": 1}[case]] for v in scene.rays]
    found = find(scene, rival, device=device)
    expected = find(scene, reference)
    assert_same(found, expected)
    if case == "many in one ray":
        assert expected.packed_info[:, 1].max() > 64


def test_threads_change_nothing(scene):
    backends = pytest.importorskip("shacira_nerfstudio.backends.cpu_numba.backend")
    scene.rays = [v.repeat(9, 1) for v in scene.rays]
    one, three = (find(scene, backends.CpuNumbaBackend(n)) for n in (1, 3))
    assert all(torch.equal(getattr(one, name), getattr(three, name)) for name in NAMES)
    assert one.num_marched == three.num_marched
