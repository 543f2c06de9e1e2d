"""Every backend gives what `reference` gives in double precision: values and gradients.

`reference` runs here as well, in single precision, where that is a test: the tolerances are those
of the number format and not of an implementation.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends import (
    AdamState,
    MarchSettings,
    Quantizer,
    RowGradient,
)
from shacira_nerfstudio.grid import GridSpec

SINGLE_LEVELS = {
    "dense_3d": GridSpec(3, (6,), (216,)),
    "dense_2d": GridSpec(2, (7,), (56,)),
    "hashed_3d": GridSpec(3, (40,), (64,)),
    "hashed_2d": GridSpec(2, (100,), (64,)),
}

# ── interpolate ──

# Cell coordinates reach 100 in single precision, so that fractions are off by up to 4e-6, and
# values by that times the spread of the table, 8, and the number of axes.
VALUE = {"rtol": 1e-5, "atol": 1e-4}
# A gradient adds up to 1000 samples of such weights.
GRADIENT = {"rtol": 1e-4, "atol": 1e-3}


def positions(count, num_dims):
    """Random ones, then as many edge cases as fit: exactly 0 and 1, outside, on a vertex."""
    x = torch.rand(count, num_dims)
    edges = list(itertools.product((0.0, 1.0, -0.25, 1.5, 0.5), repeat=num_dims))
    edges = torch.tensor(edges)[:count]
    x[: len(edges)] = edges
    return x


def assert_sums_equal(found, expected):
    """Bit by bit, except where a GPU adds up in whatever order."""
    tolerance = GRADIENT if found.is_cuda else {"rtol": 0.0, "atol": 0.0}
    torch.testing.assert_close(found, expected, **tolerance)


def check_interpolate(backend, reference, grid, x, table, *, check_gradient):
    expected_table = table.double().cpu().requires_grad_()
    expected = reference.interpolate(x.double().cpu(), expected_table, grid)
    table = table.clone().requires_grad_(check_gradient)
    found = backend.interpolate(x, table, grid)
    assert found.shape == (len(x), grid.num_levels, table.shape[1])
    torch.testing.assert_close(found.detach().cpu().double(), expected.detach(), **VALUE)
    if check_gradient:
        upstream = torch.randn(found.shape)
        found.backward(upstream.to(found))
        expected.backward(upstream.double())
        torch.testing.assert_close(table.grad.cpu().double(), expected_table.grad, **GRADIENT)


@pytest.mark.parametrize("num_samples", [0, 1, 1000])
@pytest.mark.parametrize("num_channels", [1, 2, 4])
def test_interpolate(backend, device, reference, tiny_grid, num_channels, num_samples):
    x = positions(num_samples, tiny_grid.num_dims).to(device)
    table = (torch.rand(tiny_grid.num_entries, num_channels) * 8 - 4).to(device)
    check_interpolate(backend, reference, tiny_grid, x, table, check_gradient=True)


@pytest.mark.parametrize("name", SINGLE_LEVELS)
def test_interpolate_a_single_level(backend, device, reference, name):
    grid = SINGLE_LEVELS[name]
    x = positions(1000, grid.num_dims).to(device)
    table = (torch.rand(grid.num_entries, 3) * 8 - 4).to(device)
    check_interpolate(backend, reference, grid, x, table, check_gradient=True)


def test_interpolate_in_every_cell(backend, device, reference, tiny_grid):
    # A wrong index at any corner of any cell would show: all corners weigh the same here.
    for n, size in zip(tiny_grid.resolutions, tiny_grid.table_sizes, strict=True):
        grid = GridSpec(tiny_grid.num_dims, (n,), (size,))
        axis = torch.arange(n) / (n - 1)
        x = torch.cartesian_prod(*[axis] * grid.num_dims).to(device)
        table = (torch.rand(size, 1) * 8 - 4).to(device)
        check_interpolate(backend, reference, grid, x, table, check_gradient=False)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_interpolate_integer_tables(backend, device, reference, tiny_grid, dtype):
    x = positions(1000, tiny_grid.num_dims).to(device)
    table = torch.randint(-4, 5, (tiny_grid.num_entries, 2), dtype=dtype).to(device)
    table[::100] = 100 if dtype == torch.int8 else 4000
    found = backend.interpolate(x, table, tiny_grid)
    # Integers are exact in single precision: the same as from a table of floats, bit for bit.
    assert torch.equal(found, backend.interpolate(x, table.float(), tiny_grid))
    expected = reference.interpolate(x.double().cpu(), table.double().cpu(), tiny_grid)
    # As above, with a spread of up to 4000 instead of 8.
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-5, atol=5e-2)


def test_levels_of_zeros_interpolate_to_zeros(backend, device, tiny_grid):
    table = torch.randint(1, 5, (tiny_grid.num_entries, 2), dtype=torch.int8).to(device)
    table[: tiny_grid.offsets[1]] = 0
    table[tiny_grid.offsets[-2] :] = 0
    found = backend.interpolate(positions(50, tiny_grid.num_dims).to(device), table, tiny_grid)
    assert not found[:, [0, -1]].any()
    assert found[:, 1:-1].all()


def test_interpolate_with_known_values(backend, device, tiny_grid):
    x = positions(200, tiny_grid.num_dims).to(device)
    table = torch.randn(tiny_grid.num_entries, 2).to(device).requires_grad_()
    fresh = backend.interpolate(x, table, tiny_grid)
    known = backend.interpolate(x, table, tiny_grid, values=fresh.detach())
    assert torch.equal(known, fresh)
    upstream = torch.randn(fresh.shape).to(device)
    gradients = [torch.autograd.grad(v, table, upstream)[0] for v in (fresh, known)]
    assert_sums_equal(*gradients)
    assert gradients[0].any()


def test_interpolate_has_no_gradient_in_positions(backend, device, tiny_grid):
    x = positions(10, tiny_grid.num_dims).to(device).requires_grad_()
    table = torch.randn(tiny_grid.num_entries, 1).to(device).requires_grad_()
    backend.interpolate(x, table, tiny_grid).sum().backward()
    assert x.grad is None
    assert table.grad is not None


# ── march ──

BOX = ((-1.0, -0.5, -1.5), (1.0, 1.5, 0.5))
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


def make_rays(count=72):
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
    rays, cells = make_rays(), OCCUPANCIES[occupancy]()
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
    rays, cells, settings = make_rays(), OCCUPANCIES["random_8"](), MARCHES[settings]
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
    rays, cells = make_rays(), OCCUPANCIES["random_8"]()
    for settings in MARCHES.values():
        samples = march(backend, device, rays, cells, settings)
        cell = (samples.positions.cpu() * 8).floor().long().clamp(0, 7)
        assert cells[cell[:, 0], cell[:, 1], cell[:, 2]].all()
        assert (samples.t_ends > samples.t_starts).all()
        # Front to back, without overlap; ends and starts of neighbours may round differently.
        same_ray = samples.ray_indices[1:] == samples.ray_indices[:-1]
        gap = (samples.t_starts[1:] - samples.t_ends[:-1])[same_ray]
        assert (gap >= -1e-6 * samples.t_ends[:-1][same_ray]).all()


# ── composite and visible ──


def packed_samples(counts):
    """Random samples of rays with so many each; among them opaque and empty ones."""
    counts = torch.tensor(counts, dtype=torch.long)
    total = int(counts.sum())
    sigmas = torch.rand(total) * 4
    sigmas[3::7], sigmas[5::11] = 0.0, 1e6
    t_starts = torch.rand(total) + torch.arange(total) * 0.01
    info = torch.stack([counts.cumsum(0) - counts, counts], 1)
    return sigmas, torch.rand(total, 3), t_starts, t_starts + torch.rand(total) * 0.2, info


@pytest.mark.parametrize(
    "counts",
    [[], [0], [0, 0, 0], [1], [5], [0, 3, 0, 0, 40, 1, 0], [17] * 60],
    ids=lambda counts: f"{len(counts)}_rays_{sum(counts)}_samples",
)
def test_composite(backend, device, reference, counts):
    sigmas, rgbs, t_starts, t_ends, info = packed_samples(counts)
    leaves = [v.clone().to(device).requires_grad_() for v in (sigmas, rgbs)]
    truth = [v.double().requires_grad_() for v in (sigmas, rgbs)]
    found = backend.composite(*leaves, *[v.to(device) for v in (t_starts, t_ends, info)])
    expected = reference.composite(*truth, t_starts.double(), t_ends.double(), info)
    upstream = [torch.randn(v.shape) for v in expected]
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        # Sums of at most 40 weights that add up to 1, distances of up to 11.
        torch.testing.assert_close(f.detach().cpu().double(), e.detach(), rtol=1e-6, atol=1e-5)
    torch.autograd.backward(found, [u.to(device) for u in upstream])
    torch.autograd.backward(expected, [u.double() for u in upstream])
    for f, e in zip(leaves, truth, strict=True):
        # The gradient in sigma is a difference of terms of up to 3 distances.
        torch.testing.assert_close(f.grad.cpu().double(), e.grad, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("early_stop", [0.0, 1e-4, 0.3, 1.0])
def test_visible(rival, device, reference, early_stop):
    sigmas, _, t_starts, t_ends, info = packed_samples([0, 30, 1, 0, 25, 30] * 10)
    spans = (sigmas * 0.5, t_starts, t_ends, info)
    found = rival.visible(*[v.to(device) for v in spans], early_stop=early_stop)
    expected = reference.visible(*spans, early_stop=early_stop)
    assert torch.equal(found.cpu(), expected)
    assert expected.any()
    assert torch.equal(expected, info[:, 1]) == (early_stop == 0)


def test_visible_without_samples(backend, device):
    none = torch.zeros(0).to(device)
    info = torch.zeros(4, 2, dtype=torch.long).to(device)
    found = backend.visible(none, none, none, info, early_stop=0.1)
    assert torch.equal(found.cpu(), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("counts", [[], [0, 0], [3, 0, 2, 5, 1] * 500], ids=len)
def test_take_front(backend, device, reference, counts):
    info = torch.tensor(counts, dtype=torch.long)
    info = torch.stack([info.cumsum(0) - info, info], 1).view(-1, 2)
    kept = (info[:, 1] * torch.rand(len(info))).round().long()
    total = int(info[:, 1].sum())
    by_channel = torch.rand(4, 2, total).permute(2, 0, 1)  # as interpolation lays it out
    tensors = [torch.rand(total), torch.rand(total, 3), by_channel, torch.rand(total, 1)]
    found_info, found = backend.take_front(
        info.to(device), kept.to(device), [v.to(device) for v in tensors]
    )
    expected_info, expected = reference.take_front(info, kept, tensors)
    assert torch.equal(found_info.cpu(), expected_info)
    for f, e in zip(found, expected, strict=True):
        assert torch.equal(f.cpu(), e)
    assert len(expected[0]) == kept.sum()


def test_take_front_refuses_tensors_of_another_length(backend, device):
    info = torch.tensor([[0, 3], [3, 2]]).to(device)
    with pytest.raises(ValueError, match="5 samples"):
        backend.take_front(info, info[:, 1], [torch.zeros(4).to(device)])


# ── noise, rate, Adam ──


def test_noise(backend, device, reference):
    table = torch.zeros(20000, 2).to(device)
    noise = backend.quantize(table, Quantizer("noise", 77))
    assert noise.min() >= -0.5
    assert noise.max() < 0.5
    # Each tenth holds 4000 of 40000 draws, with a standard deviation of 60; none is off by 5.
    assert ((torch.histc(noise.cpu(), 10, -0.5, 0.5) - 4000).abs() < 300).all()
    other = backend.quantize(table, Quantizer("noise", 78))
    # Neighbours in a row and in a column, and seeds side by side, are independent: |r| < 5 /
    # sqrt(20000).
    pairs = (
        noise.T,
        torch.stack([noise[:-1, 0], noise[1:, 0]]),
        torch.stack([noise, other])[..., 0],
    )
    for pair in pairs:
        assert abs(torch.corrcoef(pair)[0, 1]) < 0.035
    assert torch.equal(backend.quantize(table, Quantizer("noise", 77)), noise)
    expected = reference.quantize(table.cpu(), Quantizer("noise", 77))
    assert torch.equal(noise.cpu(), expected)  # the same bits everywhere


@pytest.mark.parametrize("mode", ["none", "round", "noise"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_interpolate_quantizes_what_it_reads(
    backend, device, reference, tiny_grid, num_channels, mode
):
    quantizer = Quantizer(mode, 2**32 - 3)
    x = positions(1000, tiny_grid.num_dims).to(device)
    table = torch.randn(tiny_grid.num_entries, num_channels).to(device).requires_grad_()
    found = backend.interpolate(x, table, tiny_grid, quantizer=quantizer)
    quantized = backend.quantize(table, quantizer)
    torch.testing.assert_close(found, backend.interpolate(x, quantized, tiny_grid))
    assert torch.equal(quantized.cpu(), reference.quantize(table.cpu(), quantizer))
    # The gradient ignores the quantiser.
    upstream = torch.randn(found.shape).to(device)
    (grad,) = torch.autograd.grad(found, table, upstream)
    plain = backend.interpolate(x, table, tiny_grid)
    assert_sums_equal(grad, torch.autograd.grad(plain, table, upstream)[0])


def test_gradients_by_rows(row_writer, device, tiny_grid):
    table = torch.randn(tiny_grid.num_entries, 2).to(device).requires_grad_()
    rows = RowGradient.zeros(*table.shape)
    x = positions(40, tiny_grid.num_dims).to(device)
    upstream = torch.randn(40, tiny_grid.num_levels, 2).to(device)
    (expected,) = torch.autograd.grad(row_writer.interpolate(x, table, tiny_grid), table, upstream)
    for repeats in (1, 2):  # it adds up
        row_writer.interpolate(x, table, tiny_grid, gradient=rows).backward(upstream)
        assert table.grad is None
        torch.testing.assert_close(rows.values, expected * repeats)
    assert torch.equal(rows.touched_rows() & (expected != 0).any(1), (expected != 0).any(1))
    assert not rows.values[~rows.touched_rows()].any()
    assert not rows.touched_rows().all()
    rows.clear()
    assert not rows.values.any()
    assert not rows.touched.any()


def logistic_problem(grid, num_rows):
    """Latents, some far out, where probabilities end below the floor of 1e-10; scale, shift."""
    latents = torch.randn(grid.num_entries, 2) * 3
    latents[::50] *= 20
    return latents, torch.rand(num_rows, 2) + 0.3, torch.randn(num_rows, 2)


@pytest.mark.parametrize("num_rows", [1, 5], ids=["pooled", "per_level"])
@pytest.mark.parametrize(("first", "stride"), [(0, 1), (2, 5), (6, 7)])
def test_logistic_bits(backend, device, reference, tiny_grid, first, stride, num_rows):
    problem = logistic_problem(tiny_grid, num_rows)
    leaves = [v.clone().to(device).requires_grad_() for v in problem]
    truth = [v.double().requires_grad_() for v in problem]
    options = {"first": first, "stride": stride, "seed": 123456}
    found = backend.logistic_bits(*leaves, tiny_grid, **options)
    expected = reference.logistic_bits(*truth, tiny_grid, **options)
    torch.testing.assert_close(found.detach().cpu().double(), expected.detach(), rtol=1e-5, atol=0)
    found.backward()
    expected.backward()
    is_rated = torch.arange(tiny_grid.num_entries) // 16 % stride == first
    assert not leaves[0].grad[~is_rated].any()
    assert leaves[0].grad[is_rated].any()
    for f, e in zip(leaves, truth, strict=True):
        # A probability near the floor keeps few digits of single precision: 1e-10 of 1e-7.
        torch.testing.assert_close(f.grad.cpu().double(), e.grad, rtol=2e-3, atol=1e-4)


def test_logistic_bits_by_rows(row_writer, tiny_grid):
    latents, scale, shift = logistic_problem(tiny_grid, tiny_grid.num_levels)
    latents.requires_grad_()
    options = {"first": 1, "stride": 3, "seed": 5}
    rows = RowGradient.zeros(*latents.shape)
    bits = row_writer.logistic_bits(latents, scale, shift, tiny_grid, **options)
    (2 * bits).backward()
    again = row_writer.logistic_bits(latents, scale, shift, tiny_grid, gradient=rows, **options)
    (2 * again).backward()
    assert torch.equal(rows.values, latents.grad)
    assert torch.equal(rows.touched_rows(), torch.arange(len(latents)) // 16 % 3 == 1)


def coded_problem(grid, num_letters):
    """Latents, some beyond the tables and some exact integers; tables, three a level but one in
    the first; classes."""
    latents = torch.randn(grid.num_entries, 2) * 3
    latents[::50] *= 20
    latents[::7] = latents[::7].round()
    first_table = [0, *range(1, 3 * grid.num_levels - 2, 3)]
    lengths = torch.rand(3 * grid.num_levels - 2, num_letters) * 10
    classes = torch.randint(-1, 3, latents.shape, dtype=torch.int16)
    classes[: grid.offsets[1]].clamp_(max=0)
    return latents, lengths, classes, first_table


@pytest.mark.parametrize(("num_letters", "density"), [(3, 1), (9, 1), (9, 4), (25, 4)])
@pytest.mark.parametrize(("first", "stride"), [(0, 1), (2, 5), (6, 7)])
def test_coded_bits(backend, device, reference, tiny_grid, first, stride, num_letters, density):
    latents, lengths, classes, first_table = coded_problem(tiny_grid, num_letters)
    found, expected = (v.clone().requires_grad_() for v in (latents.to(device), latents.double()))
    options = {"first": first, "stride": stride, "letters_per_unit": density}
    tables = lengths.to(device), classes.to(device), first_table, tiny_grid
    bits = backend.coded_bits(found, *tables, **options)
    truth = reference.coded_bits(expected, lengths, classes, first_table, tiny_grid, **options)
    # Half an integer may round either way in the two precisions, but latents here are not that.
    torch.testing.assert_close(bits.detach().cpu().double(), truth.detach(), rtol=1e-5, atol=0)
    bits.backward()
    truth.backward()
    is_rated = (torch.arange(len(latents)) // 16 % stride == first)[:, None] & (classes >= 0)
    assert not found.grad[~is_rated].any()
    assert found.grad[is_rated].any()
    # Beyond the tables costs of several hundred bits are subtracted from one another.
    torch.testing.assert_close(found.grad.cpu().double(), expected.grad, rtol=1e-5, atol=1e-3)


def test_coded_bits_are_looked_up(backend, device, tiny_grid):
    """By hand: letters cost what their table says, and a step what the smoothed cost rises."""
    lengths = torch.tensor([[7.0, 5.0, 1.0, 4.0, 9.0]] * tiny_grid.num_levels)
    latents = torch.zeros(tiny_grid.num_entries, 1)
    latents[:6, 0] = torch.tensor([0.4, -0.4, 1.0, -2.0, 4.0, 0.75])
    classes = torch.full(latents.shape, -1, dtype=torch.int16)
    classes[:6] = 0
    latents = latents.to(device).requires_grad_()
    bits = backend.coded_bits(
        latents, lengths.to(device), classes.to(device), range(tiny_grid.num_levels), tiny_grid
    )
    # 4 lies two beyond the last letter, each 5 bits more than the one before.
    assert bits.item() == pytest.approx(1 + 1 + 4 + 7 + 19 + 4)
    bits.backward()
    slopes = [
        (1 + 0.9 * 3) - (1 + 0.1 * 4),
        (1 + 0.1 * 3) - (1 + 0.9 * 4),
        (4 + 0.5 * 5) - (1 + 0.5 * 3),
        -2.0,
        5.0,
        (4 + 0.25 * 5) - (1 + 0.25 * 3),
    ]
    torch.testing.assert_close(latents.grad[:6, 0].cpu(), torch.tensor(slopes))
    assert not latents.grad[6:].any()


def test_coded_bits_between_integers(backend, device, tiny_grid):
    """Two letters per unit: -1, -1/2, 0, 1/2, 1."""
    lengths = torch.tensor([[6.0, 5.0, 1.0, 4.0, 7.0]] * tiny_grid.num_levels)
    latents = torch.zeros(tiny_grid.num_entries, 1)
    latents[:3, 0] = torch.tensor([0.25, 0.75, 2.0])
    latents = latents.to(device).requires_grad_()
    classes = torch.zeros(latents.shape, dtype=torch.int16, device=device)
    classes[3:] = -1
    bits = backend.coded_bits(
        latents, lengths.to(device), classes, range(5), tiny_grid, letters_per_unit=2
    )
    # 2 lies one unit beyond the last letter: two steps of 3 bits.
    assert bits.item() == pytest.approx(1 + 7 + 13)
    bits.backward()
    slopes = [(4 + 7) / 2 - (1 + 5) / 2, (7 + 0.5 * 3) - (1 + 4) / 2, 6.0]
    torch.testing.assert_close(latents.grad[:3, 0].cpu(), torch.tensor(slopes))


def test_coded_bits_by_rows(row_writer, tiny_grid):
    latents, lengths, classes, first_table = coded_problem(tiny_grid, 9)
    latents.requires_grad_()
    arguments = latents, lengths, classes, first_table, tiny_grid
    rows = RowGradient.zeros(*latents.shape)
    (2 * row_writer.coded_bits(*arguments, first=1, stride=3)).backward()
    (2 * row_writer.coded_bits(*arguments, first=1, stride=3, gradient=rows)).backward()
    assert torch.equal(rows.values, latents.grad)
    # Rows that the rate does not move are left to whoever else touches them.
    assert torch.equal(rows.touched_rows(), (latents.grad != 0).any(1))


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5)])
def test_update_rows(rival, reference, num_channels, betas):
    count = 1003  # the last byte of marks is not full
    parameters = [torch.randn(count, num_channels)] * 2
    parameters = [p.clone() for p in parameters]
    states = [
        AdamState(torch.zeros(count, 2, num_channels), torch.zeros(count, dtype=torch.int16))
        for _ in parameters
    ]
    states[1].num_updates[5] = states[0].num_updates[5] = 32767  # the counter is full
    for share in (0.02, 0.6, 1.0, 0.3):
        grad = torch.randn(count, num_channels) * (torch.rand(count, 1) < share)
        for backend, p, state in zip((rival, reference), parameters, states, strict=True):
            rows = RowGradient.of(grad.clone())
            options = {"lr": 0.1, "betas": betas, "eps": 1e-15, "weight_decay": 0.02}
            backend.update_rows(p, rows, state, **options)
            assert not rows.values.any()
            assert not rows.touched.any()
        # Both work in single precision, in another order.
        torch.testing.assert_close(*parameters, rtol=1e-5, atol=1e-6)
        for name in ("moments", "num_updates"):
            both = [getattr(state, name) for state in states]
            torch.testing.assert_close(*both, rtol=1e-5, atol=1e-7)


# ── threads ──


def test_threads_do_not_change_results(tiny_grid_3d):
    backends = pytest.importorskip("shacira_nerfstudio.backends.cpu_numba.backend")
    count = 4000  # more rays than one task takes
    x, table = torch.rand(count, 3), torch.randn(tiny_grid_3d.num_entries, 2)
    origins, directions = make_rays(count)
    cells = OCCUPANCIES["sparse_32"]()
    sigmas, rgbs, t_starts, t_ends, info = packed_samples([3, 0, 2, 1] * 1000)
    _, *tables = coded_problem(tiny_grid_3d, 9)

    def everything(num_threads):
        backend = backends.CpuNumbaBackend(num_threads)
        leaves = [v.clone().requires_grad_() for v in (table, sigmas, rgbs)]
        latents = backend.interpolate(x, leaves[0], tiny_grid_3d)
        noisy = backend.interpolate(x, leaves[0], tiny_grid_3d, quantizer=Quantizer("noise", 9))
        ones = torch.ones(1, 2)
        bits = backend.logistic_bits(leaves[0], ones, ones, tiny_grid_3d, seed=1)
        bits = bits + backend.coded_bits(leaves[0], *tables, tiny_grid_3d)
        samples = backend.march(origins, directions, cells, MARCHES["contracted_knee"])
        rendered = backend.composite(*leaves[1:], t_starts, t_ends, info)
        counts = backend.visible(sigmas, t_starts, t_ends, info, early_stop=0.5)
        _, front = backend.take_front(info, counts, [t_starts, rgbs])
        sum(v.square().sum() for v in (latents, noisy, bits, *rendered)).backward()
        outputs = [latents, noisy, bits, samples.positions, samples.packed_info, *rendered]
        return [*outputs, counts, *front, *(leaf.grad for leaf in leaves)]

    for one, two in zip(everything(1), everything(2), strict=True):
        assert torch.equal(one, two)


# ── skipping ──


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.05, 1.0])
def test_gaps_are_chessboard_distances(share):
    backend = pytest.importorskip("shacira_nerfstudio.backends.cpu_numba.backend")
    cells = (torch.rand(20, 20, 20) < share).numpy()
    gaps = backend.empty_gaps(cells)
    occupied = torch.from_numpy(cells).nonzero()
    every = torch.cartesian_prod(*[torch.arange(20)] * 3)
    expected = torch.full((len(every),), backend.MAX_GAP)
    for cell in occupied:
        expected = torch.minimum(expected, (every - cell).abs().amax(1))
    assert torch.equal(torch.from_numpy(gaps).long().view(-1), expected)


def test_bounds_of_what_is_filled():
    backend = pytest.importorskip("shacira_nerfstudio.backends.cpu_numba.backend")
    cells = torch.zeros(8, 8, 8, dtype=torch.bool)
    cells[2, 0, 3] = cells[4, 5, 3] = True
    bounds = backend.filled_bounds(cells.numpy())
    expected = [[0.25, 0.625], [-float("inf"), 0.75], [0.375, 0.5]]
    assert bounds.tolist() == expected
    none = backend.filled_bounds(torch.zeros(8, 8, 8, dtype=torch.bool).numpy())
    assert (none[:, 0] > none[:, 1]).all()
