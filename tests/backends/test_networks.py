"""Both networks over packed samples: the same as autograd in double precision."""

import math

import pytest
import torch

from shacira_nerfstudio.backends.reference import (
    MAX_LOG_DENSITY,
    color_network,
    density_network,
    density_of,
)

# Sizes of the layers: as in the defaults; odd ones that no tile or padding fits; no hidden colour
# layer; two of them.
SHAPES = {
    "default": dict(latents=(16, 1), hidden=64, geo=15, features=16, color=(64,)),
    "odd": dict(latents=(5, 2), hidden=7, geo=3, features=5, color=(9,)),
    "linear_color": dict(latents=(3, 1), hidden=8, geo=1, features=1, color=()),
    "two_color_layers": dict(latents=(2, 3), hidden=16, geo=7, features=9, color=(16, 12)),
}


def make_weights(shape, device="cpu", dtype=torch.float32):
    num_inputs, geo = math.prod(shape["latents"]), shape["geo"]
    sizes = {"density_mlp": [num_inputs, shape["hidden"], 1 + geo]}
    sizes["color_mlp"] = [shape["features"] + geo, *shape["color"], 3]
    weights = {}
    for network, widths in sizes.items():
        for index in range(len(widths) - 1):
            weight = torch.randn(widths[index + 1], widths[index]) / widths[index] ** 0.5
            weights[f"{network}.{index}.weight"] = weight
            weights[f"{network}.{index}.bias"] = torch.randn(widths[index + 1]) * 0.3
    return {name: w.to(device, dtype).requires_grad_() for name, w in weights.items()}


def make_inputs(shape, num_samples):
    """Latents, ray features, the ray of each sample, and an upstream gradient."""
    num_rays = 40
    latents = torch.randn(num_samples, *shape["latents"])
    features = torch.randn(num_rays, shape["features"])
    rays = torch.randint(num_rays, (num_samples,)).sort().values
    return latents, features, rays, (torch.randn(num_samples), torch.randn(num_samples, 3))


def gradients(shade, latents, features, weights, upstream):
    leaves = [latents.requires_grad_(), features.requires_grad_(), *weights.values()]
    sigma, rgb = shade(latents, features, weights)
    grads = torch.autograd.grad((sigma, rgb), leaves, [u.to(sigma) for u in upstream])
    return [v.detach().cpu().double() for v in (sigma, rgb, *grads)]


@pytest.mark.parametrize("num_samples", [0, 1, 127, 128, 8192 + 130])
@pytest.mark.parametrize("name", SHAPES)
def test_shade(backend, device, name, num_samples):
    shape = SHAPES[name]
    weights = make_weights(shape, device)
    latents, features, rays, upstream = make_inputs(shape, num_samples)

    def found(latents, features, weights):
        raw = backend.raw_density(latents, weights)
        return backend.shade(latents, raw, features, rays.to(device), weights)

    def expected(latents, features, weights):
        raw = density_network(latents, weights)
        return density_of(raw), color_network(torch.cat([features[rays], raw[:, 1:]], 1), weights)

    exact = {n: w.detach().cpu().double().requires_grad_() for n, w in weights.items()}
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
    raw = backend.raw_density(inputs[0], weights)
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
            raw = backend.raw_density(latents, weights)
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
        weights["density_mlp.1.bias"][0] = 200
    latents, features, rays, _ = make_inputs(shape, 4)
    latents = latents.to(device).requires_grad_()
    raw = backend.raw_density(latents, weights)
    sigma, _ = backend.shade(latents, raw, features.to(device), rays.to(device), weights)
    sigma.sum().backward()
    assert latents.grad.isfinite().all()
    bias = weights["density_mlp.1.bias"].grad[0].item()
    assert bias == pytest.approx(4 * math.exp(MAX_LOG_DENSITY), rel=1e-5)
