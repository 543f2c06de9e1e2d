"""The affine map from integer latents to features (SHACIRA, Sec. 3.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LatentDecoder(nn.Module):
    """``features_l = latents_l @ matrix_l + shift_l`` for each level l.

    Because interpolation weights sum to one and the map is affine, decoding the interpolated
    latents equals interpolating the decoded ones: only queried points are decoded, the feature
    table never exists. For the same reason the map folds exactly into the linear layer that
    follows, see :meth:`fold`.

    Args:
        num_levels: L of the grid.
        latent_dim: d, channels of the latents.
        features_per_level: F.
        per_level: a matrix for each level instead of one for all (the paper's choice).
        identity: no parameters, features are the latents (the plain Instant-NGP grid); needs d = F.
    """

    is_affine = True

    def __init__(
        self,
        num_levels: int,
        latent_dim: int,
        features_per_level: int,
        *,
        per_level: bool = True,
        identity: bool = False,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        if identity and latent_dim != features_per_level:
            raise ValueError(
                f"expected latent_dim = features_per_level for an identity decoder, got "
                f"{latent_dim} and {features_per_level}"
            )
        self.num_levels, self.latent_dim = num_levels, latent_dim
        self.features_per_level = features_per_level
        self.matrix = self.shift = None
        if not identity:
            rows = num_levels if per_level else 1
            # S ~ N(0, 0.1^2) and a shift of 0, as in every configuration of the paper's code.
            self.matrix = nn.Parameter(torch.randn(rows, latent_dim, features_per_level) * init_std)
            self.shift = nn.Parameter(torch.zeros(rows, features_per_level))

    def forward(self, latents: Float[Tensor, "S L d"]) -> Float[Tensor, "S LF"]:
        """Features of all levels, level after level."""
        if self.matrix is None or self.shift is None:
            return latents.flatten(1)
        matrix = self.matrix.expand(self.num_levels, -1, -1)
        return (torch.einsum("sld,ldf->slf", latents, matrix) + self.shift).flatten(1)

    def fold(
        self, weight: Float[Tensor, "H LF"], bias: Float[Tensor, " H"]
    ) -> tuple[Float[Tensor, "H Ld"], Float[Tensor, " H"]]:
        """The linear layer that does to latents what (weight, bias) does to features.
        Differentiable."""
        if self.matrix is None or self.shift is None:
            return weight, bias
        split = weight.view(len(weight), self.num_levels, self.features_per_level)
        matrix = self.matrix.expand(self.num_levels, -1, -1)
        shift = self.shift.expand(self.num_levels, -1)
        folded = torch.einsum("hlf,ldf->hld", split, matrix).flatten(1)
        return folded, bias + torch.einsum("hlf,lf->h", split, shift)
