"""Which latents move: on losses that are known, and on a small field against real renderings."""

import math

import pytest
import torch

from shacira_nerfstudio.compression.rdo import Bits, best_moves, find_lagrangian, probe_curvature
from shacira_nerfstudio.model.quantize import get_quantizer


def bits_of(symbols):
    """Two bits for each step away from 0."""
    values = symbols.abs() * 2.0
    return Bits(values, (symbols - symbols.sign()).abs() * 2.0, torch.zeros_like(values))


def test_the_quadratic_is_the_loss_of_a_linear_model():
    """Curvature of a mean squared error over a linear map is known in closed form."""
    torch.manual_seed(0)
    matrix = torch.randn(40, 3, 6)
    latents = torch.randint(-2, 3, (6, 1)).float().requires_grad_(True)
    found = sum(probe_curvature(matrix @ latents[:, 0], latents) for _ in range(2000)) / 2000
    exact = 2 / 120 * (matrix**2).sum((0, 1))
    assert torch.allclose(found[:, 0], exact, rtol=0.15)


def test_a_cheap_step_is_taken_before_a_dear_jump():
    symbols = torch.tensor([[3.0], [1.0], [-1.0], [0.0]])
    curvature = torch.tensor([[1.0], [1.0], [0.1], [1.0]])
    goals, lagrangians = best_moves(symbols, symbols, curvature, bits_of(symbols))
    # One step costs 1/2 for two bits; from 3 to 0 it would be 9/2 for six.
    assert goals[:, 0].tolist() == [2.0, 0.0, 0.0, 0.0]
    assert lagrangians[:, 0].tolist() == pytest.approx([0.25, 0.25, 0.025, math.inf])


def test_later_moves_count_from_the_start():
    start, current = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    _, lagrangians = best_moves(start, current, torch.ones(1, 1), bits_of(current))
    assert lagrangians.item() == pytest.approx((2.0 - 0.5) / 2)  # from 1/2 to 4/2


def test_no_move_where_it_saves_nothing():
    symbols = torch.tensor([[1.0]])
    same = torch.ones(1, 1)
    goals, lagrangians = best_moves(symbols, symbols, torch.zeros(1, 1), Bits(same, same, same))
    assert goals.item() == 1 and lagrangians.item() == math.inf


def test_a_lagrangian_is_found_that_meets_a_size():
    tried = []

    def size_at(lagrangian):
        tried.append(lagrangian)
        return 1000 / lagrangian

    lagrangian = find_lagrangian(size_at, 20.0, 1e-2, 1e5)
    assert 20.0 * 0.99 < size_at(lagrangian) <= 20.0
    assert len(tried) == 15 and all(1e-2 < p < 1e5 for p in tried)
    assert find_lagrangian(lambda _: 30.0, 20.0, 1e-2, 1e5) == 1e5


def test_on_a_field_it_tells_what_rendering_loses(make_field):
    """Beside the noise-free image moving a latent costs what its curvature says."""
    field = make_field(latent_dim=1)
    field.train()
    encoding = field.encoding
    encoding.set_quantizer(get_quantizer("none"))
    x = torch.rand(2000, 3)

    def colors():
        _, geo = field.density(x)
        return field.color(field.ray_features(torch.eye(3)[:1]).expand(len(x), -1), geo)

    truth = colors().detach()
    found = sum(probe_curvature(colors(), encoding.latents) for _ in range(256)) / 256
    used = torch.argsort(found[:, 0], descending=True)[:1000:50]
    real, estimated, step = [], [], 0.1  # latents of a trained field bend less than these
    for index in used.tolist():
        with torch.no_grad():
            encoding.latents[index] += step
            real.append(torch.mean((colors() - truth) ** 2).item())
            encoding.latents[index] -= step
        estimated.append(0.5 * step**2 * found[index].item())
    assert torch.corrcoef(torch.tensor([real, estimated]))[0, 1] > 0.9
    assert sum(real) == pytest.approx(sum(estimated), rel=0.3)
