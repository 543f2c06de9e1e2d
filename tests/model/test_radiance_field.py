"""The field: folded equals explicit, quantised means counted levels."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.backends.networks import density_network, density_of
from shacira_nerfstudio.model.encoding import TableView
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.radiance_field import (
    FieldShape,
    fake_quantize,
    spherical_harmonics,
    weight_steps,
)


def unit_vectors(count, dtype=torch.float32):
    return F.normalize(torch.randn(count, 3, dtype=dtype), dim=-1)


# ── field ──


def explicit(field, x, directions):
    """Density and colour layer after layer, the latent decoder where the paper has it."""
    table = TableView(field.encoding.table().rows.to(x))
    hidden = field.encoding.latent_decoder(field.encoding(x, table))
    hidden = field.density_mlp[1](torch.relu(field.density_mlp[0](hidden)))
    y = torch.cat([spherical_harmonics(directions, field.shape.sh_degree), hidden[:, 1:]], -1)
    for layer in field.color_mlp[:-1]:
        y = torch.relu(layer(y))
    return torch.exp(hidden[:, 0]), torch.sigmoid(field.color_mlp[-1](y))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decoder_per_level": False},
        {"identity_decoder": True, "features_per_level": 2},
        {"latent_dim": 1, "features_per_level": 2},
        {"shape": FieldShape(hidden_dim=5, geo_feat_dim=2, num_color_layers=1, sh_degree=4)},
    ],
    ids=str,
)
def test_folded_field_equals_explicit_layers(make_field, options):
    field = make_field(**options).double()
    if field.encoding.latent_decoder.shift is not None:
        torch.nn.init.normal_(field.encoding.latent_decoder.shift)
    x, directions = torch.rand(100, 3, dtype=torch.float64), unit_vectors(100, torch.float64)
    sigma, geo = field.density(x)
    rgb = field.color(field.ray_features(directions), geo)
    expected_sigma, expected_rgb = explicit(field, x, directions)
    torch.testing.assert_close(sigma, expected_sigma, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rgb, expected_rgb, rtol=1e-10, atol=1e-12)
    assert rgb.std() > 1e-3


def test_gradients_reach_every_parameter(tiny_field, device):
    field = tiny_field.train()
    field.encoding.set_quantizer(get_quantizer("straight_through"))
    sigma, geo = field.density(torch.rand(2000, 3).to(device))
    rgb = field.color(field.ray_features(unit_vectors(2000).to(device)), geo)
    (sigma.sum() + rgb.sum()).backward()
    for name, parameter in field.named_parameters():
        if not name.startswith("encoding.rate_model"):
            assert parameter.grad.any(), name
    # 2000 positions read most entries of every level.
    assert (field.encoding.latents.grad != 0).float().mean() > 0.5


def test_appearance_codes_change_colour_only(make_field):
    shape = FieldShape(hidden_dim=8, geo_feat_dim=3, sh_degree=2, appearance_dim=4)
    field = make_field(shape=shape)
    x, directions, codes = torch.rand(20, 3), unit_vectors(20), torch.randn(2, 4)
    _, geo = field.density(x)
    one, other = (
        field.color(field.ray_features(directions, code.expand(20, -1)), geo) for code in codes
    )
    assert (one != other).any(1).all()
    assert field.ray_features(directions, codes[:1].expand(20, -1)).shape == (20, 4 + 4)


def test_degrees_of_harmonics_are_checked(make_field):
    for degree in (0, 5):
        with pytest.raises(ValueError, match=f"got {degree}"):
            make_field(shape=FieldShape(sh_degree=degree))


# ── spherical harmonics ──


def test_spherical_harmonics_are_orthonormal():
    # Gauss-Legendre in z times equal angles is exact up to degree 2 * 12 - 1.
    z, weights = np.polynomial.legendre.leggauss(12)
    phi = np.arange(24) * 2 * math.pi / 24
    radius = np.sqrt(1 - z**2)[:, None]
    directions = torch.from_numpy(
        np.stack(
            [
                radius * np.cos(phi),
                radius * np.sin(phi),
                np.broadcast_to(z[:, None], (12, 24)),
            ],
            -1,
        ).reshape(-1, 3)
    )
    area = torch.from_numpy(np.repeat(weights * 2 * math.pi / 24, 24))
    basis = spherical_harmonics(directions, 4)
    gram = basis.T @ (basis * area[:, None])
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-12)


def test_spherical_harmonics_by_degree():
    directions = unit_vectors(5)
    full = spherical_harmonics(directions, 4)
    for degree in (1, 2, 3):
        assert torch.equal(spherical_harmonics(directions, degree), full[:, : degree**2])
    # Odd bands change sign with the direction, even ones do not.
    opposite = spherical_harmonics(-directions, 4)
    signs = torch.tensor([1.0] + [-1.0] * 3 + [1.0] * 5 + [-1.0] * 7)
    torch.testing.assert_close(opposite, full * signs)


# ── weights ──


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
def test_fake_quantize_levels(bits):
    weight = torch.randn(6, 40, dtype=torch.float64) * torch.logspace(-3, 3, 6).double()[:, None]
    weight[3] = 0
    weight.requires_grad_()
    quantized = fake_quantize(weight, bits)
    steps = weight_steps(weight, bits)[:, None]
    integers = quantized / steps
    torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-6)
    largest = 2 ** (bits - 1) - 1
    used = [0, 1, 2, 4, 5]
    # The largest magnitude of a row uses the largest integer, and stays as it was.
    assert integers.abs().amax(1)[used].tolist() == pytest.approx([largest] * 5)
    assert not quantized[3].any()
    assert ((quantized - weight).abs() <= steps / 2 * (1 + 1e-9)).all()
    assert all(len(row.round().unique()) <= 2**bits - 1 for row in integers)
    quantized.sum().backward()
    assert (weight.grad == 1).all()
    torch.testing.assert_close(fake_quantize(quantized.detach(), bits), quantized.detach())


def test_a_vector_is_one_row():
    bias = torch.tensor([1.0, 0.26, -0.5, 0.0])
    # Step 1/3: the vector shares it.
    assert fake_quantize(bias, 3).tolist() == pytest.approx([1, 1 / 3, -2 / 3, 0])


def test_weights_are_quantised_in_the_loop_only_when_asked(make_field):
    field = make_field(weight_bits=4, first_layer_bits=6)
    plain = field.network_weights().named()
    assert all(torch.equal(w, plain[n]) for n, w in field.effective_weights().named().items())
    field.quantize_weights = True
    for name, weight in field.effective_weights().named().items():
        bits = 6 if name.startswith("density_mlp.0") else 4
        assert field.bits_of(name) == bits
        assert torch.equal(weight, fake_quantize(plain[name], bits))
        assert not torch.equal(weight, plain[name])
    field.weight_bits = 0
    assert all(torch.equal(w, plain[n]) for n, w in field.effective_weights().named().items())


def test_quantised_in_the_loop_is_differentiable(make_field):
    field = make_field()
    field.quantize_weights = True
    sum(w.sum() for w in field.effective_weights().named().values()).backward()
    assert field.encoding.latent_decoder.matrix.grad.any()
    assert (field.color_mlp[0].weight.grad == 1).all()


def test_arrays_are_what_rendering_reads(make_field):
    field = make_field()
    field.encoding.max_level = 2
    arrays = field.arrays()
    assert arrays.table is field.encoding.rounded()
    assert (arrays.num_levels_read, arrays.quantizer.mode) == (2, "none")
    x = torch.rand(30, 3)
    latents = field.encoding.backend.interpolate(x, arrays.table, arrays.grid)
    latents[:, 2:] = 0
    sigma, _ = field.density(x)
    torch.testing.assert_close(density_of(density_network(latents, arrays.weights)), sigma)


def test_weights_by_name_go_into_a_field_that_folds_nothing(make_field):
    plain = make_field(identity_decoder=True, features_per_level=2)
    other = make_field(identity_decoder=True, features_per_level=2)
    weights = plain.network_weights().named()
    other.set_weights(weights)
    assert all(torch.equal(w, weights[n]) for n, w in other.network_weights().named().items())
    assert torch.equal(other.color_mlp[0].weight, plain.color_mlp[0].weight)
    with pytest.raises(ValueError, match="expected weights"):
        other.set_weights({name: w for name, w in weights.items() if "color" not in name})
    with pytest.raises(ValueError, match="identity decoder"):
        make_field().set_weights(weights)


@pytest.mark.parametrize("name", ["hidden_dim", "geo_feat_dim", "num_color_layers"])
def test_impossible_sizes_are_refused(name):
    with pytest.raises(ValueError, match=f"expected {name} of"):
        FieldShape(**{name: -1})
