"""A backend that brings the three required operations has all the others, and those that a backend
brings of its own equal them: values and gradients."""

import itertools

import pytest
import torch
from grids_of_all_kinds import GRIDS
from synthetic_inputs import coded_problem, logistic_problem
from synthetic_networks import SHAPES, gradients, make_inputs, make_weights
from synthetic_scenes import SETTINGS, Scene, make_rays

from shacira_nerfstudio.backends import AdamState, Backend, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.backends.sparse_rows import IDENTITY
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField
from shacira_nerfstudio.model.scene import Background, RadianceScene, SceneSettings
from shacira_nerfstudio.model.sparse_row_adam import SparseRowAdam

REQUIRED = {"interpolate", "march", "composite"}
# Single precision in another order, behind networks and sums over a ray.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SETTING_UP = {"with_precision", "with_fused_networks", "prepare_training"}
# Where it is more than march_visible it pads: test_triton_parity.py looks at what.
PADDING = {"sample_training_rays"}


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


def pixel_network(backend, device, grid):
    latents, *_ = make_inputs(SHAPES["odd"], 300)
    sizes = [latents.shape[1] * latents.shape[2], 6, 5, 3]
    shapes = [s for k, n in itertools.pairwise(sizes) for s in ((n, k), (n,))]
    leaves = [torch.randn(shape).to(device).requires_grad_() for shape in shapes]
    latents = latents.detach().to(device).requires_grad_()
    out = backend.pixel_network(latents, tuple(zip(leaves[::2], leaves[1::2], strict=True)))
    upstream = torch.randn(out.shape).to(device) / len(out)
    return [out, *torch.autograd.grad(out, [latents, *leaves], upstream)]


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


def limits_of(scene):
    """Of a crop box: some rays begin or end in the scene, some miss it."""
    begin = torch.rand(len(scene.rays[0])) * 3
    limits = torch.stack([begin, begin + torch.rand(len(begin)) * 2], 1)
    limits[::5] = 1e10
    return limits


def march_visible(backend, device, grid):
    scene, outputs = scene_of(grid), []
    jitter = torch.rand(len(scene.rays[0]))
    for settings, limits in itertools.product(SETTINGS.values(), (None, limits_of(scene))):
        found = scene.march_visible(
            backend,
            settings,
            device=device,
            jitter=jitter,
            quantizer=TableQuantizer("noise", 3),
            num_levels=3,
            limits=limits,
        )
        outputs += [found.packed_info, found.t_starts, found.t_ends, found.positions]
        outputs += [found.latents, found.density_outputs]
    return outputs


def render(backend, device, grid):
    scene, outputs = scene_of(grid), []
    for settings, limits in itertools.product(SETTINGS.values(), (None, limits_of(scene))):
        found = scene.render(
            backend,
            settings,
            device=device,
            quantizer=TableQuantizer("round"),
            num_levels=4,
            limits=limits,
        )
        outputs += [found.color, found.transmittance, found.last_color, found.distance / 50]
    return outputs


EXAMPLES = {
    f.__name__: f
    for f in (
        quantize,
        density_outputs,
        shade,
        pixel_network,
        logistic_bits,
        coded_bits,
        update_rows,
        march_visible,
        render,
    )
}


OF_RAYS = {"march_visible", "render"}
"""Rays have three axes; all other operations are tried on every grid."""


@pytest.mark.parametrize(
    ("operation", "tiny_grid"),
    [
        (operation, grid)
        for operation in EXAMPLES
        for grid in GRIDS
        if operation not in OF_RAYS or GRIDS[grid].num_dims == 3
    ],
    indirect=["tiny_grid"],
)
def test_an_override_equals_the_default(rival, device, tiny_grid, operation):
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
    assert operations == REQUIRED | SETTING_UP | PADDING | set(EXAMPLES)


# ── a backend without overrides ──


def test_three_operations_are_required():
    assert Backend.__abstractmethods__ == REQUIRED


def train(backend, device, grid):
    """Twenty steps of a scene of one colour per direction.

    Returns:
        The error before the first step and of each look after the last.
    """
    torch.manual_seed(3)
    shape = FieldShape(hidden_dim=16, geo_feat_dim=3, num_color_layers=1, sh_degree=2)
    field = RadianceField.create(
        grid, shape, backend, latent_dim=1, features_per_level=2, quantizer="noise"
    )
    march, white = SETTINGS["affine"], Background.named("white")
    settings = SceneSettings(march, march, white, early_stop=1e-3)
    scene = RadianceScene(field, OccupancyGrid(8), settings).to(device)
    origins, directions = (v.to(device) for v in make_rays(60))
    target = (directions / 4 + 0.25).abs()
    latents = field.encoding.latents
    others = [p for p in scene.parameters() if p is not latents and p.requires_grad]
    optimizers = SparseRowAdam([latents], lr=0.05), torch.optim.Adam(others, lr=0.02)
    errors = []
    for step in range(20):
        rendered, _ = scene.train_rays(origins, directions, observe_weights=True)
        error = (white.behind(rendered) - target).square().mean()
        (error + 1e-6 * field.encoding.bits(fraction=0.5)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 8 == 7:
            scene.update_occupancy(everywhere=True)
        errors.append(float(error.detach()))
    scene.eval()
    colors = scene.render_colors(origins, directions)
    return errors[0], errors[-1], float((colors - target).square().mean())


def test_three_operations_train_and_render_a_scene(backend, device, tiny_grid_3d):
    before, after, looked_at = train(RequiredOnly(backend), device, tiny_grid_3d)
    assert after < 0.5 * before
    assert looked_at < 0.7 * before
    # 0.1 dB is a factor of 1.02.
    own = train(backend, device, tiny_grid_3d)
    assert (before, after, looked_at) == pytest.approx(own, rel=0.02)


def test_a_backend_without_networks_of_its_own_computes_in_float32(backend):
    dummy = RequiredOnly(backend)
    assert dummy.with_precision("auto") is dummy
    with pytest.raises(ValueError, match="required_only computes in float32"):
        dummy.with_precision("bfloat16")
    assert dummy.with_fused_networks() is dummy
