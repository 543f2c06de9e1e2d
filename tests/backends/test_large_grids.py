"""Levels of 8192 vertices and tables of 2^22 entries, against integers and rationals of any length;
and occupancies of 256 cells along each axis."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from shacira_nerfstudio.backends import MarchSettings
from shacira_nerfstudio.grid import HASH_PRIMES, GridSpec

RESOLUTION, LOG2_SIZE, NUM_SAMPLES = 8192, 22, 48
UNIT_BOX = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module", params=[3, 2])
def grid(request):
    # A coarse level in front, so that rows do not begin at 0.
    sides = ((16,) * request.param, (RESOLUTION,) * request.param)
    small = -(-(16**request.param) // 8) * 8
    return GridSpec(request.param, sides, (small, 1 << LOG2_SIZE))


@pytest.fixture(scope="module")
def positions(grid):
    """Of single precision: anywhere, at the ends, as near to borders of cells as floats come."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(NUM_SAMPLES, grid.num_dims, generator=generator)
    cells = torch.randint(1, RESOLUTION - 1, (16, grid.num_dims), generator=generator)
    x[:16] = ((cells + 0.5).double() / (RESOLUTION - 1)).float()
    x[16:20] = torch.tensor([0.0, 1.0, 1 - 2**-24, 2**-30])[:, None]
    return x


def exact_corners(position):
    """Entry and weight of each corner in the fine level, without any rounding."""
    cells = [Fraction(value) * (RESOLUTION - 1) + Fraction(1, 2) for value in position]
    lows = [math.floor(cell) for cell in cells]
    for sides in itertools.product((0, 1), repeat=len(cells)):
        weight, entry = Fraction(1), 0
        for cell, low, side, prime in zip(cells, lows, sides, HASH_PRIMES, strict=False):
            weight *= cell - low if side else 1 - (cell - low)
            entry ^= (low + side) * prime
        yield entry % (1 << LOG2_SIZE), weight


def test_fine_levels_are_read_where_positions_are(backend, grid, positions):
    generator = torch.Generator().manual_seed(1)
    table = torch.randint(-9, 10, (grid.num_entries, 1), generator=generator).float()
    found = backend.interpolate(positions, table, grid)[:, 1, 0]
    offset = grid.offsets[1]
    for value, position in zip(found.tolist(), positions.tolist(), strict=True):
        exact = sum(int(table[offset + e]) * w for e, w in exact_corners(position))
        # Three fractions that are right to 2^-22, and differences of up to 18; in plain single
        # precision they are right to 2^-11.
        assert abs(value - float(exact)) < 18 * 3 * 2**-21


def test_gradients_go_where_values_came_from(backend, grid, positions):
    table = torch.zeros(grid.num_entries, 1, requires_grad=True)
    backend.interpolate(positions, table, grid)[:, 1].sum().backward()
    assert table.grad is not None
    expected = {}
    for position in positions.tolist():
        for entry, weight in exact_corners(position):
            expected[entry] = expected.get(entry, 0) + weight
    fine = table.grad[grid.offsets[1] :, 0]
    assert {int(i) for i in fine.nonzero()} <= set(expected)
    entries = torch.tensor(list(expected))
    exact = torch.tensor([float(weight) for weight in expected.values()])
    assert (fine[entries] - exact).abs().max() < NUM_SAMPLES * 2**-20


@pytest.mark.parametrize("cell", [(255, 255, 255), (0, 255, 1), (128, 0, 254)])
def test_one_occupied_cell_of_256_along_each_axis(backend, cell):
    occupancy = torch.zeros(256, 256, 256, dtype=torch.bool)
    occupancy[cell] = True
    middle = (torch.tensor(cell) + 0.5) / 256
    direction = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]), dim=1)
    settings = MarchSettings("affine", UNIT_BOX, near=0.0, far=9.0, step_size=1 / 4096)
    samples = backend.march(middle[None] - 2 * direction, direction, occupancy, settings)
    assert len(samples.positions) > 8
    assert ((samples.positions - middle).abs() < 0.501 / 256).all()
