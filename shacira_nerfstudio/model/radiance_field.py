"""Density and colour of a radiance field over a grid of quantised latents.

The latent decoder is folded into the first layer of the density network, in training as in
inference: exact, because nothing but linear maps lies between (see :class:`LatentDecoder`), and
four times cheaper. Late in training the weights that the file will hold are quantised in the loop
as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shacira_nerfstudio.backends import Backend, FieldArrays, NetworkWeights
from shacira_nerfstudio.backends.networks import color_network, density_network, density_of
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.encoding import LatentHashEncoding, TableView
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import QuantizerName, get_quantizer
from shacira_nerfstudio.model.rate_models import RateModelName, make_rate_model

INITIAL_LOG_DENSITY = -1.0
"""Per world unit: space starts thin, so that light reaches all of it."""
_LEAST_SIZES = {"hidden_dim": 1, "geo_feat_dim": 1, "num_color_layers": 0, "appearance_dim": 0}


@dataclass(frozen=True)
class FieldShape:
    """Sizes of the two networks."""

    hidden_dim: int = 64
    geo_feat_dim: int = 15
    """Channels that the density network hands to the colour network."""
    num_color_layers: int = 2
    """Hidden layers of the colour network."""
    sh_degree: int = 4
    """View directions enter as spherical harmonics of this many bands, 1 to 4."""
    appearance_dim: int = 0
    """Channels of a code per image (exposure, white balance); 0 means none."""

    def __post_init__(self) -> None:
        if not 1 <= self.sh_degree <= 4:
            raise ValueError(f"expected sh_degree from 1 to 4, got {self.sh_degree}")
        for name, least in _LEAST_SIZES.items():
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} of {least} or more, got {getattr(self, name)}")


def spherical_harmonics(directions: Float[Tensor, "S 3"], degree: int) -> Float[Tensor, "S B"]:
    """Real spherical harmonics of unit vectors, ``degree ** 2`` of them (degree 1 to 4)."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree > 1:
        basis += [0.4886025119029199 * v for v in (-y, z, -x)]
    if degree > 2:
        basis += [1.0925484305920792 * x * y, -1.0925484305920792 * y * z]
        basis += [0.9461746957575601 * zz - 0.31539156525251999, -1.0925484305920792 * x * z]
        basis += [0.5462742152960396 * (xx - yy)]
    if degree > 3:
        basis += [0.5900435899266435 * y * (yy - 3 * xx), 2.890611442640554 * x * y * z]
        basis += [0.4570457994644658 * y * (1 - 5 * zz), 0.3731763325901154 * z * (5 * zz - 3)]
        basis += [0.4570457994644658 * x * (1 - 5 * zz), 1.445305721320277 * z * (xx - yy)]
        basis += [0.5900435899266435 * x * (3 * yy - xx)]
    return torch.stack(basis, -1)


def weight_steps(weight: Tensor, bits: int) -> Tensor:
    """Quantisation step of each row [rows]: the largest magnitude becomes the largest integer."""
    rows = weight.detach().reshape(len(weight), -1)
    largest = rows.abs().amax(1)
    return torch.where(largest > 0, largest, torch.ones_like(largest)) / (2 ** (bits - 1) - 1)


def fake_quantize(weight: Tensor, bits: int) -> Tensor:
    """What the file will hold of a weight, with the gradient of the identity. Vectors are one
    row."""
    rows = weight if weight.ndim > 1 else weight[None]
    steps = weight_steps(rows, bits)[:, None]
    quantized = ((rows.detach() / steps).round() * steps).view_as(weight)
    return weight + (quantized - weight.detach())


class RadianceField(nn.Module):
    """Encoding, density network and colour network; see :meth:`create`.

    Args:
        weight_bits: Bits per weight in the file; 0 leaves weights alone.
        first_layer_bits: The same of the first layer, which holds the scale of every level.
        initial_log_density: Of all space, per world unit.
    """

    def __init__(
        self,
        encoding: LatentHashEncoding,
        shape: FieldShape,
        *,
        weight_bits: int = 8,
        first_layer_bits: int = 12,
        initial_log_density: float = INITIAL_LOG_DENSITY,
    ) -> None:
        super().__init__()
        self.encoding, self.shape = encoding, shape
        self.initial_log_density = initial_log_density
        self.weight_bits, self.first_layer_bits = weight_bits, first_layer_bits
        self.quantize_weights = False
        self.weight_integers: dict[str, tuple[Tensor, Tensor]] | None = None
        """Integers and steps that the weights came from, by name, if they came from a file: packing
        again must not drift."""
        decoder, hidden = encoding.latent_decoder, shape.hidden_dim
        num_features = decoder.num_levels * decoder.features_per_level
        self.density_mlp = nn.ModuleList(
            [nn.Linear(num_features, hidden), nn.Linear(hidden, 1 + shape.geo_feat_dim)]
        )
        sizes = [shape.sh_degree**2 + shape.appearance_dim + shape.geo_feat_dim]
        sizes += [hidden] * shape.num_color_layers + [3]
        self.color_mlp = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        for layer in (*self.density_mlp, *self.color_mlp):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")  # pyright: ignore
            nn.init.zeros_(layer.bias)  # pyright: ignore
        with torch.no_grad():
            self.density_mlp[1].bias[0] = initial_log_density  # pyright: ignore

    @classmethod
    def create(
        cls,
        grid: GridSpec,
        shape: FieldShape,
        backend: Backend,
        *,
        latent_dim: int,
        features_per_level: int,
        identity_decoder: bool = False,
        decoder_per_level: bool = True,
        quantizer: QuantizerName = "round",
        rate_model: RateModelName = "learned",
        entropy_model_layers: int = 1,
        shared_entropy_model: bool = False,
        latents_init_std: float = 0.02,
        decoder_init_std: float = 0.1,
        weight_bits: int = 8,
        first_layer_bits: int = 12,
        initial_log_density: float = INITIAL_LOG_DENSITY,
        with_latents: bool = True,
    ) -> RadianceField:
        """A field with an encoding of its own, for training as for decoded files; see the classes
        for what each number means."""
        latent_decoder = LatentDecoder(
            grid.num_levels,
            latent_dim,
            features_per_level,
            per_level=decoder_per_level,
            identity=identity_decoder,
            init_std=decoder_init_std,
        )
        density = FactorizedEntropyModel(
            grid.num_levels,
            latent_dim,
            num_layers=entropy_model_layers,
            shared=shared_entropy_model,
        )
        encoding = LatentHashEncoding(
            grid,
            backend,
            latent_decoder=latent_decoder,
            rate_model=make_rate_model(rate_model, density, get_quantizer(quantizer)),
            quantizer=get_quantizer(quantizer),
            init_std=latents_init_std,
            with_latents=with_latents,
        )
        return cls(
            encoding,
            shape,
            weight_bits=weight_bits,
            first_layer_bits=first_layer_bits,
            initial_log_density=initial_log_density,
        )

    def network_weights(self) -> NetworkWeights:
        """The weights as rendering uses them, latent decoder folded in. Differentiable."""
        density, color = (
            tuple((layer.weight, layer.bias) for layer in mlp)
            for mlp in (self.density_mlp, self.color_mlp)
        )
        first = self.encoding.latent_decoder.fold(*density[0])  # pyright: ignore
        return NetworkWeights((first, *density[1:]), color)  # pyright: ignore

    @torch.no_grad()
    def set_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives the networks the weights that :meth:`NetworkWeights.named` names.

        Raises:
            ValueError: a latent decoder is folded into them, or names differ.
        """
        if self.encoding.latent_decoder.matrix is not None:
            raise ValueError("expected a field with an identity decoder, got one to be folded")
        parameters = self.network_weights().named()
        if parameters.keys() != tensors.keys():
            raise ValueError(f"expected weights {list(parameters)}, got {list(tensors)}")
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])

    def bits_of(self, name: str) -> int:
        """Bits per weight of a tensor, by its name."""
        return self.first_layer_bits if name.startswith("density_mlp.0") else self.weight_bits

    def effective_weights(self) -> NetworkWeights:
        """:meth:`network_weights`, quantised in the loop once that has been switched on."""
        weights = self.network_weights()
        if self.quantize_weights and self.weight_bits:
            weights = weights.map(lambda name, w: fake_quantize(w, self.bits_of(name)))
        return weights

    def arrays(self, table: TableView | None = None) -> FieldArrays:
        """What the hot operations read of the field.

        Args:
            table: From :meth:`LatentHashEncoding.table`.
        """
        table = self.encoding.table() if table is None else table
        return FieldArrays(
            table.rows,
            self.encoding.grid,
            self.effective_weights(),
            table.quantizer,
            self.encoding.num_levels_read,
        )

    def density(
        self,
        x: Float[Tensor, "S 3"],
        weights: NetworkWeights | None = None,
        table: TableView | None = None,
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S geo"]]:
        """Density and geometry features at positions in the unit cube."""
        weights = self.effective_weights() if weights is None else weights
        outputs = density_network(self.encoding(x, table), weights)
        return density_of(outputs), outputs[:, 1:]

    def ray_features(
        self, directions: Float[Tensor, "R 3"], appearance: Float[Tensor, "R A"] | None = None
    ) -> Float[Tensor, "R B"]:
        """What the colour network sees of a ray: harmonics of its direction, appearance code."""
        harmonics = spherical_harmonics(directions, self.shape.sh_degree)
        return harmonics if appearance is None else torch.cat([harmonics, appearance], -1)

    def color(
        self,
        ray_features: Float[Tensor, "S B"],
        geo: Float[Tensor, "S geo"],
        weights: NetworkWeights | None = None,
    ) -> Float[Tensor, "S 3"]:
        """Colour in [0, 1] from :meth:`ray_features` and geometry features of each sample."""
        weights = self.effective_weights() if weights is None else weights
        return color_network(torch.cat([ray_features, geo], -1), weights)
