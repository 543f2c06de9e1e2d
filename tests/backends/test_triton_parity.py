"""Backend triton gives what `reference` gives: on a GPU, and in Triton's interpreter, which
test_triton_interpreter.py calls.

The interpreter takes a tenth of a second for what a program of a kernel does at once, so all is
tiny here; with a GPU, ``SHACIRA_TEST_BACKENDS=reference,triton@cuda`` runs all other tests of
backends as well.
"""

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends import (
    AdamState,
    FieldArrays,
    MarchSettings,
    NetworkWeights,
    SparseRowGradient,
    TableQuantizer,
    get_backend,
)
from shacira_nerfstudio.grid import GridSpec

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
pytest.importorskip("triton", reason="pip install triton")
if DEVICE == "cuda" and not torch.cuda.is_available():
    reason = "no GPU: test_triton_interpreter.py runs these"
    pytest.skip(reason, allow_module_level=True)
visible_samples = pytest.importorskip("shacira_nerfstudio.backends.triton.rays.visible_samples")

# Dense and rounded up, dense and full (vertices at N wrap around), hashed; axes of their own.
GRIDS = {
    3: GridSpec(3, ((3, 4, 5), (8, 8, 8), (20, 17, 30)), (64, 512, 512)),
    2: GridSpec(2, ((3, 5), (16, 16), (40, 30)), (16, 256, 256)),
}
BOX = ((-1.0, -0.5, -1.5), (1.0, 1.5, 0.5))
MARCHES = {
    "affine": MarchSettings("affine", BOX, near=0.05, far=30.0, step_size=0.031),
    "affine_knee": MarchSettings("affine", BOX, near=0.0, far=30.0, step_size=0.03, knee=3.0),
    "contracted": MarchSettings("contracted", BOX, near=0.05, far=5.0, step_size=0.05),
    "contracted_knee": MarchSettings(
        "contracted", BOX, near=0.05, far=1000.0, step_size=0.043, knee=2.0
    ),
}


pytestmark = pytest.mark.cuda


@pytest.fixture
def device():
    return DEVICE


@pytest.fixture
def triton(device):
    return get_backend("triton", device)


@pytest.mark.parametrize(
    ("num_dims", "num_channels", "mode"),
    [(3, 1, "noise"), (3, 2, "round"), (3, 4, "none"), (2, 1, "round"), (2, 3, "noise")],
)
def test_interpolate(triton, device, reference, num_dims, num_channels, mode):
    grid, quantizer = GRIDS[num_dims], TableQuantizer(mode, 2**32 - 3)
    x = torch.rand(50, num_dims, device=device)
    x[:3], x[3:6], x[6], x[7] = 0.0, 1.0, -0.25, 0.5
    x[8, 0] = 1.5
    table = (torch.randn(grid.num_entries, num_channels, device=device) * 3).requires_grad_()
    truth = table.detach().clone().requires_grad_()
    found = triton.interpolate(x, table, grid, quantizer=quantizer)
    expected = reference.interpolate(x, truth, grid, quantizer=quantizer)
    # Cell coordinates reach 40 in single precision: see the suite of parity.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    upstream = torch.randn_like(expected)
    upstream[::5] = 0
    found.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(table.grad, truth.grad, rtol=1e-4, atol=1e-4)


def test_interpolate_with_known_values(triton, device):
    grid = GRIDS[2]
    x, table = torch.rand(20, 2, device=device), torch.randn(grid.num_entries, 1, device=device)
    table.requires_grad_()
    values = torch.randn(20, grid.num_levels, 1, device=device)
    known = triton.interpolate(x, table, grid, values=values)
    assert torch.equal(known, values)
    upstream = torch.randn_like(values)
    (found,) = torch.autograd.grad(known, table, upstream)
    fresh = triton.interpolate(x, table, grid)
    torch.testing.assert_close(found, torch.autograd.grad(fresh, table, upstream)[0])


@pytest.mark.parametrize(("dtype", "num_channels"), [(torch.int8, 2), (torch.int16, 1)])
def test_interpolate_integers(triton, device, reference, dtype, num_channels):
    grid = GRIDS[3]
    x = torch.rand(20, 3, device=device)
    shape = grid.num_entries, num_channels
    table = torch.randint(-9, 9, shape, dtype=dtype, device=device)
    found = triton.interpolate(x, table, grid)
    expected = reference.interpolate(x, table, grid)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_noise_is_the_same(triton, device, reference):
    table = torch.randn(700, 3, device=device) * 5
    for quantizer in (TableQuantizer("noise", 77), TableQuantizer("noise", 2**32 - 1)):
        assert torch.equal(triton.quantize(table, quantizer), reference.quantize(table, quantizer))
    table[:100] = table[:100].round() + 0.5  # ties
    assert torch.equal(triton.quantize(table, TableQuantizer("round")), table.round())


def make_rays(count, device):
    """Some from inside, some along an axis, some that miss."""
    centre = torch.tensor(BOX).mean(0)
    origins = torch.randn(count, 3) * 2
    origins[0] = centre
    directions = F.normalize(centre + torch.randn(count, 3) * 0.3 - origins, dim=-1)
    directions[1:2] = torch.tensor([0.0, -1.0, 0.0])
    directions[2:3] *= -1
    return origins.to(device), directions.to(device)


def assert_same_samples(found, expected):
    """How often they differ: never here, where no position lies within 1e-15 of a border."""
    assert torch.equal(found.packed_info, expected.packed_info)
    assert torch.equal(found.next_step, expected.next_step)
    for name in ("t_starts", "t_ends", "positions"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=3e-7, atol=1e-7
        )


@pytest.mark.parametrize("name", MARCHES)
def test_march(triton, device, reference, name):
    count = 5 if IS_INTERPRETED else 20_000
    rays, cells = make_rays(count, device), (torch.rand(12, 12, 12) < 0.3).to(device)
    options = {"jitter": torch.rand(count, device=device)}
    assert_same_samples(
        triton.march(*rays, cells, MARCHES[name]), reference.march(*rays, cells, MARCHES[name])
    )
    options |= {"first_step": torch.arange(-1, count - 1, device=device) % 40, "max_samples": 7}
    options["limits"] = torch.rand(count, 2, device=device) * 2 + torch.tensor([0.0, 1.5]).to(
        device
    )
    strides = torch.randint(0, 4, cells.shape, dtype=torch.uint8, device=device)
    for more in ({}, {"log2_strides": strides}):
        assert_same_samples(
            triton.march(*rays, cells, MARCHES[name], **options, **more),
            reference.march(*rays, cells, MARCHES[name], **options, **more),
        )


def test_march_between_the_bounds_of_what_is_occupied(triton, device, reference):
    rays, cells = make_rays(6, device), torch.zeros(8, 8, 8, dtype=torch.bool, device=device)
    rays[0][4] = torch.tensor(BOX[0]) + torch.tensor([2.6, 3.0, 0.0]) * 2 / 8
    rays[1][4] = torch.tensor([0.0, 0.0, 1.0])  # along the border of a cell
    for ray, corner in enumerate([(2, 3, 4), (5, 4, 6), (0, 7, 3)]):
        cells[corner] = True  # in place: bounds are not those of before
        target = torch.tensor(BOX[0]) + (torch.tensor(corner) + 0.4) * 2 / 8
        rays[1][ray] = F.normalize(target.to(device) - rays[0][ray], dim=0)
        for options in ({}, {"jitter": torch.rand(6, device=device)}):
            samples = [
                backend.march(*rays, cells, MARCHES["affine_knee"], **options)
                for backend in (triton, reference)
            ]
            assert_same_samples(*samples)
    assert (samples[0].packed_info[[0, 1, 2, 4], 1] > 0).all()


def test_march_nothing(triton, device):
    cells = torch.ones(4, 4, 4, dtype=torch.bool, device=device)
    none = triton.march(*[torch.zeros(0, 3, device=device)] * 2, cells, MARCHES["affine"])
    assert none.positions.shape == (0, 3)
    rays = make_rays(2, device)
    assert not len(triton.march(*rays, cells & False, MARCHES["affine"]).t_starts)


def packed_samples(counts, device):
    """Random samples of rays with so many each; among them opaque and empty ones."""
    counts = torch.tensor(counts)
    total = int(counts.sum())
    sigmas = torch.rand(total) * 4
    sigmas[3::7], sigmas[5::11] = 0.0, 1e6
    t_starts = torch.rand(total) + torch.arange(total) * 0.01
    info = torch.stack([counts.cumsum(0) - counts, counts], 1)
    samples = sigmas, torch.rand(total, 3), t_starts, t_starts + torch.rand(total) * 0.2, info
    return [v.to(device) for v in samples]


@pytest.mark.parametrize("counts", [[0, 3, 0, 40, 1, 70, 17], [0, 0]], ids=len)
def test_composite(triton, device, reference, counts):
    sigmas, rgbs, t_starts, t_ends, info = packed_samples(counts, device)
    leaves = [v.clone().requires_grad_() for v in (sigmas, rgbs)]
    truth = [v.double().requires_grad_() for v in (sigmas, rgbs)]
    found = triton.composite(*leaves, t_starts, t_ends, info)
    expected = reference.composite(*truth, t_starts.double(), t_ends.double(), info)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f.double(), e, rtol=1e-6, atol=1e-5)
    upstream = [torch.randn_like(v) for v in expected]
    torch.autograd.backward(found, [u.float() for u in upstream])
    torch.autograd.backward(expected, upstream)
    for f, e in zip(leaves, truth, strict=True):
        torch.testing.assert_close(f.grad.double(), e.grad, rtol=1e-5, atol=2e-5)


def check_bits(function, truth, leaves):
    """Values and gradients of one and the other, the latter in double precision."""
    leaves = [v.clone().requires_grad_() for v in leaves]
    doubles = [v.detach().double().requires_grad_() for v in leaves]
    found, expected = function(*leaves), truth(*doubles)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    (2 * found).backward()
    (2 * expected).backward()
    for f, e in zip(leaves, doubles, strict=True):
        # A probability near the floor of 1e-10 keeps few digits; beyond the tables hundreds of bits
        # are subtracted from one another.
        torch.testing.assert_close(f.grad.double(), e.grad, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(("num_rows", "first", "stride"), [(1, 0, 1), (3, 2, 5)])
def test_logistic_bits(triton, device, reference, num_rows, first, stride):
    grid = GRIDS[3]
    latents = torch.randn(grid.num_entries, 2, device=device) * 3
    latents[::50] *= 20
    densities = torch.rand(num_rows, 2) + 0.3, torch.randn(num_rows, 2)
    options = {"seed": 2**32 - 5, "first": first, "stride": stride}
    check_bits(
        lambda *leaves: triton.logistic_bits(*leaves, grid, **options),
        lambda *leaves: reference.logistic_bits(*leaves, grid, **options),
        [latents, *(v.to(device) for v in densities)],
    )


def coded_problem(grid, num_channels, width, device):
    """Latents, some beyond the tables; tables, three a level but one in the first; classes."""
    latents = torch.randn(grid.num_entries, num_channels) * 3
    latents[::50] *= 20
    latents[::7] = latents[::7].round()
    first_table = torch.tensor([0, *range(1, 3 * grid.num_levels - 2, 3)], dtype=torch.int32)
    lengths = torch.rand(3 * grid.num_levels - 2, width) * 10
    classes = torch.randint(-1, 3, latents.shape, dtype=torch.int16)
    classes[: grid.offsets[1]].clamp_(max=0)
    return [v.to(device) for v in (latents, lengths, classes, first_table)]


@pytest.mark.parametrize(
    ("width", "density", "first", "stride"), [(9, 1, 0, 1), (25, 4, 2, 5), (3, 1, 6, 7)]
)
def test_coded_bits(triton, device, reference, width, density, first, stride):
    grid = GRIDS[3]
    latents, *tables = coded_problem(grid, 2, width, device)
    options = {"bins_per_unit": density, "first": first, "stride": stride}
    check_bits(
        lambda leaf: triton.coded_bits(leaf, *tables, grid, **options),
        lambda leaf: reference.coded_bits(leaf, *tables, grid, **options),
        [latents],
    )


@pytest.mark.parametrize("operation", ["interpolate", "logistic_bits", "coded_bits"])
def test_gradients_by_rows(triton, device, operation):
    grid = GRIDS[2]
    latents, *tables = coded_problem(grid, 2, 9, device)
    latents.requires_grad_()
    sampling = {"first": 1, "stride": 3}
    if operation == "interpolate":
        call = triton.interpolate, torch.rand(30, 2, device=device), latents, grid
    elif operation == "logistic_bits":
        call = triton.logistic_bits, latents, *torch.ones(2, 1, 2, device=device), grid
        sampling["seed"] = 5
    else:
        call = triton.coded_bits, latents, *tables, grid
    options = {} if operation == "interpolate" else sampling
    rows = SparseRowGradient.zeros(*latents.shape, device=device)
    function, *arguments = call
    function(*arguments, **options).sum().backward()
    for repeats in (1, 2):  # it adds up
        function(*arguments, **options, gradient=rows).sum().backward()
        torch.testing.assert_close(rows.values, latents.grad * repeats)
    touched = (latents.grad != 0).any(1)
    assert 0 < touched.sum() < len(latents)
    if operation == "logistic_bits":
        touched = torch.arange(len(latents), device=device) // 16 % 3 == 1
    assert torch.equal(rows.touched_rows(), touched)
    rows.clear()
    assert not rows.values.any()
    assert not rows.touched.any()


@pytest.mark.parametrize("num_channels", [1, 3])
def test_update_rows(triton, device, reference, num_channels):
    options = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-15, "weight_decay": 0.1}
    start = torch.randn(1000, num_channels, device=device)
    results = []
    for backend in (triton, reference):
        generator = torch.Generator(device).manual_seed(5)
        moments = torch.zeros(1000, 2, num_channels, device=device)
        state = AdamState(moments, torch.zeros(1000, dtype=torch.int16, device=device))
        parameter = start.clone()
        for _ in range(3):
            grad = torch.randn(start.shape, generator=generator, device=device)
            grad[torch.rand(1000, generator=generator, device=device) < 0.5] = 0
            gradient = SparseRowGradient.of(grad)
            backend.update_rows(parameter, gradient, state, **options)
            assert not gradient.values.any()
            assert not gradient.touched.any()
        results.append((parameter, state.moments, state.num_updates))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def tiny_networks(num_latents, device, *, hidden=8, geometry=3, features=4):
    """Random weights of both networks."""

    def layers(*sizes):
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        return tuple((torch.randn(b, a) * 0.5, torch.randn(b) * 0.3) for a, b in pairs)

    weights = NetworkWeights(
        layers(num_latents, hidden, 1 + geometry), layers(features + geometry, hidden, hidden, 3)
    )
    weights.density[-1][1][0] += 2  # many rays end at a surface
    return weights.map(lambda _, v: v.to(device))


def tiny_field(device, *, num_levels=None, quantizer=TableQuantizer("noise", 7)):  # noqa: B008
    grid = GRIDS[3]
    table = torch.randn(grid.num_entries, 1, device=device) * 3
    return FieldArrays(table, grid, tiny_networks(grid.num_levels, device), quantizer, num_levels)


@pytest.mark.parametrize(
    ("march", "num_levels", "early_stop", "max_samples"),
    [("affine", None, 0.1, 0), ("contracted_knee", 2, 0.3, 9)],
)
def test_march_visible(
    triton, device, reference, monkeypatch, march, num_levels, early_stop, max_samples
):
    monkeypatch.setattr(visible_samples, "ROUNDED_TO", 1)
    field = tiny_field(device, num_levels=num_levels)
    rays, cells = make_rays(4, device), (torch.rand(8, 8, 8) < 0.4).to(device)
    options = {
        "early_stop": early_stop,
        "max_samples": max_samples,
        "jitter": torch.rand(4, device=device),
    }
    if march != "affine":  # samples that stand for several growing steps
        options["log2_strides"] = torch.randint(0, 3, cells.shape, dtype=torch.uint8).to(device)
    expected = reference.march_visible(*rays, cells, MARCHES[march], field, **options)
    for few in (slice(3, 4), slice(0, 4)):  # the second finds more than the first made it expect
        options_of_few = options | {"jitter": options["jitter"][few]}
        found = triton.march_visible(
            *[v[few] for v in rays], cells, MARCHES[march], field, **options_of_few
        )
    assert_same_samples(found, expected)
    assert found.num_marched == expected.num_marched > len(expected.t_starts) > 0
    for name in ("latents", "density_outputs"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4
        )


def test_training_samples_are_padded_and_the_same(triton, device, reference, monkeypatch):
    """Rays are the same in each step, so what the step before last had is what there is."""
    monkeypatch.setattr(visible_samples, "ROUNDED_TO", 16)
    field = tiny_field(device)
    rays, cells = make_rays(4, device), (torch.rand(8, 8, 8) < 0.4).to(device)
    arguments = *rays, cells, MARCHES["affine"], field
    expected = reference.march_visible(*arguments, early_stop=0.1)
    first = triton.sample_training_rays(*arguments, early_stop=0.1)
    assert first.num_known_late is None and first.num_marched == expected.num_marched
    found = triton.sample_training_rays(*arguments, early_stop=0.1)
    count = len(expected.t_starts)
    assert len(found.t_starts) > count == int(found.num_visible)
    assert int(found.num_marched) == expected.num_marched
    assert torch.equal(found.packed_info, expected.packed_info)
    assert torch.equal(found.next_step, expected.next_step)
    assert torch.equal(found.ray_indices[:count], expected.ray_indices)
    for name in ("t_starts", "t_ends", "positions", "latents", "density_outputs"):
        values = getattr(found, name)
        torch.testing.assert_close(values[:count], getattr(expected, name), rtol=1e-4, atol=1e-4)
        assert not values[count:].any(), name
    assert not found.ray_indices[count:].any()
    # Padding changes nothing of what is made of the samples.
    sigmas = torch.rand(len(found.t_starts), device=device).requires_grad_()
    rgbs = torch.rand(len(sigmas), 3, device=device).requires_grad_()
    spans = found.t_starts, found.t_ends, found.packed_info
    color, _, _ = triton.composite(sigmas, rgbs, *spans)
    grads = torch.autograd.grad(color.sum(), (sigmas, rgbs))
    exact = [v.detach()[:count].requires_grad_() for v in (sigmas, rgbs)]
    spans = expected.t_starts, expected.t_ends, expected.packed_info
    truth, _, _ = reference.composite(*exact, *spans)
    torch.testing.assert_close(color, truth, rtol=1e-5, atol=1e-5)
    for grad, of_exact in zip(grads, torch.autograd.grad(truth.sum(), exact), strict=True):
        torch.testing.assert_close(grad[:count], of_exact, rtol=1e-4, atol=1e-5)
        assert not grad[count:].any()


def test_rays_without_room_do_not_count(triton, device, monkeypatch):
    monkeypatch.setattr(visible_samples, "ROUNDED_TO", 1)
    field, settings = tiny_field(device), MARCHES["affine"]
    rays, cells = make_rays(4, device), torch.ones(8, 8, 8, dtype=torch.bool, device=device)
    arguments = *rays, cells, settings, field
    whole = triton.sample_training_rays(*arguments, early_stop=0.0)
    for marched, visible in ((0.8, 1.0), (1.0, 0.8)):  # room for so much of what there is
        triton._training._per_ray = [
            marched / visible_samples._SLACK * int(whole.num_marched) / 4,
            visible / visible_samples._VISIBLE_SLACK * len(whole.t_starts) / 4,
        ]
        found = triton.sample_training_rays(*arguments, early_stop=0.0)
        triton._training._late.take()
        kept = found.packed_info[:, 1]
        is_whole = kept == whole.packed_info[:, 1]
        assert 0 < kept.sum() < len(whole.t_starts) and is_whole.any()
        assert (found.next_step[~is_whole] >= 0).all() and (found.next_step == -1).any()
        assert int(found.packed_info[-1].sum()) <= len(found.t_starts)
        assert int(found.num_marched) == whole.num_marched


@pytest.mark.parametrize("name", ["affine", "contracted_knee"])
def test_how_often_samples_differ_on_the_borders_of_cells(triton, device, reference, name):
    """Rays that run along borders of cells, and step from one to the next: the one case in which
    the sets of samples may differ, where a position is within rounding of a border."""
    count, size = (6, 8) if IS_INTERPRETED else (4000, 8)
    low, high = (torch.tensor(corner) for corner in BOX)
    axis = torch.arange(count) % 3
    on_border = torch.randint(0, size + 1, (count, 3)) / size  # of all three axes
    directions = F.one_hot(axis, 3).float() * torch.where(torch.rand(count, 1) < 0.5, -1.0, 1.0)
    origins = low + on_border * (high - low) - directions * 2.5
    rays = origins.to(device), directions.to(device)
    cells = (torch.rand(size, size, size) < 0.5).to(device)
    settings = replace(MARCHES[name], near=0.5, step_size=0.0625)  # a fraction of a cell, exactly
    samples = [backend.march(*rays, cells, settings) for backend in (triton, reference)]
    differing = (samples[0].packed_info[:, 1] - samples[1].packed_info[:, 1]).abs().sum()
    total = samples[1].packed_info[:, 1].sum()
    assert total > 20 * count / 10
    # Both compute in double precision without fused products, so they round alike: none differs.
    # A card that rounds another way would differ in one sample of the two cells at a border.
    assert int(differing) <= 0.01 * int(total)
    if IS_INTERPRETED:
        assert int(differing) == 0


def test_it_passes_its_own_check_and_can_fail_it(triton, device, monkeypatch):
    from shacira_nerfstudio.backends.triton import self_check

    self_check.check(triton, torch.device(device))
    quantize = triton.quantize
    monkeypatch.setattr(triton, "quantize", lambda *a: quantize(*a) + 0.01)
    with pytest.raises(RuntimeError, match="another noise on this card than `reference`"):
        self_check.check(triton, torch.device(device))
    monkeypatch.setattr(triton, "quantize", lambda *a: 1 // 0)
    with pytest.raises(RuntimeError, match="fails on this card: ZeroDivisionError"):
        self_check.check(triton, torch.device(device))


def test_render(triton, device, reference):
    field = tiny_field(device, quantizer=TableQuantizer("round"))
    rays, cells = make_rays(4, device), (torch.rand(8, 8, 8) < 0.4).to(device)
    features = torch.randn(4, 4, device=device)
    found, expected = (
        backend.render(
            *rays, cells, MARCHES["affine"], field, features, early_stop=1e-3, min_weight=0.0
        )
        for backend in (triton, reference)
    )
    for name in ("color", "transmittance", "distance"):
        # Behind the point where a ray is opaque, at most 1e-3 is left.
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-3, atol=2e-3
        )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_networks_in_short_numbers(triton, device, precision):
    short = triton.with_precision(precision)
    assert (short.name, short.precision, triton.precision) == ("triton", precision, "float32")
    if IS_INTERPRETED:
        assert triton.with_precision("auto").precision == "float32"
    weights = tiny_networks(12, device, hidden=16)
    latents, features = torch.randn(3000, 4, 3, device=device), torch.randn(5, 4, device=device)
    rays = torch.arange(3000, device=device) // 600
    upstream = torch.rand(3000, device=device), torch.rand(3000, 3, device=device)
    # As small as those of a mean over a batch: in float16 most would be 0 unless they are scaled.
    upstream = [1e-7 * gradient for gradient in upstream]
    results = []
    for backend in (short, triton):
        leaves = [v.clone().requires_grad_() for v in (latents, features)]
        own = weights.map(lambda _, v: v.clone().requires_grad_())
        outputs = backend.density_outputs(latents, weights)
        assert outputs.dtype == torch.float32
        sigmas, rgbs = backend.shade(leaves[0], outputs, leaves[1], rays, own)
        torch.autograd.backward((sigmas.log(), rgbs), upstream)
        grads = [v.grad for v in (*leaves, *own.named().values())]
        results.append([outputs, sigmas.log(), rgbs, *grads])
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype == torch.float32
        # bfloat16 has 8 bits, errors go through five layers, and turn units on and off.
        limit = 0.06 if precision == "bfloat16" else 0.03
        assert (found - expected).norm() < limit * expected.norm()


def test_fused_networks(triton, device):
    """As torch's products in the same number format, in values and gradients."""
    # The interpreter knows no products of bfloat16.
    short = triton.with_precision("float16" if IS_INTERPRETED else "bfloat16")
    fused = short.with_fused_networks()
    assert fused.has_fused_networks and not short.has_fused_networks
    assert triton.with_fused_networks() is triton  # float32 has none
    count = 150 if IS_INTERPRETED else 3000
    for num_hidden in (1, 2):
        weights = tiny_networks(12, device, hidden=24, geometry=5, features=7)
        color = weights.color if num_hidden == 2 else (weights.color[0], weights.color[2])
        weights = NetworkWeights(weights.density, color)
        # As interpolation hands them over; a last block that is not full.
        latents = torch.randn(4, 3, count, device=device).permute(2, 0, 1)
        features = torch.randn(5, 7, device=device)
        rays = torch.arange(count, device=device) * 5 // count
        upstream = torch.rand(count, device=device), torch.rand(count, 3, device=device)
        upstream = [1e-7 * gradient for gradient in upstream]
        results = []
        for backend in (fused, short, triton):
            leaves = [v.clone().requires_grad_() for v in (latents, features)]
            own = weights.map(lambda _, v: v.clone().requires_grad_())
            outputs = backend.density_outputs(latents, weights)
            sigmas, rgbs = backend.shade(leaves[0], outputs, leaves[1], rays, own)
            torch.autograd.backward((sigmas.log(), rgbs), upstream)
            grads = [v.grad for v in (*leaves, *own.named().values())]
            results.append([outputs, sigmas.log(), rgbs, *grads])
        for found, same_format, exact in zip(*results, strict=True):
            assert found.dtype == torch.float32
            # Sums in another order turn some roundings over; what float32 gives is as far away as
            # from torch's own short products.
            limit = 0.005 if IS_INTERPRETED else 0.03
            assert (found - same_format).norm() < limit * same_format.norm()
            assert (found - exact).norm() < 2 * limit * exact.norm()


def test_fused_networks_say_what_they_are_made_for(triton, device):
    fused = triton.with_precision("bfloat16").with_fused_networks()
    wide = tiny_networks(12, device, hidden=136)
    with pytest.raises(ValueError, match=r"at most 128 numbers .+, got \[12, 136, 4\]"):
        fused.density_outputs(torch.zeros(2, 4, 3, device=device), wide)


@pytest.mark.parametrize("count", [0, 1])
def test_few_samples_and_none(triton, device, reference, count):
    """Everything that is asked for nothing gives nothing, with gradients that are 0."""
    grid, field = GRIDS[3], tiny_field(device)
    x, table = torch.rand(count, 3, device=device), field.table.clone().requires_grad_()
    truth = table.detach().clone().requires_grad_()
    latents, expected = triton.interpolate(x, table, grid), reference.interpolate(x, truth, grid)
    torch.testing.assert_close(latents, expected, rtol=1e-5, atol=1e-4)
    latents.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(table.grad, truth.grad, rtol=1e-4, atol=1e-4)
    assert triton.quantize(table[:count], TableQuantizer("round")).shape == (count, 1)
    info = torch.tensor([[0, count]], device=device)[:count]
    spans = torch.zeros(count, device=device), torch.ones(count, device=device), info
    sigmas, rgbs = torch.rand(count, device=device), torch.rand(count, 3, device=device)
    for found, value in zip(
        triton.composite(sigmas, rgbs, *spans), reference.composite(sigmas, rgbs, *spans),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, value)
    features, rays = torch.rand(1, 4, device=device), torch.zeros_like(info[:, 0])
    for backend in (triton, triton.with_precision("float16").with_fused_networks()):
        leaf = latents.detach().clone().requires_grad_()
        weights = field.weights.map(lambda _, v: v.clone().requires_grad_())
        outputs = backend.density_outputs(leaf, weights)
        sigmas, rgbs = backend.shade(leaf, outputs, features, rays, weights)
        (sigmas.sum() + rgbs.sum()).backward()
        assert rgbs.shape == (count, 3) and bool(leaf.grad.any()) == bool(count)
        for value in weights.named().values():
            assert bool(value.grad.any()) <= bool(count)


def test_no_rays(triton, device):
    cells, field = torch.ones(4, 4, 4, dtype=torch.bool, device=device), tiny_field(device)
    arguments = *[torch.zeros(0, 3, device=device)] * 2, cells, MARCHES["affine"], field
    for sample in (triton.march_visible, *[triton.sample_training_rays] * 2):
        found = sample(*arguments, early_stop=0.1)
        assert found.packed_info.shape == (0, 2) and int(found.num_visible) == 0
    rendering = triton.render(
        *arguments, torch.zeros(0, 4, device=device), early_stop=0.1, min_weight=0.0
    )
    assert rendering.color.shape == (0, 3) and rendering.num_samples == 0


def strided(tensor):
    """The same numbers, none beside its neighbour."""
    return torch.stack([tensor, torch.zeros_like(tensor)], -1)[..., 0]


def test_inputs_that_are_not_contiguous(triton, device, reference):
    rays, cells = make_rays(3, device), (torch.rand(6, 6, 6) < 0.5).to(device)
    options = {
        "jitter": torch.rand(3, device=device),
        "limits": torch.rand(3, 2, device=device) + torch.tensor([0.0, 3.0], device=device),
        "first_step": torch.arange(3, device=device),
        "log2_strides": torch.randint(0, 3, cells.shape, dtype=torch.uint8).to(device),
    }
    apart = {name: strided(value) for name, value in options.items()}
    assert not any(value.is_contiguous() for value in apart.values())
    assert_same_samples(
        triton.march(*map(strided, rays), strided(cells), MARCHES["contracted_knee"], **apart),
        reference.march(*rays, cells, MARCHES["contracted_knee"], **options),
    )
    table, x = torch.randn(GRIDS[3].num_entries, 2, device=device), torch.rand(5, 3, device=device)
    torch.testing.assert_close(
        triton.interpolate(strided(x), strided(table), GRIDS[3]),
        triton.interpolate(x, table, GRIDS[3]),
    )
    samples = packed_samples([2, 0, 3], device)
    for found, expected in zip(
        triton.composite(*map(strided, samples)), triton.composite(*samples), strict=True
    ):
        torch.testing.assert_close(found, expected)


def train(backend, field, rays, cells, target, coded, *, steps):
    """The steps of a host, without one: Adam for the table, plain descent for the networks."""
    table = field.table.clone().requires_grad_()
    weights = field.weights.map(lambda _, v: v.clone().requires_grad_())
    state = AdamState(
        torch.zeros(len(table), 2, table.shape[1]).to(table),
        torch.zeros(len(table), dtype=torch.int16, device=table.device),
    )
    sparse = SparseRowGradient.zeros(*table.shape, device=table.device)
    sparse = sparse if backend.supports_sparse_gradient else None
    features, losses = rays[1] @ torch.ones(3, 4).to(table), []
    for step in range(steps):
        now = replace(
            field,
            table=table.detach(),
            weights=weights.map(lambda _, v: v.detach()),
            quantizer=TableQuantizer("noise", step),
        )
        found = backend.sample_training_rays(*rays, cells, MARCHES["affine"], now, early_stop=1e-3)
        spans = found.t_starts, found.t_ends, found.packed_info
        reads = {"quantizer": now.quantizer, "values": found.latents, "gradient": sparse}
        latents = backend.interpolate(found.positions, table, field.grid, **reads)
        shaded = backend.shade(latents, found.density_outputs, features, found.ray_indices, weights)
        color, accumulation, _ = backend.composite(*shaded, *spans)
        rated = {"first": step % 2, "stride": 2, "gradient": sparse}
        bits = backend.coded_bits(table, *coded, field.grid, **rated)
        loss = (color + 1 - accumulation[:, None] - target).square().mean() + 1e-4 * bits
        loss.backward()
        losses.append(loss.detach())
        options = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-15, "weight_decay": 0.0}
        gradient = sparse or SparseRowGradient.of(table.grad)
        backend.update_rows(table.detach(), gradient, state, **options)
        with torch.no_grad():
            for value in weights.named().values():
                value.sub_(0.05 * value.grad)
                value.grad = None
        table.grad = None
    return torch.stack(losses), table.detach(), weights


def test_a_tiny_scene_trains_alike(triton, device, reference, monkeypatch):
    """The second step does not wait for its samples, which are padded."""
    monkeypatch.setattr(visible_samples, "ROUNDED_TO", 16)
    field = tiny_field(device)
    _, *coded = coded_problem(field.grid, 1, 9, device)
    rays, cells = make_rays(4, device), (torch.rand(8, 8, 8) < 0.2).to(device)
    problem = field, rays, cells, torch.rand(4, 3, device=device), coded
    losses, table, weights = train(triton, *problem, steps=2)
    truth = train(reference, *problem, steps=2)
    torch.testing.assert_close(losses, truth[0], rtol=1e-4, atol=1e-5)
    for name, value in weights.named().items():
        torch.testing.assert_close(value, truth[2].named()[name], rtol=1e-3, atol=1e-3)
    # Adam's first step in a row is the sign of its gradient: where rounding decides that, latents
    # differ by up to twice the rate.
    differs = (table - truth[1]).abs() > 1e-4
    assert differs.float().mean() < 0.01
    assert (table - field.table).abs().max() > 0.015
