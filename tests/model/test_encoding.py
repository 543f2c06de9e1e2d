"""Latents under their quantiser, and the rate that trains them."""

import pytest
import torch

from shacira_nerfstudio.backends import TableQuantizer
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.encoding import LatentHashEncoding, TableView
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.rate_models import make_rate_model

MODES = ("sga", "noise", "straight_through", "round", "none")


def make_encoding(backend, grid, *, rate_model="learned", num_layers=1, shared=False, spread=2.0):
    return LatentHashEncoding(
        grid,
        backend,
        latent_decoder=LatentDecoder(grid.num_levels, 2, 3),
        rate_model=make_rate_model(
            rate_model,
            FactorizedEntropyModel(grid.num_levels, 2, num_layers=num_layers, shared=shared),
            get_quantizer("round"),
        ),
        init_std=spread,
    )


def quantized(encoding):
    """The whole table as look-ups read it now."""
    view = encoding.table()
    return encoding.backend.quantize(view.rows.float(), view.quantizer)


@pytest.fixture
def encoding(backend, device, tiny_grid):
    return make_encoding(backend, tiny_grid).to(device)


# ── rate ──


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_the_rate_reaches_the_latents(backend, tiny_grid, mode, num_layers):
    # In the reference code the rate looked at rounded latents, whose gradient is zero.
    encoding = make_encoding(backend, tiny_grid, num_layers=num_layers)
    encoding.set_quantizer(get_quantizer(mode))
    encoding.train()
    encoding.bits().backward()
    gradient = encoding.latents.grad
    assert (gradient != 0).float().mean() > 0.99
    # Away from the mode of the density, which starts near 0, it points outwards.
    far = encoding.latents.detach().abs() > 2
    assert (gradient.sign() == encoding.latents.detach().sign())[far].all()
    for parameter in encoding.rate_model.parameters():
        assert parameter.numel() == 0 or parameter.grad.any()


def test_lambda_matters(backend):
    grid = GridSpec(2, ((16, 16),), (256,))

    def bits_after_training(rate_lambda):
        torch.manual_seed(1)
        encoding = make_encoding(backend, grid)
        encoding.set_quantizer(get_quantizer("noise"))
        target = encoding.latents.detach().clone()
        optimizer = torch.optim.Adam(encoding.parameters(), lr=0.05)
        for _ in range(30):
            optimizer.zero_grad()
            distortion = (encoding.latents - target).square().mean()
            (distortion + rate_lambda * encoding.bits() / len(target)).backward()
            optimizer.step()
        with torch.no_grad():
            return encoding.eval().bits().item() / target.numel()

    none, little, much = (bits_after_training(rate_lambda) for rate_lambda in (0.0, 0.3, 3.0))
    # Without a rate the density keeps its start, which suits these latents badly, too.
    assert much < 0.8 * little
    assert little < 0.95 * none


@pytest.mark.parametrize("stride", [2, 3, 8, 21])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_fraction_of_the_rows_is_unbiased(monkeypatch, backend, tiny_grid, num_layers, stride):
    encoding = make_encoding(backend, tiny_grid, num_layers=num_layers)
    firsts = iter(range(stride))

    def fixed_randint(high, size):
        assert size == ()
        # The first block that an estimate reads; anything else seeds the noise.
        return torch.tensor(next(firsts) if high == stride else 1234)

    monkeypatch.setattr(torch, "randint", fixed_randint)
    with torch.no_grad():
        full = encoding.bits().item()
        estimates = [encoding.bits(fraction=1 / stride).item() for _ in range(stride)]
    # Each row is read by exactly one estimate; single precision adds up thousands of them.
    assert sum(estimates) / stride == pytest.approx(full, rel=1e-5)
    assert max(estimates) > min(estimates)


def test_a_fraction_reads_fewer_rows(encoding):
    encoding.bits(fraction=0.25).backward()
    block = torch.arange(len(encoding.latents)) // 16
    read = encoding.latents.grad.any(1).cpu()
    first = int(block[read][0])
    assert torch.equal(read, block % 4 == first)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_impossible_fractions_are_refused(encoding, fraction):
    with pytest.raises(ValueError, match="fraction"):
        encoding.bits(fraction=fraction)


def test_bits_are_those_of_the_entropy_model(backend, tiny_grid, monkeypatch):
    encoding = make_encoding(backend, tiny_grid)
    density = encoding.rate_model.density
    with torch.no_grad():
        density.scale.add_(torch.randn_like(density.scale))
        density.shift.add_(torch.randn_like(density.shift))
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.tensor(1234))
    noisy = backend.quantize(encoding.latents, TableQuantizer("noise", 1234))
    expected = sum(
        density.bits(noisy[begin:end], level).sum()
        for level, (begin, end) in enumerate(
            zip(tiny_grid.offsets[:-1], tiny_grid.offsets[1:], strict=True)
        )
    )
    torch.testing.assert_close(encoding.bits(), expected)


def test_gradients_of_rate_and_look_up_add_up(encoding):
    """However a backend collects them: as sparse rows or not, latents.grad is the gradient."""
    encoding.train()
    encoding.set_quantizer(get_quantizer("straight_through"), 0.1)
    x = torch.rand(30, encoding.grid.num_dims).to(encoding.latents.device)
    encoding(x).sum().backward()
    look_up = encoding.latents.grad.clone()
    encoding.latents.grad = None
    encoding.bits().backward()
    rate = encoding.latents.grad.clone()
    encoding.latents.grad = None
    torch.manual_seed(0)
    (encoding(x).sum() + 3 * encoding.bits()).backward()
    rest = encoding.latents.grad - look_up
    # The noise of the rate differs from call to call, its rows do not.
    assert ((rest != 0).any(1) == (rate != 0).any(1)).float().mean() > 0.99
    assert look_up.any()


# ── quantiser ──


@pytest.mark.parametrize("mode", MODES[:4])
def test_eval_rounds_whatever_training_does(encoding, mode):
    encoding.set_quantizer(get_quantizer(mode))
    encoding.eval()
    view = encoding.table()
    assert not view.rows.is_floating_point()
    assert view.quantizer.mode == "none"
    assert torch.equal(view.rows.float(), encoding.latents.round())


def test_training_uses_the_quantizer(encoding):
    encoding.train()
    encoding.set_quantizer(get_quantizer("noise"))
    first, second = quantized(encoding), quantized(encoding)
    assert (first != second).any()
    assert ((first - encoding.latents).abs() <= 0.5 + 1e-6).all()
    encoding.set_quantizer(get_quantizer("sga"), 0.5)
    table = quantized(encoding)
    assert (table != table.round()).any()
    assert ((table - encoding.latents).abs() <= 1).all()
    encoding.set_quantizer(get_quantizer("straight_through"), 0.1)
    assert torch.equal(quantized(encoding), encoding.latents.round())


def test_a_step_sees_one_sample(encoding):
    encoding.train()
    encoding.set_quantizer(get_quantizer("noise"))
    x = torch.rand(30, encoding.grid.num_dims).to(encoding.latents.device)
    view = encoding.table()
    assert torch.equal(encoding(x, view), encoding(x, view))
    assert not torch.equal(encoding(x), encoding(x))


@pytest.mark.parametrize("mode", MODES)
def test_the_look_up_reaches_the_latents(encoding, mode):
    encoding.train()
    encoding.set_quantizer(get_quantizer(mode))
    x = torch.rand(200, encoding.grid.num_dims).to(encoding.latents.device)
    encoding(x).sum().backward()
    assert encoding.latents.grad.any()
    if encoding.backend.supports_sparse_gradient:
        touched = encoding.latents.sparse_gradient[0].touched_rows()
        assert touched[encoding.latents.grad.any(1)].all()


def test_without_a_quantizer_latents_stay_floats(encoding):
    encoding.set_quantizer(get_quantizer("none"))
    assert not encoding.is_quantized
    assert torch.equal(encoding.eval().table().rows, encoding.latents)
    assert torch.equal(quantized(encoding.train()), encoding.latents)


def test_the_mean_table(encoding):
    encoding.train()
    for mode in MODES:
        encoding.set_quantizer(get_quantizer(mode))
        view = encoding.mean_table()
        found = encoding.backend.quantize(view.rows.float(), view.quantizer)
        is_soft = mode in ("sga", "noise", "none")
        expected = encoding.latents if is_soft else encoding.latents.round()
        assert torch.equal(found, expected)


def test_rounded_is_made_anew_only_after_a_change(encoding):
    encoding.eval()
    before = encoding.rounded()
    assert encoding.rounded() is before

    optimizer = torch.optim.Adam([encoding.latents], lr=5.0)
    encoding.train()
    encoding.bits().backward()
    optimizer.step()
    encoding.eval()
    after = encoding.rounded()
    assert (after != before).any()
    assert torch.equal(after.float(), encoding.latents.detach().round())
    assert encoding.rounded() is after

    state = {name: value.clone() for name, value in encoding.state_dict().items()}
    state["latents"] += 3
    encoding.load_state_dict(state)
    assert torch.equal(encoding.rounded(), after + 3)


def test_forward_interpolates_the_table(encoding, reference):
    grid = encoding.grid
    x = torch.rand(50, grid.num_dims).to(encoding.latents.device)
    expected = reference.interpolate(x.cpu(), encoding.latents.detach().round().cpu(), grid)
    encoding.eval()
    # As in the parity tests: positions of cells in single precision, times the spread of values.
    tolerance = {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(encoding(x).cpu(), expected, **tolerance)
    twice = encoding(x, TableView(encoding.rounded() * 2))
    torch.testing.assert_close(twice.cpu(), expected * 2, **tolerance)


def test_max_level_blanks_finer_levels(encoding):
    x = torch.rand(50, encoding.grid.num_dims).to(encoding.latents.device)
    encoding.eval()
    everything = encoding(x)
    encoding.max_level = 2
    coarse = encoding(x)
    assert torch.equal(coarse[:, :2], everything[:, :2])
    assert not coarse[:, 2:].any()
    assert everything[:, 2:].any()


def test_a_step_trains_a_prefix_whatever_is_looked_at(encoding):
    x = torch.rand(50, encoding.grid.num_dims).to(encoding.latents.device)
    encoding.train()
    encoding.max_level, encoding.trained_levels = 1, 2
    coarse = encoding(x, TableView(encoding.rounded().float()))
    assert coarse[:, 1].any()
    assert not coarse[:, 2:].any()
    encoding(x).square().sum().backward()
    end = encoding.grid.offsets[2]
    assert encoding.latents.grad[:end].any()
    assert not encoding.latents.grad[end:].any()
    encoding.trained_levels = encoding.grid.num_levels
    assert encoding(x)[:, 2:].any()
    assert not encoding.eval()(x)[:, 1:].any()


@pytest.mark.parametrize("axes", [((4, 9), (8, 33)), ((3, 5, 2), (9, 12, 5))], ids=str)
def test_pictures_and_video_have_a_resolution_per_axis(backend, reference, device, axes):
    grid = GridSpec(len(axes[0]), axes, (64, 128))
    encoding = make_encoding(backend, grid).to(device).train()
    encoding.set_quantizer(get_quantizer("straight_through"))
    x = torch.rand(300, grid.num_dims)
    found = encoding(x.to(device))
    expected = reference.interpolate(x, encoding.latents.detach().round().cpu(), grid)
    torch.testing.assert_close(found.detach().cpu(), expected, rtol=1e-5, atol=1e-4)
    (found.square().sum() + encoding.bits()).backward()
    assert encoding.latents.grad.any(1).float().mean() > 0.99


# ── symbols of a file ──


@pytest.mark.parametrize(("largest", "dtype"), [(127, torch.int8), (128, torch.int16)])
def test_symbols_take_as_little_memory_as_they_can(encoding, largest, dtype):
    symbols = torch.randint(-3, 4, encoding.latents.shape, dtype=torch.int16)
    symbols[5, 1] = -largest
    encoding.install_symbols(symbols)
    table = encoding.eval().table().rows
    assert table.dtype == dtype
    assert torch.equal(table.to(torch.int16), symbols)


def test_a_decoded_file_cannot_be_trained(encoding):
    encoding.install_symbols(torch.zeros(encoding.latents.shape, dtype=torch.int16))
    encoding.set_quantizer(get_quantizer("noise"))
    assert not encoding.eval().table().rows.any()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        encoding.train().table()


def test_symbols_of_another_shape_are_refused(encoding):
    rows, channels = encoding.latents.shape
    with pytest.raises(ValueError, match="expected symbols"):
        encoding.install_symbols(torch.zeros(rows - 1, channels, dtype=torch.int16))
