"""A multi-resolution hash grid of quantised latents (SHACIRA, Sec. 3)."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shacira_nerfstudio.backends import Backend
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.binary_rate import binary_bits
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import QuantizeMode, quantize, sign


class LatentHashEncoding(nn.Module):
    """Latents [E, d], their quantiser, decoder and entropy model.

    ``forward`` interpolates quantised latents; :attr:`latent_decoder` turns the result into
    features. In eval mode latents are always rounded, whatever training does at that time.

    Args:
        grid: Layout of the table; ``grid.num_dims`` is that of the positions.
        init_std: Latents start from N(0, init_std^2); below 0.1 all of them round to 0.
    """

    def __init__(
        self,
        grid: GridSpec,
        backend: Backend,
        *,
        latent_decoder: LatentDecoder,
        entropy_model: FactorizedEntropyModel,
        init_std: float = 0.02,
        with_latents: bool = True,
    ) -> None:
        super().__init__()
        self.grid, self.backend = grid, backend
        rows = grid.num_entries if with_latents else 0
        self.latents = nn.Parameter(torch.randn(rows, latent_decoder.latent_dim) * init_std)
        self.latent_decoder = latent_decoder
        self.entropy_model = entropy_model
        self.mode: QuantizeMode = "round"
        self.temperature = 1.0
        self.max_level = grid.num_levels
        """Levels from this one on read as 0; for looking at coarse versions."""
        self._rounded: tuple[tuple, Tensor] | None = None
        self.symbols: Tensor | None
        self.register_buffer("symbols", None)

    def set_quantizer(self, mode: QuantizeMode, temperature: float) -> None:
        """What training uses from now on, see :class:`QuantizeSchedule`."""
        self.mode, self.temperature = mode, temperature

    @property
    def is_quantized(self) -> bool:
        return self.mode != "none"

    def install_symbols(self, symbols: Tensor) -> None:
        """Takes integers [E, d] from a decoded file; the encoding can then render but not train.

        Held in one byte per latent if they fit.
        """
        expected = (self.grid.num_entries, self.latent_decoder.latent_dim)
        if tuple(symbols.shape) != expected:
            raise ValueError(f"expected symbols {expected}, got {tuple(symbols.shape)}")
        small = not len(symbols) or int(symbols.abs().max()) <= 127
        self.symbols = symbols.to(torch.int8 if small else torch.int16)

    def rounded(self) -> Tensor:
        """Integers [E, d] in int8 or int16, made anew only after the latents changed."""
        if self.symbols is not None:
            return self.symbols
        version = (self.latents._version, self.latents.device, self.mode == "binary")
        if self._rounded is None or self._rounded[0] != version:
            values = sign(self.latents) if self.mode == "binary" else self.latents.detach().round()
            symbols = values.clamp(-32767, 32767).to(torch.int16)
            self._rounded = (version, symbols)
        return self._rounded[1]

    def table(self) -> Float[Tensor, "E d"]:
        """Quantised latents: a fresh sample while training, integers otherwise."""
        if self.training and self.symbols is not None:
            raise RuntimeError(
                "a field from a decoded file cannot be trained: it has no float latents"
            )
        if self.training and self.mode == "noise":
            return self.backend.add_noise(self.latents)
        if self.training or not self.is_quantized:
            return quantize(self.latents, self.mode, self.temperature)
        return self.rounded()

    def mean_table(self) -> Float[Tensor, "E d"]:
        """What training sees on average: the latents while the quantiser is soft, else integers."""
        soft = self.symbols is None and self.mode in ("noise", "sga", "sga_tanh", "none")
        return self.latents.detach() if soft else self.rounded()

    def forward(
        self,
        x: Float[Tensor, "S D"],
        table: Tensor | None = None,
        *,
        values: Float[Tensor, "S L d"] | None = None,
    ) -> Float[Tensor, "S L d"]:
        """Interpolated latents at positions in the unit cube.

        Args:
            table: From :meth:`table`, so that several calls of one step see the same sample.
            values: See :meth:`Backend.interpolate`.
        """
        table = self.table() if table is None else table
        latents = self.backend.interpolate(x, table, self.grid, values=values)
        if self.max_level < self.grid.num_levels:
            keep = torch.arange(self.grid.num_levels, device=latents.device) < self.max_level
            latents = latents * keep[:, None]
        return latents

    def bits(self, *, fraction: float = 1.0) -> Float[Tensor, ""]:
        """Estimated bits of the whole table, differentiable in the latents and the entropy model.

        The estimate looks at ``latents + noise`` (SHACIRA, Eq. 4), which gives the latents a
        gradient that rounding would not. It reads every k-th row from a random one on, k = round(1
        / fraction): each row is read with probability 1/k, so the estimate is unbiased.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"expected a fraction in (0, 1], got {fraction}")
        stride = max(1, round(1 / fraction))
        first = int(torch.randint(stride, ())) if stride > 1 else 0
        model = self.entropy_model
        if self.mode == "binary":
            tables = itertools.pairwise(self.grid.offsets)
            rows = [self.latents[b + (first - b) % stride : e : stride] for b, e in tables]
            return stride * binary_bits(rows, model)
        if model.num_layers == 1:
            scale, shift = model.logistic()
            rate = self.backend.logistic_bits
            return stride * rate(self.latents, scale, shift, self.grid, first=first, stride=stride)
        total = self.latents.new_zeros(())
        for level, (begin, end) in enumerate(itertools.pairwise(self.grid.offsets)):
            # Rows of the whole table: a stride goes on across levels.
            rows = self.latents[begin + (first - begin) % stride : end : stride]
            total = total + model.bits(self.backend.add_noise(rows), level).sum()
        return total * stride
