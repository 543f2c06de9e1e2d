"""Products with factors in bfloat16: what they are, and what networks make of them."""

import math

import numpy as np
import pytest
import torch
from synthetic_networks import SHAPES, gradients, make_inputs, make_weights

from shacira_nerfstudio.backends.networks import density_of

kernels = pytest.importorskip("shacira_nerfstudio.backends.cpu_numba.networks.bfloat16_kernels")
TILE = kernels.TILE


def rounded(x):
    return x.to(torch.bfloat16).to(x)


class RoundedLinear(torch.autograd.Function):
    """A layer whose products take rounded factors, in all three directions."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return rounded(x) @ rounded(weight).t() + bias

    @staticmethod
    def backward(ctx, d):
        x, weight = ctx.saved_tensors
        return rounded(d) @ rounded(weight), rounded(d).t() @ rounded(x), d.sum(0)


def network(x, layers):
    for index, layer in enumerate(layers):
        x = RoundedLinear.apply(x.relu() if index else x, *layer)
    return x


def tiles(rows, columns):
    values = (np.random.default_rng(0).normal(size=(n, TILE)) for n in (rows, columns))
    d, x = (v.astype(np.float32) for v in values)
    return d, x


@pytest.fixture(params=["this processor", "any processor"])
def compiled(request, monkeypatch):
    """The products with the instruction, if there is one here, and without."""
    import numba

    if request.param == "this processor":
        return kernels.multiply, kernels.add_outer
    monkeypatch.setattr(kernels, "HAS_BFLOAT16", False)
    return tuple(numba.njit(f.py_func) for f in (kernels.multiply, kernels.add_outer))


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (16, 64), (64, 28)])
def test_products_are_those_of_rounded_factors(compiled, rows, columns):
    multiply, add_outer = compiled
    d, x = tiles(rows, columns)
    weight = np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float32)
    exact = [rounded(torch.from_numpy(v)).double().numpy() for v in (weight, x, d)]

    before = np.arange(rows * TILE, dtype=np.float32) % 7
    y, pairs = before.copy(), np.empty(columns * TILE // 2, np.int32)
    kernels.pair_channels(x.ravel(), columns, pairs)
    # The matrix stands between other numbers.
    params = np.concatenate([np.full(8, np.nan, np.float32), weight.ravel()])
    multiply(kernels.bfloat16_pairs(params), 4, rows, columns, pairs, y)
    np.testing.assert_allclose(
        (y - before).reshape(rows, TILE), exact[0] @ exact[1], rtol=0, atol=1e-4
    )

    grads = np.full(8 + rows * columns, 5, np.float32)
    parts = [np.empty(n * TILE // 2, np.int32) for n in (rows, columns)]
    kernels.pair_samples(d.ravel(), rows, parts[0])
    kernels.pair_samples(x.ravel(), columns, parts[1])
    add_outer(*parts, rows, columns, grads, 8)
    assert (grads[:8] == 5).all()
    np.testing.assert_allclose(
        grads[8:].reshape(rows, columns) - 5, exact[2] @ exact[1].T, rtol=0, atol=1e-4
    )


def test_rounding_is_to_nearest_with_ties_to_even():
    values = torch.randn(4096) * torch.logspace(-20, 20, 4096)
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, -0.0, 2.0**-126])
    values = torch.cat([values, ties]).float()
    found = kernels.bfloat16_pairs(values.numpy()).view(np.uint16)
    expected = values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert (found == expected).all()
    for function, stride in ((kernels.pair_channels, TILE), (kernels.pair_samples, TILE // 2)):
        two, out = values[: 2 * TILE].numpy(), np.empty(2 * TILE // 2, np.int32)
        function(two, 2, out)
        low, high = (out & 0xFFFF), (out.view(np.uint32) >> 16)
        bits = expected[: 2 * TILE].reshape(-1, stride)
        assert (low == bits[::2].ravel()).all() and (high == bits[1::2].ravel()).all()


@pytest.mark.parametrize("num_samples", [0, 1, 8192 + 130])
@pytest.mark.parametrize("name", SHAPES)
def test_networks_with_rounded_factors(name, num_samples):
    from shacira_nerfstudio.backends.cpu_numba.backend import CpuNumbaBackend

    shape, backend = SHAPES[name], CpuNumbaBackend(2, precision="bfloat16")
    weights = make_weights(shape)
    latents, features, rays, upstream = make_inputs(shape, num_samples)

    def found(latents, features, weights):
        raw = backend.density_outputs(latents, weights)
        return backend.shade(latents, raw, features, rays, weights)

    def expected(latents, features, weights):
        raw = network(latents.flatten(1), weights.density)
        inputs = torch.cat([features[rays], raw[:, 1:]], 1)
        return density_of(raw), network(inputs, weights.color).sigmoid()

    exact = weights.map(lambda name, w: w.detach().double().requires_grad_())
    results = gradients(found, latents, features, weights, upstream)
    truth = gradients(expected, latents.double(), features.double(), exact, upstream)
    for f, e in zip(results, truth, strict=True):
        assert f.shape == e.shape
        # Where a float32 sum is on the other side of a tie, what follows differs by 2^-8 of itself.
        assert (f - e).norm() <= 2e-3 * e.norm()


def test_precision_is_asked_for_by_name(reference):
    from shacira_nerfstudio.backends import get_backend

    backend = get_backend("cpu_numba")
    assert backend.precision == "float32"
    assert backend.with_precision("bfloat16").precision == "bfloat16"
    assert backend.with_precision("bfloat16").num_threads == backend.num_threads
    fast = "bfloat16" if kernels.HAS_BFLOAT16 else "float32"
    assert backend.with_precision("auto").precision == fast
    assert reference.with_precision("auto") is reference
    with pytest.raises(ValueError, match="computes in float32"):
        reference.with_precision("bfloat16")


def test_half_the_digits_are_gone():
    # Else all of the above would hold for networks in float32, too.
    from shacira_nerfstudio.backends.cpu_numba.backend import CpuNumbaBackend

    shape = SHAPES["default"]
    weights, latents = make_weights(shape), torch.randn(500, *shape["latents"])
    long, short = (
        CpuNumbaBackend(1, precision=p).density_outputs(latents, weights)
        for p in ("float32", "bfloat16")
    )
    error = (long - short).norm() / long.norm()
    assert 1e-4 < error < 1e-2
    assert math.isfinite(float(short.sum()))
