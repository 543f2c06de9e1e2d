"""What is special in cpu_numba: threads, skipping of empty space, groups of rays."""

import pytest
import torch
from synthetic_inputs import MARCHES, OCCUPANCIES, coded_problem, packed_samples, varied_rays
from synthetic_scenes import SETTINGS, Scene, make_rays

from shacira_nerfstudio.backends import TableQuantizer, get_backend

pytest.importorskip("shacira_nerfstudio.backends.cpu_numba", exc_type=ImportError)


@pytest.fixture
def with_threads():
    """Makes the backend with so many threads."""
    return type(get_backend("cpu_numba"))


def test_threads_do_not_change_results(tiny_grid_3d, with_threads):
    count = 4000  # more rays than one task takes
    x, table = torch.rand(count, 3), torch.randn(tiny_grid_3d.num_entries, 2)
    origins, directions = varied_rays(count)
    cells = OCCUPANCIES["sparse_32"]()
    sigmas, rgbs, t_starts, t_ends, info = packed_samples([3, 0, 2, 1] * 1000)
    _, *tables = coded_problem(tiny_grid_3d, 9)

    def everything(num_threads):
        backend = with_threads(num_threads)
        leaves = [v.clone().requires_grad_() for v in (table, sigmas, rgbs)]
        latents = backend.interpolate(x, leaves[0], tiny_grid_3d)
        noisy = backend.interpolate(
            x, leaves[0], tiny_grid_3d, quantizer=TableQuantizer("noise", 9)
        )
        ones = torch.ones(1, 2)
        bits = backend.logistic_bits(leaves[0], ones, ones, tiny_grid_3d, seed=1)
        bits = bits + backend.coded_bits(leaves[0], *tables, tiny_grid_3d)
        samples = backend.march(origins, directions, cells, MARCHES["contracted_knee"])
        rendered = backend.composite(*leaves[1:], t_starts, t_ends, info)
        sum(v.square().sum() for v in (latents, noisy, bits, *rendered)).backward()
        outputs = [latents, noisy, bits, samples.positions, samples.packed_info, *rendered]
        return [*outputs, *(leaf.grad for leaf in leaves)]

    for one, two in zip(everything(1), everything(2), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.05, 1.0])
def test_gaps_are_chessboard_distances(share):
    from shacira_nerfstudio.backends.cpu_numba.rays import march

    cells = (torch.rand(20, 20, 20) < share).numpy()
    gaps = march.empty_gaps(cells)
    occupied = torch.from_numpy(cells).nonzero()
    every = torch.cartesian_prod(*[torch.arange(20)] * 3)
    expected = torch.full((len(every),), march.MAX_GAP)
    for cell in occupied:
        expected = torch.minimum(expected, (every - cell).abs().amax(1))
    assert torch.equal(torch.from_numpy(gaps).long().view(-1), expected)


def test_bounds_of_what_is_filled():
    from shacira_nerfstudio.backends.cpu_numba.rays import march

    cells = torch.zeros(8, 8, 8, dtype=torch.bool)
    cells[2, 0, 3] = cells[4, 5, 3] = True
    bounds = march.filled_bounds(cells.numpy())
    expected = [[0.25, 0.625], [-float("inf"), 0.75], [0.375, 0.5]]
    assert bounds.tolist() == expected
    none = march.filled_bounds(torch.zeros(8, 8, 8, dtype=torch.bool).numpy())
    assert (none[:, 0] > none[:, 1]).all()


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.02, 1.0])
def test_many_rays_search_as_each_walks(share, with_threads):
    from shacira_nerfstudio.backends.cpu_numba.rays import search_kernels
    from shacira_nerfstudio.backends.cpu_numba.rays.march import EmptySpace, ray_arrays

    rays, settings = make_rays(400), SETTINGS["affine"]
    cells, jitter = torch.rand(32, 32, 32) < share, torch.rand(len(rays[0]))
    gaps, _, filled, *others = EmptySpace().arguments(cells, settings)
    arrays, step_size = ray_arrays(*rays, settings, jitter, None), settings.step_size
    state = search_kernels.start(*arrays, filled, False, *others, 0, len(rays[0]))
    active = torch.randperm(len(rays[0])).numpy()
    search_kernels.search(state, active, len(active), gaps.reshape(-1), 32, step_size)
    # A march without room says which step is the next one.
    samples = with_threads(1).march(*rays, cells, settings, jitter=jitter, max_samples=1)
    first = torch.from_numpy(state[search_kernels.STEP].astype(int))
    assert torch.equal(first >= 0, samples.packed_info[:, 1] > 0)
    begin = torch.from_numpy(arrays[2]) + (first + jitter.double()) * step_size
    torch.testing.assert_close(samples.t_starts, begin[first >= 0].float())


@pytest.mark.parametrize("max_samples", [1, 8, 13])
@pytest.mark.parametrize("settings", SETTINGS)
def test_truncated_rays_are_not_opaque(tiny_grid_3d, with_threads, settings, max_samples):
    scene = Scene(tiny_grid_3d, density=3.0)
    found = scene.march_visible(with_threads(1), SETTINGS[settings], max_samples=max_samples)
    truncated = found.next_step >= 0
    assert truncated.any()
    assert (found.packed_info[truncated, 1] == max_samples).all()
