"""The densities that the rate term assumes for the latents (Ballé et al., ICLR 2018, Appendix 6.1;
width 1).

The paper has one for all levels; here each level has its own, unless asked otherwise.

Layer k but the last: ``x <- x softplus(h_k) + b_k``, then ``x <- x + tanh(x) tanh(a_k)``. Last
layer: ``cdf(x) = sigmoid(x softplus(h) + b)``. One layer is a logistic distribution. Bits of a
value v: ``-log2(cdf(v + 0.5) - cdf(v - 0.5))``. It steers training only; files hold integer tables.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MAX_BITS = 50.0
"""Most bits that one value is charged, so that an outlier cannot blow up the loss."""
_FLOOR = 1e-10


class FactorizedEntropyModel(nn.Module):
    """One density per (level, channel), or per channel only (``shared``, as in the paper).

    Args:
        num_layers: 1 is a logistic distribution; more bend it.
    """

    def __init__(
        self,
        num_levels: int,
        latent_dim: int,
        *,
        num_layers: int = 1,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"expected num_layers of at least 1, got {num_layers}")
        self.shared, self.num_layers = shared, num_layers
        start = torch.randn(3 * num_layers - 1, 1 if shared else num_levels, latent_dim) * 0.01
        self.scale = nn.Parameter(start[:num_layers])
        self.shift = nn.Parameter(start[num_layers : 2 * num_layers])
        self.bend = nn.Parameter(start[2 * num_layers :])

    def logistic(self) -> tuple[Float[Tensor, "L d"], Float[Tensor, "L d"]]:
        """Scale and shift of a model of one layer: cdf(x) = sigmoid(x scale + shift)."""
        if self.num_layers != 1:
            raise ValueError(f"expected a model of one layer, got {self.num_layers}")
        return F.softplus(self.scale[0]), self.shift[0]

    def _logits(self, x: Tensor, level: int) -> Tensor:
        row = 0 if self.shared else level
        for layer in range(self.num_layers):
            x = x * F.softplus(self.scale[layer, row]) + self.shift[layer, row]
            if layer + 1 < self.num_layers:
                x = x + torch.tanh(x) * torch.tanh(self.bend[layer, row])
        return x

    def cdf(self, x: Float[Tensor, "*n d"], level: int) -> Float[Tensor, "*n d"]:
        """Cumulative distribution of one level's values."""
        return torch.sigmoid(self._logits(x, level))

    def pmf(self, values: Float[Tensor, "*n d"], level: int) -> Float[Tensor, "*n d"]:
        """Probability of the unit interval around each value."""
        upper = self._logits(values + 0.5, level)
        lower = self._logits(values - 0.5, level)
        # In the upper tail both cdf values round to 1; there the mirrored difference keeps its
        # digits.
        sign = -torch.sign((upper + lower).detach())
        sign = torch.where(sign == 0, torch.ones_like(sign), sign)
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()

    def bits(self, values: Float[Tensor, "*n d"], level: int) -> Float[Tensor, "*n d"]:
        """Estimated cost of each value of one level."""
        return (-torch.log2(self.pmf(values, level) + _FLOOR)).clamp(0, MAX_BITS)
