"""The channels of a picture's or a video's pixels over a grid of quantised latents.

SHACIRA's second use (Girish et al., ICCV 2023, Sec. 4.2): no rays and no densities, one network
from interpolated latents to a pixel. The latent decoder is folded into its first layer, as in
:class:`shacira_nerfstudio.model.radiance_field.RadianceField`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from shacira_nerfstudio.backends import Backend
from shacira_nerfstudio.backends.types import Layer
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.encoding import LatentHashEncoding, TableView
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import QuantizerName, get_quantizer
from shacira_nerfstudio.model.radiance_field import fake_quantize
from shacira_nerfstudio.model.rate_models import RateModelName, make_rate_model

FIRST_LAYER = "mlp.0.weight"


@dataclass(frozen=True)
class ImageFieldShape:
    """Sizes of the network, and what its weights take in a file."""

    num_channels: int = 3
    """Of a pixel."""
    hidden_dim: int = 24
    num_hidden_layers: int = 2
    weight_bits: int = 10
    """Bits per weight in the file, at the most."""
    fine_bits: int = 12
    """The same of the first layer, which holds the scale of every level, and of biases, which are
    few: rounded to 8 bits, the last ones are off by a grey value."""

    def __post_init__(self) -> None:
        for name in ("num_channels", "hidden_dim", "num_hidden_layers", "weight_bits"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of 1 or more, got {getattr(self, name)}")


class ImageField(nn.Module):
    """Encoding and network; see :meth:`create`."""

    def __init__(self, encoding: LatentHashEncoding, shape: ImageFieldShape) -> None:
        super().__init__()
        self.encoding, self.shape = encoding, shape
        self.quantize_weights = False
        decoder = encoding.latent_decoder
        sizes = [decoder.num_levels * decoder.features_per_level]
        sizes += [shape.hidden_dim] * shape.num_hidden_layers + [shape.num_channels]
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        for layer in self.mlp:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")  # pyright: ignore
            nn.init.zeros_(layer.bias)  # pyright: ignore

    @classmethod
    def create(
        cls,
        grid: GridSpec,
        shape: ImageFieldShape,
        backend: Backend,
        *,
        latent_dim: int = 1,
        features_per_level: int = 4,
        decoder_per_level: bool = True,
        identity_decoder: bool = False,
        quantizer: QuantizerName = "noise",
        rate_model: RateModelName = "code_lengths",
        entropy_model_layers: int = 1,
        shared_entropy_model: bool = False,
        latents_init_std: float = 0.02,
    ) -> ImageField:
        """A field with an encoding of its own; see the classes for what each number means."""
        latent_decoder = LatentDecoder(
            grid.num_levels,
            latent_dim,
            features_per_level,
            per_level=decoder_per_level,
            identity=identity_decoder,
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
        )
        return cls(encoding, shape)

    def layers(self) -> tuple[Layer, ...]:
        """Weights and biases with the latent decoder folded in. Differentiable."""
        first, *rest = ((layer.weight, layer.bias) for layer in self.mlp)
        folded = self.encoding.latent_decoder.fold(*first)  # pyright: ignore
        return folded, *rest  # pyright: ignore

    def bits_of(self, name: str) -> int:
        """Bits per weight of a tensor, by its name."""
        is_fine = name == FIRST_LAYER or name.endswith("bias")
        return self.shape.fine_bits if is_fine else self.shape.weight_bits

    def named_weights(self) -> dict[str, Tensor]:
        """Of :meth:`layers`, by the names that a file has."""
        return {
            f"mlp.{index}.{part}": tensor
            for index, layer in enumerate(self.layers())
            for part, tensor in zip(("weight", "bias"), layer, strict=True)
        }

    def effective_layers(self) -> tuple[Layer, ...]:
        """:meth:`layers`, quantised in the loop once that has been switched on."""
        tensors = self.named_weights()
        if self.quantize_weights:
            tensors = {name: fake_quantize(w, self.bits_of(name)) for name, w in tensors.items()}
        values = list(tensors.values())
        return tuple(zip(values[::2], values[1::2], strict=True))

    def forward(
        self, x: Float[Tensor, "S D"], table: TableView | None = None
    ) -> Float[Tensor, "S C"]:
        """Channels at positions in the unit cube: 0 is black, 1 is white, not clipped.

        Args:
            table: From :meth:`LatentHashEncoding.table`.
        """
        backend = self.encoding.backend
        return backend.pixel_network(self.encoding(x, table), self.effective_layers())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What training changes, by kind; kinds of which there is nothing are left out."""
        encoding = self.encoding
        rate_model = encoding.rate_model if encoding.is_quantized else nn.Module()
        groups = {
            "latents": [encoding.latents],
            "latent_decoder": list(encoding.latent_decoder.parameters()),
            "entropy_model": [p for p in rate_model.parameters() if p.requires_grad],
            "fields": list(self.mlp.parameters()),
        }
        return {name: parameters for name, parameters in groups.items() if parameters}
