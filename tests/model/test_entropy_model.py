"""The density of the latents: a distribution, with tails, that learns what it is shown."""

import math

import pytest
import torch

from shacira_nerfstudio.model.entropy_model import MAX_BITS, FactorizedEntropyModel

CASES = [(1, False), (1, True), (2, False), (3, False), (3, True)]


def make_model(num_layers, shared, *, spread=1.0):
    """A model away from its start, so that no symmetry hides a mistake."""
    model = FactorizedEntropyModel(4, 2, num_layers=num_layers, shared=shared)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * spread)
    return model.double()


@pytest.mark.parametrize(("num_layers", "shared"), CASES)
def test_cdf_rises_from_0_to_1(num_layers, shared):
    model = make_model(num_layers, shared)
    x = torch.linspace(-1000, 1000, 20001, dtype=torch.float64)[:, None].expand(-1, 2)
    for level in range(4):
        cdf = model.cdf(x, level)
        assert (cdf.diff(dim=0) >= 0).all()
        assert (cdf[0] < 1e-9).all()
        assert (cdf[-1] > 1 - 1e-9).all()
        middle = (cdf > 0.01) & (cdf < 0.99)
        assert (cdf.diff(dim=0)[middle[1:] & middle[:-1]] > 0).all()


@pytest.mark.parametrize(("num_layers", "shared"), CASES)
def test_pmf_sums_to_one_and_is_the_difference_of_the_cdf(num_layers, shared):
    model = make_model(num_layers, shared)
    values = torch.arange(-3000.0, 3001, dtype=torch.float64)[:, None].expand(-1, 2)
    for level in range(4):
        pmf = model.pmf(values, level)
        assert (pmf >= 0).all()
        torch.testing.assert_close(pmf.sum(0), torch.ones(2, dtype=torch.float64))
        difference = model.cdf(values + 0.5, level) - model.cdf(values - 0.5, level)
        # The naive difference of numbers near 1 is good to 1e-16.
        torch.testing.assert_close(pmf, difference, rtol=0, atol=1e-15)


def logistic_pmf(values, scale, shift):
    """Closed form of sigmoid((v + 1/2) s + b) - sigmoid((v - 1/2) s + b)."""
    half, middle = scale / 2, values * scale + shift
    return torch.sinh(half) / (torch.cosh(middle) + torch.cosh(half))


@pytest.mark.parametrize("shared", [False, True])
def test_one_layer_is_a_logistic_distribution(shared):
    model = make_model(1, shared)
    values = torch.linspace(-30, 30, 101, dtype=torch.float64)[:, None].expand(-1, 2)
    for level in range(4):
        row = 0 if shared else level
        scale = torch.log1p(torch.exp(model.scale[0, row]))
        expected = logistic_pmf(values, scale, model.shift[0, row])
        torch.testing.assert_close(model.pmf(values, level), expected, rtol=1e-9, atol=0)
        expected = -torch.log2(expected + 1e-10)
        torch.testing.assert_close(model.bits(values, level), expected, rtol=1e-9, atol=0)
    scale, shift = model.logistic()
    torch.testing.assert_close(model.cdf(values, 0), torch.sigmoid(values * scale[0] + shift[0]))


def test_only_one_layer_is_logistic():
    with pytest.raises(ValueError, match="one layer, got 2"):
        make_model(2, False).logistic()


def test_tails_keep_their_digits_in_single_precision():
    model = FactorizedEntropyModel(1, 1).float()
    with torch.no_grad():
        model.scale.fill_(math.log(math.e - 1))  # softplus of it is 1
        model.shift.zero_()
    values = torch.tensor([-80.0, -40, -17, 0, 17, 40, 80])[:, None]
    one = torch.ones(1, dtype=torch.float64)
    expected = logistic_pmf(values.double(), one, 0 * one)
    # Down to 1e-35; the exponent itself is good to 80 * 6e-8.
    torch.testing.assert_close(model.pmf(values, 0).double(), expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize(("num_layers", "shared"), CASES)
def test_outliers_cost_much_but_nothing_breaks(num_layers, shared):
    model = make_model(num_layers, shared).float()
    values = torch.tensor([-1e6, -1e4, -300, 300, 1e4, 1e6])[:, None].expand(-1, 2)
    values = values.clone().requires_grad_()
    bits = model.bits(values, 1)
    assert (bits >= 0).all()
    assert (bits <= MAX_BITS).all()
    assert (bits[[0, -1]] > 33).all()  # -log2(1e-10) = 33.2
    bits.sum().backward()
    for leaf in (values, model.scale, model.shift, *([model.bend] if num_layers > 1 else [])):
        assert leaf.grad.isfinite().all()


def test_the_rate_pulls_towards_the_mode():
    model = FactorizedEntropyModel(1, 1)
    values = torch.tensor([[-20.0], [-3.0], [3.0], [20.0]], requires_grad=True)
    model.bits(values, 0).sum().backward()
    assert (values.grad.sign() == values.sign()).all()
    # Bits of a logistic grow linearly: the pull does not fade with distance.
    assert (values.grad.abs() > 0.5).all()


def test_a_level_has_its_own_parameters_unless_shared():
    values = torch.randn(10, 2, dtype=torch.float64)
    model = make_model(2, False)
    model.bits(values, 2).sum().backward()
    touched = model.scale.grad.abs().sum((0, 2)) > 0
    assert touched.tolist() == [False, False, True, False]
    shared = make_model(2, True)
    assert shared.scale.shape == (2, 1, 2)
    assert torch.equal(shared.bits(values, 0), shared.bits(values, 3))


def discretised_laplacian(scale, count):
    """Rounded draws, and the entropy of rounded values in bits."""
    draws = torch.distributions.Laplace(0.0, scale).sample((count, 1)).round()
    k = torch.arange(-200, 201, dtype=torch.float64)
    cdf = torch.distributions.Laplace(
        torch.zeros((), dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
    ).cdf
    p = (cdf(k + 0.5) - cdf(k - 0.5)).clamp_min(1e-300)
    return draws, float(-(p * p.log2()).sum())


def fit(model, samples):
    """Mean bits of the samples of each level after training on them."""
    histograms = [values.unique(return_counts=True) for values in samples]

    def mean_bits():
        return torch.stack(
            [
                (model.bits(values[:, None], level)[:, 0] * counts / counts.sum()).sum()
                for level, (values, counts) in enumerate(histograms)
            ]
        )

    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        mean_bits().sum().backward()
        optimizer.step()
    return mean_bits().tolist()


@pytest.mark.parametrize(("num_layers", "excess"), [(1, 0.04), (3, 0.03)])
def test_training_approaches_the_entropy(num_layers, excess):
    data = [discretised_laplacian(scale, 4000) for scale in (0.5, 4.0)]
    model = FactorizedEntropyModel(2, 1, num_layers=num_layers)
    for bits, (values, entropy) in zip(fit(model, [d for d, _ in data]), data, strict=True):
        share = values.unique(return_counts=True)[1] / len(values)
        empirical = float(-(share * share.log2()).sum())
        # No model beats the samples' own entropy; a logistic misses a Laplacian by a few percent.
        assert empirical - 1e-5 <= bits <= entropy * (1 + excess)


def test_one_density_for_all_levels_costs_more():
    samples = [discretised_laplacian(scale, 2000)[0] for scale in (0.3, 6.0)]
    separate = sum(fit(FactorizedEntropyModel(2, 1), samples))
    shared = sum(fit(FactorizedEntropyModel(2, 1, shared=True), samples))
    assert shared > separate + 0.3


def test_impossible_numbers_of_layers_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        FactorizedEntropyModel(2, 1, num_layers=0)
