"""The latent decoder commutes with interpolation and folds into the layer behind it."""

import pytest
import torch
import torch.nn.functional as F

from shacira_nerfstudio.model.latent_decoder import LatentDecoder

LATENT_DIM, FEATURES, HIDDEN = 2, 3, 7


def make_decoder(num_levels, **options):
    decoder = LatentDecoder(num_levels, LATENT_DIM, FEATURES, **options).double()
    torch.nn.init.normal_(decoder.shift)
    return decoder


@pytest.mark.parametrize("per_level", [True, False])
def test_decode_of_interpolated_is_interpolation_of_decoded(reference, tiny_grid, per_level):
    decoder = make_decoder(tiny_grid.num_levels, per_level=per_level)
    latents = torch.randint(-4, 5, (tiny_grid.num_entries, LATENT_DIM)).double()
    decoded = torch.cat(
        [
            latents[begin:end] @ decoder.matrix[level % len(decoder.matrix)]
            + decoder.shift[level % len(decoder.shift)]
            for level, (begin, end) in enumerate(
                zip(tiny_grid.offsets[:-1], tiny_grid.offsets[1:], strict=True)
            )
        ]
    )
    x = torch.rand(200, tiny_grid.num_dims, dtype=torch.float64)
    found = decoder(reference.interpolate(x, latents, tiny_grid))
    expected = reference.interpolate(x, decoded, tiny_grid).flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"per_level": True}, {"per_level": False}], ids=str)
def test_fold_is_exact_with_exact_gradients(options):
    decoder = make_decoder(5, **options)
    weight = torch.randn(HIDDEN, 5 * FEATURES, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(HIDDEN, dtype=torch.float64, requires_grad=True)
    latents = torch.randn(50, 5, LATENT_DIM, dtype=torch.float64, requires_grad=True)
    leaves = [latents, weight, bias, decoder.matrix, decoder.shift]

    one = F.linear(decoder(latents), weight, bias)
    folded_weight, folded_bias = decoder.fold(weight, bias)
    assert folded_weight.shape == (HIDDEN, 5 * LATENT_DIM)
    other = F.linear(latents.flatten(1), folded_weight, folded_bias)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)

    upstream = torch.randn_like(one)
    gradients = [torch.autograd.grad(y, leaves, upstream) for y in (one, other)]
    for f, e in zip(*gradients, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-11, atol=1e-11)
        assert f.any()


def test_identity_decoder_has_no_parameters():
    decoder = LatentDecoder(4, 2, 2, identity=True)
    assert not list(decoder.parameters())
    latents = torch.randn(6, 4, 2)
    assert torch.equal(decoder(latents), latents.flatten(1))
    weight, bias = torch.randn(3, 8), torch.randn(3)
    assert decoder.fold(weight, bias) == (weight, bias)


def test_identity_needs_as_many_features_as_latents():
    with pytest.raises(ValueError, match="got 1 and 4"):
        LatentDecoder(4, 1, 4, identity=True)


def test_start_of_training():
    decoder = LatentDecoder(64, 8, 8, init_std=0.1)
    assert decoder.matrix.shape == (64, 8, 8)
    # 4096 draws: five standard deviations of an estimated standard deviation are 5.5 %.
    assert decoder.matrix.std().item() == pytest.approx(0.1, rel=0.055)
    assert not decoder.shift.any()
    assert LatentDecoder(64, 8, 8, per_level=False).matrix.shape == (1, 8, 8)
