"""Interpolation and quantised look-ups: what `reference` gives in double precision, with gradients.

`reference` runs here as well, in single precision, where that is a test: the tolerances are those
of the number format and not of an implementation.
"""

import pytest
import torch
from synthetic_inputs import positions

from shacira_nerfstudio.backends import SparseRowGradient, TableQuantizer
from shacira_nerfstudio.grid import GridSpec

SINGLE_LEVELS = {
    "dense_3d": GridSpec(3, ((6, 6, 6),), (216,)),
    "dense_2d": GridSpec(2, ((7, 7),), (56,)),
    "hashed_3d": GridSpec(3, ((40, 40, 40),), (64,)),
    "hashed_2d": GridSpec(2, ((100, 100),), (64,)),
}

# Cell coordinates reach 100 in single precision, so that fractions are off by up to 4e-6, and
# values by that times the spread of the table, 8, and the number of axes.
VALUE = {"rtol": 1e-5, "atol": 1e-4}
# A gradient adds up to 1000 samples of such weights.
GRADIENT = {"rtol": 1e-4, "atol": 1e-3}


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
    for axes, size in zip(tiny_grid.resolutions, tiny_grid.table_sizes, strict=True):
        grid = GridSpec(tiny_grid.num_dims, (axes,), (size,))
        x = torch.cartesian_prod(*(torch.arange(n) / (n - 1) for n in axes)).to(device)
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


def test_interpolate_with_given_values(backend, device, tiny_grid):
    x = positions(200, tiny_grid.num_dims).to(device)
    table = torch.randn(tiny_grid.num_entries, 2).to(device).requires_grad_()
    fresh = backend.interpolate(x, table, tiny_grid)
    given = backend.interpolate(x, table, tiny_grid, values=fresh.detach())
    assert torch.equal(given, fresh)
    upstream = torch.randn(fresh.shape).to(device)
    gradients = [torch.autograd.grad(v, table, upstream)[0] for v in (fresh, given)]
    assert_sums_equal(*gradients)
    assert gradients[0].any()


def test_interpolate_has_no_gradient_in_positions(backend, device, tiny_grid):
    x = positions(10, tiny_grid.num_dims).to(device).requires_grad_()
    table = torch.randn(tiny_grid.num_entries, 1).to(device).requires_grad_()
    backend.interpolate(x, table, tiny_grid).sum().backward()
    assert x.grad is None
    assert table.grad is not None


def test_noise(backend, device, reference):
    table = torch.zeros(20000, 2).to(device)
    noise = backend.quantize(table, TableQuantizer("noise", 77))
    assert noise.min() >= -0.5
    assert noise.max() < 0.5
    # Each tenth holds 4000 of 40000 draws, with a standard deviation of 60; none is off by 5.
    assert ((torch.histc(noise.cpu(), 10, -0.5, 0.5) - 4000).abs() < 300).all()
    other = backend.quantize(table, TableQuantizer("noise", 78))
    # Neighbours in a row and in a column, and seeds side by side, are independent: |r| < 5 /
    # sqrt(20000).
    pairs = (
        noise.T,
        torch.stack([noise[:-1, 0], noise[1:, 0]]),
        torch.stack([noise, other])[..., 0],
    )
    for pair in pairs:
        assert abs(torch.corrcoef(pair)[0, 1]) < 0.035
    assert torch.equal(backend.quantize(table, TableQuantizer("noise", 77)), noise)
    expected = reference.quantize(table.cpu(), TableQuantizer("noise", 77))
    assert torch.equal(noise.cpu(), expected)  # the same bits everywhere


@pytest.mark.parametrize("mode", ["none", "round", "noise"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_interpolate_quantizes_what_it_reads(
    backend, device, reference, tiny_grid, num_channels, mode
):
    quantizer = TableQuantizer(mode, 2**32 - 3)
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
    rows = SparseRowGradient.zeros(*table.shape, device=device)
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
