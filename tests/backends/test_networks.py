"""Both networks over packed samples: the same as autograd in double precision."""

import math

import pytest
import torch
from synthetic_networks import SHAPES, gradients, make_inputs, make_weights

from shacira_nerfstudio.backends.networks import (
    MAX_LOG_DENSITY,
    color_network,
    density_network,
    density_of,
)


@pytest.mark.parametrize("num_samples", [0, 1, 127, 128, 8192 + 130])
@pytest.mark.parametrize("name", SHAPES)
def test_shade(backend, device, name, num_samples):
    shape = SHAPES[name]
    weights = make_weights(shape, device)
    latents, features, rays, upstream = make_inputs(shape, num_samples)

    def found(latents, features, weights):
        raw = backend.density_outputs(latents, weights)
        return backend.shade(latents, raw, features, rays.to(device), weights)

    def expected(latents, features, weights):
        raw = density_network(latents, weights)
        return density_of(raw), color_network(torch.cat([features[rays], raw[:, 1:]], 1), weights)

    exact = weights.map(lambda name, w: w.detach().cpu().double().requires_grad_())
    results = gradients(found, latents.to(device), features.to(device), weights, upstream)
    truth = gradients(expected, latents.double(), features.double(), exact, upstream)
    for f, e in zip(results, truth, strict=True):
        assert f.shape == e.shape
        # Gradients of weights add up 8000 samples in single precision, and a hidden unit within
        # 1e-6 of zero may be on in one and off in the other.
        scale = e.abs().max().item() if e.numel() else 0.0
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5 + 1e-5 * scale)


def test_shade_without_gradients_equals_shade_with_them(backend, device):
    shape = SHAPES["default"]
    weights = make_weights(shape, device)
    latents, features, rays, _ = make_inputs(shape, 300)
    inputs = latents.to(device), features.to(device), rays.to(device)
    raw = backend.density_outputs(inputs[0], weights)
    with_graph = backend.shade(inputs[0], raw, *inputs[1:], weights)
    with torch.no_grad():
        without = backend.shade(inputs[0], raw, *inputs[1:], weights)
    for a, b in zip(with_graph, without, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-6, atol=1e-6)
        assert a.requires_grad
        assert not b.requires_grad


def test_threads_do_not_change_gradients():
    backends = pytest.importorskip("shacira_nerfstudio.backends.cpu_numba.backend")
    shape = SHAPES["default"]
    weights = make_weights(shape)
    latents, features, rays, upstream = make_inputs(shape, 3 * 8192 + 1)
    results = []
    for num_threads in (1, 2, 3):
        backend = backends.CpuNumbaBackend(num_threads)

        def run(latents, features, weights, backend=backend):
            raw = backend.density_outputs(latents, weights)
            return backend.shade(latents, raw, features, rays, weights)

        results.append(gradients(run, latents, features, weights, upstream))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_density_is_exp_and_stays_finite():
    raw = torch.tensor([[-200.0], [-1], [0], [2], [14], [200]])
    expected = [0, math.exp(-1), 1, math.exp(2), math.exp(14), math.exp(MAX_LOG_DENSITY)]
    assert density_of(raw).tolist() == pytest.approx(expected, rel=1e-6)


def test_gradient_of_a_huge_density_is_finite_and_not_zero(backend, device):
    shape = SHAPES["odd"]
    weights = make_weights(shape, device)
    with torch.no_grad():
        weights.density[1][1][0] = 200
    latents, features, rays, _ = make_inputs(shape, 4)
    latents = latents.to(device).requires_grad_()
    raw = backend.density_outputs(latents, weights)
    sigma, _ = backend.shade(latents, raw, features.to(device), rays.to(device), weights)
    sigma.sum().backward()
    assert latents.grad.isfinite().all()
    bias = weights.density[1][1].grad[0].item()
    assert bias == pytest.approx(4 * math.exp(MAX_LOG_DENSITY), rel=1e-5)
