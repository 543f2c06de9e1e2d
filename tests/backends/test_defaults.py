"""A backend that brings the three required operations has all the others, and those that a backend
brings of its own equal them: values and gradients."""

import pytest
import torch
from synthetic_inputs import coded_problem, logistic_problem
from synthetic_networks import SHAPES, gradients, make_inputs, make_weights
from synthetic_scenes import SETTINGS, Scene

from shacira_nerfstudio.backends import AdamState, Backend, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.backends.sparse_rows import IDENTITY

REQUIRED = {"interpolate", "march", "composite"}
# Single precision in another order, behind networks and sums over a ray.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SETTING_UP = {"with_precision", "prepare_training"}


class RequiredOnly(Backend):
    """Another backend's required operations, and the defaults for all others."""

    name = "required_only"

    def __init__(self, backend):
        self.backend = backend

    def interpolate(self, x, table, grid, *, quantizer=IDENTITY, values=None, gradient=None):
        return self.backend.interpolate(
            x, table, grid, quantizer=quantizer, values=values, gradient=gradient
        )

    def march(self, origins, directions, occupancy, settings, **options):
        return self.backend.march(origins, directions, occupancy, settings, **options)

    def composite(self, sigmas, rgbs, t_starts, t_ends, packed_info):
        return self.backend.composite(sigmas, rgbs, t_starts, t_ends, packed_info)


# ── what a backend overrides ──


def quantize(backend, device, grid):
    table = (torch.randn(grid.num_entries, 3) * 3).to(device)
    return [
        backend.quantize(table, TableQuantizer(mode, 11)) for mode in ("none", "round", "noise")
    ]


def density_outputs(backend, device, grid):
    shape = SHAPES["odd"]
    latents, *_ = make_inputs(shape, 300)
    return [backend.density_outputs(latents.to(device), make_weights(shape, device))]


def shade(backend, device, grid):
    shape = SHAPES["two_color_layers"]
    latents, features, rays, upstream = make_inputs(shape, 300)

    def both(latents, features, weights):
        outputs = backend.density_outputs(latents, weights)
        return backend.shade(latents, outputs, features, rays.to(device), weights)

    weights = make_weights(shape, device)
    return gradients(both, latents.to(device), features.to(device), weights, upstream)


def logistic_bits(backend, device, grid):
    leaves = [v.to(device).requires_grad_() for v in logistic_problem(grid, grid.num_levels)]
    leaves[0].data.clamp_(-6, 6)  # beyond, probabilities have few digits
    bits = backend.logistic_bits(*leaves, grid, seed=7, first=1, stride=3)
    return [bits, *torch.autograd.grad(bits, leaves)]


def coded_bits(backend, device, grid):
    latents, *tables = (v.to(device) for v in coded_problem(grid, 9))
    latents.clamp_(-6, 6).requires_grad_()
    bits = backend.coded_bits(latents, *tables, grid, bins_per_unit=2, first=1, stride=3)
    return [bits, *torch.autograd.grad(bits, [latents])]


def update_rows(backend, device, grid):
    parameter = torch.randn(grid.num_entries, 2).to(device)
    moments = torch.zeros(grid.num_entries, 2, 2).to(device)
    state = AdamState(moments, torch.zeros(len(moments), dtype=torch.int16).to(device))
    for _ in range(3):
        grad = torch.randn(parameter.shape) * (torch.rand(len(parameter), 1) < 0.3)
        gradient = SparseRowGradient.of(grad.to(device))
        options = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-15, "weight_decay": 0.01}
        backend.update_rows(parameter, gradient, state, **options)
    return [parameter, state.moments, state.num_updates, gradient.values, gradient.touched]


def scene_of(grid):
    scene = Scene(grid, channels=2, dtype=torch.float32, density=3.0)
    scene.table += torch.rand(scene.table.shape) * 0.8 - 0.4
    return scene


def march_visible(backend, device, grid):
    scene, outputs = scene_of(grid), []
    jitter = torch.rand(len(scene.rays[0]))
    for settings in SETTINGS.values():
        found = scene.march_visible(
            backend,
            settings,
            device=device,
            jitter=jitter,
            quantizer=TableQuantizer("noise", 3),
            num_levels=3,
        )
        outputs += [found.packed_info, found.t_starts, found.t_ends, found.positions]
        outputs += [found.latents, found.density_outputs]
    return outputs


def render(backend, device, grid):
    scene, outputs = scene_of(grid), []
    for settings in SETTINGS.values():
        found = scene.render(
            backend, settings, device=device, quantizer=TableQuantizer("round"), num_levels=4
        )
        outputs += [found.color, found.transmittance, found.last_color, found.distance / 50]
    return outputs


EXAMPLES = {
    f.__name__: f
    for f in (
        quantize,
        density_outputs,
        shade,
        logistic_bits,
        coded_bits,
        update_rows,
        march_visible,
        render,
    )
}


@pytest.mark.parametrize("operation", EXAMPLES)
def test_an_override_equals_the_default(rival, device, tiny_grid, operation):
    if operation in ("march_visible", "render") and tiny_grid.num_dims == 2:
        pytest.skip("rays have three axes")
    results = []
    for backend in (rival, RequiredOnly(rival)):
        torch.manual_seed(1)
        results.append(EXAMPLES[operation](backend, device, tiny_grid))
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, **CLOSE)


def test_every_operation_has_an_example():
    operations = {
        name
        for kind in Backend.__mro__
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    }
    assert operations == REQUIRED | SETTING_UP | set(EXAMPLES)


# ── a backend without overrides ──


def test_three_operations_are_required():
    assert Backend.__abstractmethods__ == REQUIRED


def train(backend, device, scene, settings, target):
    """Twenty steps, from the samples that light reaches to Adam.

    Returns:
        The loss of each step, and the error of what is rendered then.
    """
    scene.table = torch.zeros(scene.grid.num_entries, 1).requires_grad_()
    scene.weights = scene.weights.map(lambda name, w: w.detach().clone().requires_grad_())
    optimizer = torch.optim.Adam([scene.table, *scene.weights.named().values()], lr=0.02)
    *rays, cells, features = (v.to(device) for v in (*scene.rays, scene.cells, scene.features))
    scale, shift = torch.ones(1, 1).to(device), torch.zeros(1, 1).to(device)
    losses, field = [], scene.field(device=device)
    for _ in range(20):
        found = backend.march_visible(*rays, cells, settings, field, early_stop=1e-3)
        positions, latents = found.positions, found.latents
        latents = backend.interpolate(positions, field.table, field.grid, values=latents)
        info = found.packed_info
        ray_indices = torch.repeat_interleave(info[:, 1], output_size=len(positions))
        sigmas, rgbs = backend.shade(
            latents, found.density_outputs, features, ray_indices, field.weights
        )
        color, *_ = backend.composite(sigmas, rgbs, found.t_starts, found.t_ends, info)
        bits = backend.logistic_bits(field.table, scale, shift, field.grid, seed=1)
        loss = (color - target).square().mean() + 1e-6 * bits
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        field = scene.field(device=device)
    rendered = backend.render(
        *rays, cells, settings, field, features, early_stop=1e-4, min_weight=0.0
    )
    return losses, float((rendered.color - target).square().mean())


def test_three_operations_train_a_field(backend, device, tiny_grid_3d):
    scene = Scene(tiny_grid_3d, density=1.0, share=1.0, count=30)
    target = (scene.rays[1] / 4 + 0.25).abs().to(device)
    weights, settings = scene.weights, SETTINGS["affine"]
    losses, error = train(RequiredOnly(backend), device, scene, settings, target)
    assert losses[-1] < 0.5 * losses[0]
    assert error < 0.5 * losses[0]
    scene.weights = weights
    own_losses, own_error = train(backend, device, scene, settings, target)
    assert losses == pytest.approx(own_losses, rel=1e-2)
    assert error == pytest.approx(own_error, rel=2e-2)


def test_a_backend_without_networks_of_its_own_computes_in_float32(backend):
    dummy = RequiredOnly(backend)
    assert dummy.with_precision("auto") is dummy
    with pytest.raises(ValueError, match="required_only computes in float32"):
        dummy.with_precision("bfloat16")
