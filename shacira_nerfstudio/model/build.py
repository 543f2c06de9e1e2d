"""Puts a radiance field together from numbers: one constructor for training and for decoded
files."""

from __future__ import annotations

from shacira_nerfstudio.backends import Backend
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.encoding import LatentHashEncoding
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField


def build_field(
    grid: GridSpec,
    shape: FieldShape,
    backend: Backend,
    *,
    latent_dim: int,
    features_per_level: int,
    identity_decoder: bool = False,
    decoder_per_level: bool = True,
    entropy_model_layers: int = 1,
    pooled_entropy_model: bool = False,
    latents_init_std: float = 0.02,
    decoder_init_std: float = 0.1,
    weight_bits: int = 8,
    first_layer_bits: int = 12,
    with_latents: bool = True,
) -> RadianceField:
    """See the classes for what each number means."""
    encoding = LatentHashEncoding(
        grid,
        backend,
        latent_decoder=LatentDecoder(
            grid.num_levels,
            latent_dim,
            features_per_level,
            per_level=decoder_per_level,
            identity=identity_decoder,
            init_std=decoder_init_std,
        ),
        entropy_model=FactorizedEntropyModel(
            grid.num_levels,
            latent_dim,
            num_layers=entropy_model_layers,
            pooled=pooled_entropy_model,
        ),
        init_std=latents_init_std,
        with_latents=with_latents,
    )
    return RadianceField(
        encoding, shape, weight_bits=weight_bits, first_layer_bits=first_layer_bits
    )
