"""Models of the rate: code lengths, learned densities, and what signs cost."""

import itertools
import math

import pytest
import torch

from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.encoding import LatentHashEncoding
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.rate_models import (
    LARGEST_VALUE,
    Bernoulli,
    CodeLengths,
    Learned,
    make_rate_model,
)


@pytest.mark.parametrize(
    ("name", "quantizer", "expected"),
    [
        ("code_lengths", "sga", CodeLengths),
        ("learned", "sga", Learned),
        ("code_lengths", "binary", Bernoulli),
        ("learned", "binary", Bernoulli),
        # Without a quantiser there is no rate.
        ("code_lengths", "none", Learned),
    ],
)
def test_signs_and_integers_have_models_of_their_own(name, quantizer, expected):
    density = FactorizedEntropyModel(3, 2)
    model = make_rate_model(name, density, get_quantizer(quantizer))
    assert type(model) is expected
    # What trains is an optimiser's: a file's tables are looked up, not learned.
    is_learned = [p.requires_grad for p in model.parameters()]
    assert any(is_learned) == all(is_learned) == (expected is not CodeLengths)


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="got 'tables'"):
        make_rate_model("tables", FactorizedEntropyModel(3, 2), get_quantizer("sga"))


# ── code lengths ──


def make_encoding(backend, grid):
    density = FactorizedEntropyModel(grid.num_levels, 2)
    return LatentHashEncoding(
        grid,
        backend,
        latent_decoder=LatentDecoder(grid.num_levels, 2, 3),
        rate_model=make_rate_model("code_lengths", density, get_quantizer("round")),
        init_std=2.0,
    )


@pytest.fixture
def encoding(backend, device, tiny_grid):
    return make_encoding(backend, tiny_grid).to(device)


def with_tables(encoding, bins_per_unit=1):
    """A value of a level costs 1 bit at 0 and ``level + 2`` a unit away."""
    num_levels, model = encoding.grid.num_levels, encoding.rate_model
    half = LARGEST_VALUE * bins_per_unit
    units = torch.arange(-half, half + 1).abs() / bins_per_unit
    steps = units * torch.arange(2.0, num_levels + 2)[:, None]
    classes = torch.zeros(encoding.latents.shape, dtype=torch.int16)
    classes[::3] = -1
    model.install(1 + steps, classes, torch.arange(num_levels, dtype=torch.int32))
    assert model.classes.device == encoding.latents.device
    assert model.bins_per_unit == bins_per_unit
    return encoding


@pytest.mark.parametrize("bins_per_unit", [1, 4])
def test_tables_say_what_rounded_latents_cost(encoding, bins_per_unit):
    with_tables(encoding, bins_per_unit)
    expected = 0.0
    for level, (begin, end) in enumerate(itertools.pairwise(encoding.grid.offsets)):
        coded = torch.arange(begin, end) % 3 != 0
        values = encoding.latents.detach().cpu()[begin:end][coded].round().abs()
        expected += (1 + (level + 2) * values).sum().item()
    assert encoding.bits().item() == pytest.approx(expected, rel=1e-5)
    encoding.bits().backward()
    assert not encoding.latents.grad[::3].any()
    assert encoding.latents.grad[1::3].any(1).float().mean() > 0.95
    for parameter in encoding.rate_model.parameters():
        assert parameter.grad is None


def test_before_the_first_tables_densities_say_what_latents_cost(encoding):
    assert not encoding.rate_model.is_installed
    torch.manual_seed(1)
    found = encoding.bits()
    torch.manual_seed(1)
    before = encoding.rate_model.before
    assert torch.equal(found, before.bits(encoding.latents, encoding.grid, encoding.backend))


def test_tables_are_part_of_a_checkpoint(backend, tiny_grid):
    encoding = with_tables(make_encoding(backend, tiny_grid), 4)
    other = make_encoding(backend, tiny_grid)
    other.load_state_dict(encoding.state_dict())
    assert other.bits().item() == encoding.bits().item()
    assert other.rate_model.bins_per_unit == 4
    # And back: one without tables has none afterwards.
    other.load_state_dict(make_encoding(backend, tiny_grid).state_dict())
    assert not other.rate_model.is_installed


@pytest.mark.parametrize("width", [1, 126, 128, 2 * 126])
def test_tables_of_another_width_are_refused(width):
    density = FactorizedEntropyModel(1, 1)
    model = make_rate_model("code_lengths", density, get_quantizer("round"))
    with pytest.raises(ValueError, match=f"got {width}"):
        model.install(
            torch.ones(1, width), torch.zeros(8, 1, dtype=torch.int16), torch.zeros(1).int()
        )


# ── signs ──


def model_with(probability_below):
    """One level, one channel."""
    density = FactorizedEntropyModel(1, 1)
    with torch.no_grad():
        density.shift.fill_(math.log(probability_below / (1 - probability_below)))
    return Bernoulli(density)


def test_bits_are_those_of_the_bernoulli():
    latents = torch.tensor([[-0.3], [0.2], [2.0], [0.0]])
    bits = model_with(0.2).bits_of_signs(latents, 0)
    assert bits.item() == pytest.approx(-math.log2(0.2) - 3 * math.log2(0.8), rel=1e-5)


def test_it_pulls_signs_to_the_likely_one_and_the_probability_to_the_signs():
    latents = torch.tensor([[-0.3], [0.2], [2.0], [0.4]], requires_grad=True)
    model = model_with(0.2)
    model.bits_of_signs(latents, 0).backward()
    assert (latents.grad < 0).all()  # downhill is up: 1 is the likely sign
    # A quarter of the signs is below 0, more than 0.2: downhill raises the probability.
    assert model.density.shift.grad.item() < 0


def test_the_encoding_uses_it_and_never_rounds_to_zero(make_field):
    options = {"latent_dim": 2, "features_per_level": 2, "identity_decoder": True}
    encoding = make_field(quantizer="binary", **options).encoding
    with torch.no_grad():
        encoding.latents.mul_(1e-3)
    assert set(encoding.rounded().unique().tolist()) == {-1, 1}
    encoding.train()
    assert set(encoding.table().rows.unique().tolist()) == {-1, 1}
    whole = encoding.bits()
    assert whole.item() == pytest.approx(encoding.latents.numel(), rel=0.01)  # a bit each
    parts = torch.stack([encoding.bits(fraction=0.25) for _ in range(200)])
    assert parts.mean().item() == pytest.approx(whole.item(), rel=0.02)
    whole.backward()
    assert encoding.latents.grad is not None
    encoding.set_quantizer(get_quantizer("straight_through"))
    assert not encoding.rounded().any()


def test_touched_rows_estimate_all_bits(backend):
    grid = GridSpec(2, ((3, 4), (9, 13), (17, 25)), (16, 120, 432))
    torch.manual_seed(0)
    latents = (torch.randn(grid.num_entries, 1) * 2).requires_grad_()
    model = CodeLengths(Learned(FactorizedEntropyModel(3, 1)))
    lengths = torch.rand(3, 2 * 63 + 1) + torch.arange(-63, 64).abs()
    model.install(
        lengths, torch.zeros(grid.num_entries, 1, dtype=torch.int16), torch.arange(3).int()
    )
    everything = torch.ones(grid.num_entries, dtype=torch.bool)
    total = model.bits(latents, grid, backend)
    found = model.bits_of_touched(latents, grid, backend, everything)
    assert float(found.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    some = torch.rand(grid.num_entries) < 0.4
    bits = model.bits_of_touched(latents, grid, backend, some)
    (gradient,) = torch.autograd.grad(bits, latents)
    (whole,) = torch.autograd.grad(total, latents)
    assert not gradient[~some].any()
    for begin, end in itertools.pairwise(grid.offsets):
        share = float(some[begin:end].float().mean())
        rows = some[begin:end]
        torch.testing.assert_close(share * gradient[begin:end][rows], whole[begin:end][rows])
    assert float(bits.detach()) == pytest.approx(float(total.detach()), rel=0.2)
