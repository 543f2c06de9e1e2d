"""Quantisers: what they keep, what gradient they pass, and when each of them acts."""

import math

import pytest
import torch

from shacira_nerfstudio.backends import TableQuantizer
from shacira_nerfstudio.model.quantize import QuantizeSchedule, get_quantizer


def quantize(latents, mode, temperature=1.0):
    return get_quantizer(mode).table(latents, temperature)


def sga(latents, temperature):
    return quantize(latents, "sga", temperature)


def value_and_gradient(latents, mode, temperature=1.0):
    latents = latents.clone().requires_grad_()
    values = quantize(latents, mode, temperature)
    gradient = torch.autograd.grad(values.sum(), latents)[0] if values.requires_grad else None
    return values.detach(), gradient


SGA = get_quantizer("sga")
LATENTS = torch.tensor([-1.7, -0.5, -0.2, 0.0, 0.4, 0.6, 1.0, 2.51])
ROUNDED = [-2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 3.0]


def test_straight_through_rounds_with_gradient_one():
    values, gradient = value_and_gradient(LATENTS, "straight_through")
    assert values.tolist() == ROUNDED
    assert gradient.tolist() == [1] * 8


def test_round_rounds_without_gradient():
    values, gradient = value_and_gradient(LATENTS, "round")
    assert values.tolist() == ROUNDED
    assert gradient.tolist() == [0] * 8


def test_none_is_the_identity():
    values, gradient = value_and_gradient(LATENTS, "none")
    assert torch.equal(values, LATENTS)
    assert gradient.tolist() == [1] * 8


def test_noise_is_uniform_of_one_step():
    values, gradient = value_and_gradient(torch.full((100_000,), 0.25), "noise")
    noise = values - 0.25
    assert noise.min() >= -0.5
    assert noise.max() <= 0.5
    # Five standard deviations of mean and variance: 0.289 / sqrt(n) and 0.0745 / sqrt(n).
    assert abs(noise.mean()) < 0.0046
    assert abs(noise.var() - 1 / 12) < 0.0012
    assert (gradient == 1).all()


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="got 'floor'"):
        get_quantizer("floor")


def test_binary_is_the_sign_with_gradient_one():
    values, gradient = value_and_gradient(LATENTS, "binary")
    assert values.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    assert gradient.tolist() == [1] * 8


# ── what a quantiser says of itself ──

NAMES = ("sga", "sga_tanh", "noise", "straight_through", "round", "binary", "none")


@pytest.mark.parametrize("name", NAMES)
def test_a_quantizer_that_is_soft_gives_values_between_integers(name):
    quantizer = get_quantizer(name)
    assert quantizer.name == name and get_quantizer(name) is quantizer
    values = quantizer.table(torch.randn(1000), 0.5)
    assert bool((values != values.round()).any()) == quantizer.is_soft


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_reads_what_a_quantizer_codes(name):
    quantizer = get_quantizer(name)
    values = quantizer.evaluate(LATENTS.clone().requires_grad_())
    assert not values.requires_grad
    if quantizer.codes_integers:
        assert values.tolist() == ROUNDED
    elif quantizer.is_quantized:
        assert set(values.tolist()) == {-1, 1}
    else:
        assert torch.equal(values, LATENTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_look_up_reads_what_the_table_would_hold(reference, name):
    quantizer = get_quantizer(name)
    if quantizer.look_up is None:
        assert name in ("sga", "sga_tanh", "binary")
    elif quantizer.look_up == "noise":
        assert quantizer.is_soft
    else:
        found = reference.quantize(LATENTS[:, None], TableQuantizer(quantizer.look_up))
        assert torch.equal(found[:, 0], quantizer.table(LATENTS))


# ── sga ──


def test_sga_lies_between_the_neighbours():
    latents = torch.randn(10_000) * 3
    for temperature in (1.0, 0.3, 0.05):
        values = sga(latents, temperature)
        assert (values >= latents.floor()).all()
        assert (values <= latents.floor() + 1).all()


def test_sga_leaves_an_integer_alone():
    integers = torch.arange(-3.0, 4).repeat(20_000)
    # With the tanh of the reference code one draw in 2000 would flip here, and 32 % at 1.
    assert torch.equal(sga(integers, 0.1), integers)
    flipped = (sga(integers, 1.0).round() != integers).float().mean()
    # Only the clamp of arctanh moves any: sigmoid(-arctanh(1 - 1e-6)), one in 1400.
    assert 1e-4 < flipped < 1.2e-3


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.2])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.8])
def test_sga_chooses_as_often_as_it_should(fraction, temperature):
    count = 40_000
    chosen = sga(torch.full((count,), 5 + fraction), temperature) > 5.5
    logit = (math.atanh(fraction) - math.atanh(1 - fraction)) / temperature
    expected = 1 / (1 + math.exp(-logit))
    # Five standard deviations of a share.
    slack = 5 * math.sqrt(expected * (1 - expected) / count) + 1e-9
    assert abs(float(chosen.float().mean()) - expected) < slack


def test_sga_becomes_rounding_as_it_cools():
    latents = torch.tensor([-1.9, -0.3, 0.2, 0.45, 0.55, 0.9, 3.3])
    errors = []
    for temperature in (1.0, 0.3, 0.1, 0.03):
        mean = sga(latents.expand(5000, -1), temperature).mean(0)
        errors.append((mean - latents.round()).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.3
    # At 0.03 the choice at 0.45 goes wrong with probability sigmoid(-0.1236 / 0.03) = 1.6 %.
    assert errors[-1] < 0.03


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_sga_gradient_by_finite_differences(monkeypatch, temperature):
    latents = torch.tensor([-1.8, -0.4, 0.1, 0.3, 0.5, 0.75, 2.2], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.4))
    _, gradient = value_and_gradient(latents, "sga", temperature)
    h = 1e-6
    expected = (sga(latents + h, temperature) - sga(latents - h, temperature)) / (2 * h)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)
    assert (gradient > 0).all()


def test_sga_gradient_is_finite_everywhere():
    latents = torch.tensor([0.0, 1e-7, 1e-6, 1e-5, 0.5, 1 - 1e-6, 1.0, -2.0]).repeat(1000)
    for temperature in (1.0, 0.1):
        _, gradient = value_and_gradient(latents, "sga", temperature)
        assert gradient.isfinite().all()


# ── schedule ──


def test_schedule_golden_values():
    schedule = QuantizeSchedule(SGA, num_steps=1000, anneal_fraction=0.9, final_temperature=0.1)
    found = [schedule.at(step) for step in (0, 225, 450, 899, 900, 999)]
    assert [quantizer.name for quantizer, _ in found] == ["sga"] * 4 + ["straight_through"] * 2
    expected = [1, 0.562341, 0.316228, 0.100256, 0.1, 0.1]
    assert [temperature for _, temperature in found] == pytest.approx(expected, rel=1e-5)
    # Plain numbers: they are logged and saved.
    assert {type(temperature) for _, temperature in found} == {float}


def test_schedule_is_a_pure_function_of_the_step():
    schedule = QuantizeSchedule(get_quantizer("noise"), num_steps=50, anneal_fraction=0.5)
    forward = [schedule.at(step) for step in range(50)]
    backward = [schedule.at(step) for step in reversed(range(50))]
    assert forward == backward[::-1]
    assert [quantizer.name for quantizer, _ in forward] == ["noise"] * 25 + [
        "straight_through"
    ] * 25


def test_schedule_at_its_ends():
    assert QuantizeSchedule(SGA, 10, anneal_fraction=0.0).at(0)[0].name == "straight_through"
    assert QuantizeSchedule(SGA, 10, anneal_fraction=1.0).at(9)[0] is SGA
    assert QuantizeSchedule(SGA, 10, final_temperature=1.0).at(5) == (SGA, 1.0)
    none = get_quantizer("none")
    assert {QuantizeSchedule(none, 10).at(step) for step in range(10)} == {(none, 1.0)}


@pytest.mark.parametrize(
    "numbers",
    [
        {"anneal_fraction": 1.1},
        {"anneal_fraction": -0.1},
        {"final_temperature": 0.0},
        {"final_temperature": 1.5},
        {"num_steps": 0},
    ],
)
def test_impossible_schedules_are_refused(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        QuantizeSchedule(**{"quantizer": SGA, "num_steps": 10, **numbers})


def test_binary_stays_binary():
    binary = get_quantizer("binary")
    schedule = QuantizeSchedule(binary, 100, 0.5)
    assert {schedule.at(step) for step in (0, 49, 50, 99)} == {(binary, 1.0)}


def test_the_tanh_of_the_reference_code_flips_integers():
    """method.md 4: with probability sigmoid(-tanh(1) / T), where arctanh flips none."""
    torch.manual_seed(0)
    integers = torch.zeros(200_000)
    flipped = (quantize(integers, "sga_tanh", 1.0) > 0.5).float().mean().item()
    assert flipped == pytest.approx(1 / (1 + math.exp(math.tanh(1.0))), abs=0.005)
    assert (quantize(integers, "sga", 1.0) > 0.5).float().mean() < 0.002
