"""Rendering against scenes whose picture is known, and the two ways of it against each other."""

import importlib
import math

import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends import MarchSettings, composed
from shacira_nerfstudio.backends.composed import sample_weights
from shacira_nerfstudio.backends.geometry import spacing
from shacira_nerfstudio.model import volrend
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.radiance_field import FieldShape
from shacira_nerfstudio.model.volrend import (
    blend_background,
    distortion,
    render_rays,
    render_train,
)

RENDER_KERNELS = "shacira_nerfstudio.backends.cpu_numba.rays.render"
UNIT_BOX = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SETTINGS = MarchSettings("affine", UNIT_BOX, near=0.0, far=10.0, step_size=0.02)
CONTRACTED = MarchSettings("contracted", UNIT_BOX, near=0.01, far=100.0, step_size=0.03, knee=1.0)


def make_rays(count=60):
    """Rays from a sphere around the box towards its middle; the last one misses."""
    origins = 0.5 + 2 * F.normalize(torch.randn(count, 3), dim=-1)
    target = 0.3 + 0.4 * torch.rand(count, 3)
    directions = F.normalize(target - origins, dim=-1)
    directions[-1] = -directions[-1]
    return origins, directions


@pytest.fixture
def full(device):
    return torch.ones(8, 8, 8, dtype=torch.bool, device=device)


@pytest.fixture
def no_jitter(monkeypatch):
    monkeypatch.setattr(torch, "rand", torch.zeros)


@pytest.fixture
def uniform_field(tiny_field):
    """The field made to have one density and one colour everywhere."""

    def make(density, color=(0.2, 0.4, 0.8)):
        with torch.no_grad():
            for layer in (*tiny_field.density_mlp, *tiny_field.color_mlp):
                layer.weight.zero_()
                layer.bias.zero_()
            tiny_field.density_mlp[1].bias[0] = math.log(density) if density else -1e3
            tiny_field.color_mlp[-1].bias.copy_(torch.logit(torch.tensor(color)))
        return tiny_field

    return make


def both_ways(field, occupancy, settings, rays, **options):
    """The same rays as for looking and as for training."""
    rays = [v.to(occupancy.device) for v in rays]
    yield render_rays(field, occupancy, settings, *rays, **options)
    rendered, cut = render_train(field, occupancy, settings, *rays, **options)
    assert not cut.any()
    yield rendered


# ── known pictures ──


@pytest.mark.parametrize("settings", [SETTINGS, CONTRACTED], ids=lambda s: s.contraction)
def test_no_density_gives_the_background(uniform_field, full, settings):
    field, rays = uniform_field(0), make_rays()
    for rendered in both_ways(field, full, settings, rays):
        assert not rendered.color.any()
        assert not rendered.accumulation.any()
        white = blend_background(rendered, torch.ones(3, device=full.device))
        assert (white == 1).all()
        # Where the ray leaves the box, or at far.
        origins, directions = rays
        t = rendered.depth.cpu()
        if settings is CONTRACTED:
            assert (t == 100).all()
        else:
            end = (origins + t[:, None] * directions)[:-1]
            on_border = torch.minimum(end.abs(), (end - 1).abs()).amin(1)
            assert (on_border < 1e-5).all()
            assert ((end > -1e-5) & (end < 1 + 1e-5)).all()


def test_no_occupied_cell_gives_the_background(uniform_field, full):
    for rendered in both_ways(uniform_field(50), ~full, SETTINGS, make_rays()):
        assert rendered.num_marched == 0
        assert not rendered.color.any()
        assert not rendered.last_color.any()


def test_no_rays(tiny_field, full):
    none = torch.zeros(0, 3)
    for rendered in both_ways(tiny_field, full, SETTINGS, (none, none)):
        assert rendered.color.shape == (0, 3)
        assert rendered.depth.shape == (0,)


@pytest.mark.parametrize("wall", [2, 5])
def test_an_opaque_wall_gives_its_distance(uniform_field, full, wall):
    full[:wall] = False
    y, z = torch.rand(2, 30)
    origins = torch.stack([torch.full((30,), -1.0), y, z], 1)
    directions = torch.tensor([[1.0, 0, 0]]).expand(30, 3)
    field = uniform_field(3e6)
    for rendered in both_ways(field, full, SETTINGS, (origins, directions)):
        torch.testing.assert_close(rendered.accumulation.cpu(), torch.ones(30))
        # The first sample whose middle is in the wall begins up to half a step before it.
        depth = rendered.depth.cpu() - (1 + wall / 8)
        assert ((depth >= -1e-5) & (depth <= SETTINGS.step_size + 1e-5)).all()
        colors = rendered.color.cpu()
        torch.testing.assert_close(colors, torch.tensor([0.2, 0.4, 0.8]).expand(30, 3))


def test_fog_follows_beer_and_lambert(uniform_field, full):
    density = 1.7
    origins = torch.tensor([[-1.0, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 2.0, 0.3]])
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    length = torch.tensor([1.0, 0.5, 1.0])
    field = uniform_field(density)
    rendered = render_rays(
        field, full, SETTINGS, origins.to(full.device), directions.to(full.device), early_stop=0.0
    )
    expected = 1 - torch.exp(-density * length)
    # The box is 50 and 25 steps deep; a border on a step may take one more or less.
    slack = density * SETTINGS.step_size
    assert ((rendered.accumulation.cpu() - expected).abs() < slack * (1 - expected) + 1e-5).all()
    torch.testing.assert_close(
        rendered.color,
        rendered.accumulation[:, None] * torch.tensor([0.2, 0.4, 0.8]).to(full.device),
    )
    # Mean of an exponential cut at the length, from where the ray enters.
    optical = density * length
    mean = 1 / density - length / torch.expm1(optical)
    entry = torch.tensor([1.0, 0.0, 1.0])
    assert (rendered.depth.cpu() - entry - mean).abs().max() < SETTINGS.step_size


def test_depth_of_an_unbounded_ray_is_finite(uniform_field, full):
    far = MarchSettings("contracted", UNIT_BOX, near=0.0, far=1e6, step_size=0.1, knee=1.0)
    rendered = next(both_ways(uniform_field(0), full, far, make_rays(3)))
    assert (rendered.depth == volrend.MAX_EMPTY_DEPTH).all()


# ── laws ──


@pytest.mark.parametrize("settings", [SETTINGS, CONTRACTED], ids=lambda s: s.contraction)
def test_both_ways_give_the_same_picture(tiny_field, full, no_jitter, settings):
    full[torch.randint(2, (8, 8, 8)) == 0] = False
    looking, training = both_ways(tiny_field, full, settings, make_rays(), early_stop=0.0)
    assert float(looking.accumulation.mean()) > 0.1
    assert looking.num_samples == training.num_samples == training.num_marched
    for name in ("color", "accumulation", "last_color"):
        # Sums of up to 200 samples in another order.
        torch.testing.assert_close(
            getattr(looking, name), getattr(training, name), rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(looking.depth, training.depth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first_chunk", [1, 7, 10_000])
def test_chunks_do_not_change_the_picture(tiny_field, full, monkeypatch, first_chunk):
    rays = [v.to(full.device) for v in make_rays()]
    expected = render_rays(tiny_field, full, SETTINGS, *rays, early_stop=0.0)
    for module in (composed, importlib.import_module(RENDER_KERNELS)):
        monkeypatch.setattr(module, "FIRST_CHUNK", first_chunk)
    found = render_rays(tiny_field, full, SETTINGS, *rays, early_stop=0.0)
    assert found.num_samples == expected.num_samples
    for name in ("color", "accumulation", "depth", "last_color"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("early_stop", [1e-3, 0.1, 0.5])
def test_early_stop_changes_colours_by_at_most_its_value(tiny_field, full, no_jitter, early_stop):
    with torch.no_grad():
        tiny_field.density_mlp[1].bias[0] += 4
    rays = make_rays()
    exact = list(both_ways(tiny_field, full, SETTINGS, rays, early_stop=0.0))
    stopped = list(both_ways(tiny_field, full, SETTINGS, rays, early_stop=early_stop))
    for e, s in zip(exact, stopped, strict=True):
        assert s.num_samples < e.num_samples
        # What is left out weighs less than the transmittance in front of it.
        assert ((e.color - s.color).abs() <= early_stop + 1e-5).all()
        missing = e.accumulation - s.accumulation
        assert ((missing >= -1e-5) & (missing <= early_stop + 1e-5)).all()


def test_weights_sum_to_at_most_one(tiny_field, full):
    with torch.no_grad():
        tiny_field.density_mlp[1].bias[0] += 6
    for rendered in both_ways(tiny_field, full, SETTINGS, make_rays()):
        assert (rendered.accumulation >= 0).all()
        assert (rendered.accumulation <= 1 + 1e-6).all()
        assert (rendered.color <= rendered.accumulation[:, None] + 1e-6).all()
        assert rendered.accumulation[:-1].max() > 0.99


def test_last_sample_is_the_colour_behind(tiny_field, full, no_jitter):
    rays = make_rays()
    samples = tiny_field.encoding.backend.march(*[v.to(full.device) for v in rays], full, SETTINGS)
    for rendered in both_ways(tiny_field, full, SETTINGS, rays, early_stop=0.0):
        last = samples.packed_info.sum(1)[:-1] - 1
        _, geo = tiny_field.density(samples.positions[last])
        features = tiny_field.ray_features(rays[1][:-1].to(full.device))
        expected = tiny_field.color(features, geo).detach()
        torch.testing.assert_close(rendered.last_color[:-1], expected)
        assert not rendered.last_color[-1].any()  # that ray misses
        blended = blend_background(rendered, "last_sample")[:-1]
        behind = (1 - rendered.accumulation[:-1, None]) * expected
        torch.testing.assert_close(blended, rendered.color[:-1] + behind)


def test_backgrounds_may_differ_by_ray(uniform_field, full):
    rendered = next(both_ways(uniform_field(0), full, SETTINGS, make_rays(4)))
    colors = torch.rand(4, 3, device=full.device)
    assert torch.equal(blend_background(rendered, colors), colors)


# ── training ──


def gradients(loss, leaves):
    """As ``backward`` leaves them: a backend may write those of the latents by rows."""
    loss.backward()
    found = [leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found


def test_gradients_are_those_of_the_plain_way(tiny_field, full, device, no_jitter):
    """March, look up, both networks and compositing under autograd, nothing dropped."""
    field, rays = tiny_field.train(), [v.to(device) for v in make_rays()]
    field.encoding.set_quantizer(get_quantizer("straight_through"))
    upstream = torch.randn(60, 3, device=device)
    leaves = [field.encoding.latents, *field.density_mlp.parameters()]
    leaves += [*field.color_mlp.parameters(), *field.encoding.latent_decoder.parameters()]

    rendered, _ = render_train(field, full, SETTINGS, *rays, early_stop=0.0)
    loss = (rendered.color * upstream).sum() + rendered.accumulation.sum()
    found = gradients(loss, leaves)

    backend = field.encoding.backend
    samples = backend.march(*rays, full, SETTINGS)
    sigma, geo = field.density(samples.positions)
    rgb = field.color(field.ray_features(rays[1])[samples.ray_indices], geo)
    spans = samples.t_starts, samples.t_ends, samples.packed_info
    color, accumulation, _ = backend.composite(sigma, rgb, *spans)
    torch.testing.assert_close(rendered.color, color, rtol=1e-5, atol=1e-5)
    expected = gradients((color * upstream).sum() + accumulation.sum(), leaves)
    for f, e in zip(found, expected, strict=True):
        assert e.any()
        # Sums over 3000 samples, in another order.
        torch.testing.assert_close(f, e, rtol=1e-3, atol=1e-4 * float(e.abs().max()))


def test_jitter_moves_samples_by_less_than_a_step(uniform_field, full):
    origins = torch.tensor([[-1.0, 0.5, 0.5]]).expand(200, 3).to(full.device)
    directions = torch.tensor([[1.0, 0, 0]]).expand(200, 3).to(full.device)
    rendered, _ = render_train(uniform_field(3e6), full, SETTINGS, origins, directions)
    offset = (rendered.depth - 1) / SETTINGS.step_size  # half a step plus the jitter
    assert offset.min() < 0.6
    assert offset.max() > 1.4
    assert ((offset > 0.49) & (offset < 1.51)).all()


def test_rays_that_were_cut_are_reported(uniform_field, full):
    rays = [v.to(full.device) for v in make_rays()]
    _, cut = render_train(uniform_field(1), full, SETTINGS, *rays, max_samples=5)
    expected = torch.ones(60)
    expected[-1] = 0  # the ray that misses
    assert cut.tolist() == expected.tolist()


def test_appearance_codes_per_ray(make_field, backend, device, full, no_jitter):
    shape = FieldShape(hidden_dim=8, geo_feat_dim=3, sh_degree=2, appearance_dim=4)
    field = make_field(backend, shape=shape).to(device)
    rays, codes = [v.to(device) for v in make_rays()], torch.randn(2, 4, device=device)
    options = {"early_stop": 0.0}
    whole = [render_rays(field, full, SETTINGS, *rays, appearance=c, **options) for c in codes]
    per_ray = codes[torch.arange(60) % 2]
    mixed, _ = render_train(field, full, SETTINGS, *rays, appearance=per_ray, **options)
    for i in range(2):
        torch.testing.assert_close(mixed.color[i::2], whole[i].color[i::2], rtol=1e-5, atol=1e-5)
    assert (whole[0].color != whole[1].color)[:-1].any(1).all()


def test_weights_of_samples_are_those_of_the_picture(tiny_field, full):
    rays, told = [v.to(full.device) for v in make_rays()], []
    rendered, _ = render_train(
        tiny_field, full, SETTINGS, *rays, observe=lambda x, w: told.append((x, w))
    )
    ((positions, weights),) = told
    assert positions.shape == (rendered.num_samples, 3) and weights.shape == positions.shape[:1]
    assert ((positions >= 0) & (positions <= 1)).all() and (weights >= 0).all()
    total = rendered.accumulation.sum()
    assert weights.sum().item() == pytest.approx(total.item(), rel=1e-4)


def test_weights_of_two_rays_and_of_none():
    sigmas, ends = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 0.5])
    starts, info = torch.tensor([0.0, 0.5, 0.0]), torch.tensor([[0, 2], [2, 0], [2, 1]])
    found = sample_weights(sigmas, starts, ends, info)
    first = 1 - math.exp(-0.5)
    expected = [first, math.exp(-0.5) * (1 - math.exp(-1.0)), 1 - math.exp(-1.5)]
    assert found.tolist() == pytest.approx(expected)
    none = torch.zeros(0)
    assert not len(sample_weights(none, none, none, torch.zeros(2, 2, dtype=torch.long)))


# ── against fog ──


@pytest.mark.parametrize("knee", [0.0, 1.0])
def test_distortion_is_the_double_sum(knee):
    settings = MarchSettings("contracted", UNIT_BOX, near=0.0, far=50.0, step_size=0.1, knee=knee)
    counts = torch.tensor([4, 0, 1, 7])
    info = torch.stack([counts.cumsum(0) - counts, counts], 1)
    edges = [torch.rand(int(n) + 1).double().sort().values * 40 for n in counts]
    starts, ends = torch.cat([e[:-1] for e in edges]), torch.cat([e[1:] for e in edges])
    ray = torch.repeat_interleave(torch.arange(len(counts)), counts)
    weights = torch.rand(len(ray), dtype=torch.float64, requires_grad=True)
    far = spacing(torch.tensor(50.0).double(), knee)
    begins, stops = spacing(starts, knee) / far, spacing(ends, knee) / far
    middles = (begins + stops) / 2
    apart = (middles[:, None] - middles).abs() * (ray[:, None] == ray)
    expected = (weights[:, None] * weights * apart).sum()
    expected = (expected + (weights.square() * (stops - begins)).sum() / 3) / len(counts)
    found = distortion(weights, starts, ends, info, settings)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(value, weights)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_distortion_of_nothing():
    none, info = torch.zeros(0), torch.zeros(3, 2, dtype=torch.long)
    assert distortion(none, none, none, info, SETTINGS) == 0


def test_fog_is_more_distorted_than_a_wall(uniform_field, full):
    rays, found = [v.to(full.device) for v in make_rays(8)], []
    for density in (0.5, 200.0):
        field = uniform_field(density)
        rendered, _ = render_train(field, full, SETTINGS, *rays, with_distortion=True)
        found.append(float(rendered.distortion))
    assert found[0] > 4 * found[1] > 0
    assert render_train(field, full, SETTINGS, *rays)[0].distortion is None


@pytest.mark.parametrize("settings", [SETTINGS, CONTRACTED], ids=lambda s: s.contraction)
def test_samples_of_several_steps_see_the_same_fog(uniform_field, full, settings):
    field, rays = uniform_field(1.7), [v.to(full.device) for v in make_rays()]
    strides = torch.full(full.shape, 2, dtype=torch.uint8, device=full.device)
    single, merged = (
        render_train(field, full, settings, *rays, early_stop=0.0, log2_strides=log2_strides)[0]
        for log2_strides in (None, strides)
    )
    assert merged.num_samples < single.num_samples / 2
    # Jitter moves the ends of a ray by up to a step.
    slack = 1.7 * settings.step_size * (1 - single.accumulation) + 1e-4
    assert ((merged.accumulation - single.accumulation).abs() <= 2 * slack).all()
