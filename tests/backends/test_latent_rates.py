"""Rates of latents and Adam in their rows: what `reference` gives in double precision.

`reference` runs here as well, in single precision, where that is a test: the tolerances are those
of the number format and not of an implementation.
"""

import pytest
import torch
from synthetic_inputs import coded_problem, logistic_problem

from shacira_nerfstudio.backends import AdamState, SparseRowGradient


@pytest.mark.parametrize("num_rows", [1, 5], ids=["shared", "per_level"])
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


def test_logistic_bits_by_rows(row_writer, device, tiny_grid):
    problem = logistic_problem(tiny_grid, tiny_grid.num_levels)
    latents, scale, shift = (v.to(device) for v in problem)
    latents.requires_grad_()
    options = {"first": 1, "stride": 3, "seed": 5}
    rows = SparseRowGradient.zeros(*latents.shape, device=device)
    bits = row_writer.logistic_bits(latents, scale, shift, tiny_grid, **options)
    (2 * bits).backward()
    again = row_writer.logistic_bits(latents, scale, shift, tiny_grid, gradient=rows, **options)
    (2 * again).backward()
    assert torch.equal(rows.values, latents.grad)
    assert torch.equal(rows.touched_rows().cpu(), torch.arange(len(latents)) // 16 % 3 == 1)


@pytest.mark.parametrize(("num_bins", "per_unit"), [(3, 1), (9, 1), (9, 4), (25, 4)])
@pytest.mark.parametrize(("first", "stride"), [(0, 1), (2, 5), (6, 7)])
def test_coded_bits(backend, device, reference, tiny_grid, first, stride, num_bins, per_unit):
    latents, lengths, classes, first_table = coded_problem(tiny_grid, num_bins)
    found, expected = (v.clone().requires_grad_() for v in (latents.to(device), latents.double()))
    options = {"first": first, "stride": stride, "bins_per_unit": per_unit}
    tables = (*(v.to(device) for v in (lengths, classes, first_table)), tiny_grid)
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
    """By hand: integers cost what their table says, and a step what the smoothed cost rises."""
    lengths = torch.tensor([[7.0, 5.0, 1.0, 4.0, 9.0]] * tiny_grid.num_levels)
    latents = torch.zeros(tiny_grid.num_entries, 1)
    latents[:6, 0] = torch.tensor([0.4, -0.4, 1.0, -2.0, 4.0, 0.75])
    classes = torch.full(latents.shape, -1, dtype=torch.int16)
    classes[:6] = 0
    latents = latents.to(device).requires_grad_()
    bits = backend.coded_bits(
        latents,
        lengths.to(device),
        classes.to(device),
        torch.arange(tiny_grid.num_levels, device=device),
        tiny_grid,
    )
    # 4 lies two beyond the last bin, each 5 bits more than the one before.
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
    """Two bins per unit: -1, -1/2, 0, 1/2, 1."""
    lengths = torch.tensor([[6.0, 5.0, 1.0, 4.0, 7.0]] * tiny_grid.num_levels)
    latents = torch.zeros(tiny_grid.num_entries, 1)
    latents[:3, 0] = torch.tensor([0.25, 0.75, 2.0])
    latents = latents.to(device).requires_grad_()
    classes = torch.zeros(latents.shape, dtype=torch.int16, device=device)
    classes[3:] = -1
    bits = backend.coded_bits(
        latents,
        lengths.to(device),
        classes,
        torch.arange(5, device=device),
        tiny_grid,
        bins_per_unit=2,
    )
    # 2 lies one unit beyond the last bin: two steps of 3 bits.
    assert bits.item() == pytest.approx(1 + 7 + 13)
    bits.backward()
    slopes = [(4 + 7) / 2 - (1 + 5) / 2, (7 + 0.5 * 3) - (1 + 4) / 2, 6.0]
    torch.testing.assert_close(latents.grad[:3, 0].cpu(), torch.tensor(slopes))


def test_coded_bits_by_rows(row_writer, device, tiny_grid):
    latents, *tables = (v.to(device) for v in coded_problem(tiny_grid, 9))
    arguments = latents.requires_grad_(), *tables, tiny_grid
    rows = SparseRowGradient.zeros(*latents.shape, device=device)
    (2 * row_writer.coded_bits(*arguments, first=1, stride=3)).backward()
    (2 * row_writer.coded_bits(*arguments, first=1, stride=3, gradient=rows)).backward()
    assert torch.equal(rows.values, latents.grad)
    # Rows that the rate does not move are left to whoever else touches them.
    assert torch.equal(rows.touched_rows(), (latents.grad != 0).any(1))


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5)])
def test_update_rows(rival, device, reference, num_channels, betas):
    count = 1003  # the last byte of marks is not full
    start, places = torch.randn(count, num_channels), (device, "cpu")
    parameters = [start.clone().to(place) for place in places]
    states = [
        AdamState(
            torch.zeros(count, 2, num_channels, device=place),
            torch.zeros(count, dtype=torch.int16, device=place),
        )
        for place in places
    ]
    for state in states:
        state.num_updates[5] = 32767  # the counter is full
    for share in (0.02, 0.6, 1.0, 0.3):
        grad = torch.randn(count, num_channels) * (torch.rand(count, 1) < share)
        for backend, p, state in zip((rival, reference), parameters, states, strict=True):
            rows = SparseRowGradient.of(grad.clone().to(p))
            options = {"lr": 0.1, "betas": betas, "eps": 1e-15, "weight_decay": 0.02}
            backend.update_rows(p, rows, state, **options)
            assert not rows.values.any()
            assert not rows.touched.any()
        # Both work in single precision, in another order.
        found, expected = parameters
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)
        for name in ("moments", "num_updates"):
            found, expected = (getattr(state, name) for state in states)
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-7)
