"""A multi-resolution hash grid of quantised latents (SHACIRA, Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from shacira_nerfstudio.backends import IDENTITY, Backend, SparseRowGradient, TableQuantizer
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import LatentQuantizer, get_quantizer, noise_seed
from shacira_nerfstudio.model.rate_models import CodeLengths, RateModel

_MAX_SYMBOL = 32767
"""Largest magnitude of an int16."""


@dataclass(frozen=True)
class TableView:
    """A table as one training step, or one view, reads it."""

    rows: Shaped[Tensor, "E d"]
    quantizer: TableQuantizer = IDENTITY
    gradient: SparseRowGradient | None = None
    """Gets the gradient of the rows, if the backend writes it there."""


class LatentHashEncoding(nn.Module):
    """Latents [E, d], their quantiser, decoder and model of the rate.

    ``forward`` interpolates quantised latents; :attr:`latent_decoder` turns the result into
    features. In eval mode latents are always integers, whatever training does at that time.

    Args:
        grid: Layout of the table; ``grid.num_dims`` is that of the positions.
        quantizer: What training uses until :meth:`set_quantizer`.
        init_std: Latents start from N(0, init_std^2); below 0.1 all of them round to 0.
        with_latents: Whether there are float latents; without, :meth:`install_symbols` follows.
    """

    def __init__(
        self,
        grid: GridSpec,
        backend: Backend,
        *,
        latent_decoder: LatentDecoder,
        rate_model: RateModel,
        quantizer: LatentQuantizer | None = None,
        init_std: float = 0.02,
        with_latents: bool = True,
    ) -> None:
        super().__init__()
        self.grid, self.backend = grid, backend
        rows = grid.num_entries if with_latents else 0
        self.latents = nn.Parameter(torch.randn(rows, latent_decoder.latent_dim) * init_std)
        self.latent_decoder = latent_decoder
        self.rate_model = rate_model
        self.quantizer = quantizer or get_quantizer("round")
        self.temperature = 1.0
        self.max_level = grid.num_levels
        """Levels from this one on read as 0 in eval mode; for looking at coarse versions."""
        self.trained_levels = grid.num_levels
        """The same while training: whoever looks at coarse versions meanwhile changes nothing."""
        self.uses_sparse_gradient = True
        """Whether gradients of the latents may be sparse rows; autograd's own functions get none
        then."""
        self._rounded: tuple[tuple, Tensor] | None = None
        self._sparse_gradient: SparseRowGradient | None = None
        self.symbols: Tensor | None
        self.register_buffer("symbols", None)

    @property
    def num_levels_read(self) -> int:
        """Levels from this one on read as 0."""
        return self.trained_levels if self.training else self.max_level

    def set_quantizer(self, quantizer: LatentQuantizer, temperature: float = 1.0) -> None:
        """What training uses from now on, see :class:`QuantizeSchedule`."""
        self.quantizer, self.temperature = quantizer, temperature

    @property
    def is_quantized(self) -> bool:
        """Whether evaluation reads integers."""
        return self.quantizer.is_quantized

    @property
    def is_trainable(self) -> bool:
        """Whether there are float latents; those of a decoded file are integers."""
        return self.symbols is None

    def install_symbols(self, symbols: Tensor) -> None:
        """Takes integers [E, d] from a decoded file; the encoding can then render but not train.

        Held in one byte per latent if they fit.
        """
        expected = (self.grid.num_entries, self.latent_decoder.latent_dim)
        if tuple(symbols.shape) != expected:
            raise ValueError(f"expected symbols {expected}, got {tuple(symbols.shape)}")
        small = not len(symbols) or int(symbols.abs().max()) <= torch.iinfo(torch.int8).max
        self.symbols = symbols.to(torch.int8 if small else torch.int16)

    def rounded(self) -> Tensor:
        """Integers [E, d] in int8 or int16, made anew only after the latents changed."""
        if self.symbols is not None:
            return self.symbols
        version = (self.latents._version, self.latents.device, self.quantizer)
        if self._rounded is None or self._rounded[0] != version:
            values = self.quantizer.evaluate(self.latents).round()
            symbols = values.clamp(-_MAX_SYMBOL, _MAX_SYMBOL).to(torch.int16)
            self._rounded = (version, symbols)
        return self._rounded[1]

    def _gradient(self) -> SparseRowGradient | None:
        """Where gradients of the latents go, with ``latents.grad`` being what it holds; None if
        they go where autograd puts them."""
        if not (self.backend.supports_sparse_gradient and self.uses_sparse_gradient):
            return None
        if self._sparse_gradient is None:
            shape, device = self.latents.shape, self.latents.device
            self._sparse_gradient = SparseRowGradient.zeros(*shape, device=device)
        gradient = self._sparse_gradient
        if self.latents.grad is not gradient.values:
            gradient.clear()
            self.latents.grad = gradient.values
            # For the optimiser, which knows parameters only.
            self.latents.sparse_gradient = (gradient, self.backend)  # pyright: ignore
        return gradient

    def table(self) -> TableView:
        """Quantised latents: a fresh sample while training, integers otherwise."""
        if not self.training:
            return TableView(self.rounded() if self.is_quantized else self.latents)
        if not self.is_trainable:
            raise RuntimeError(
                "a field from a decoded file cannot be trained: it has no float latents"
            )
        gradient = self._gradient() if torch.is_grad_enabled() else None
        quantizer = self.quantizer
        if quantizer.look_up is None:
            if gradient is not None:
                gradient.touch_all()
            return TableView(quantizer.table(self.latents, self.temperature))
        seed = noise_seed() if quantizer.look_up == "noise" else 0
        return TableView(self.latents, TableQuantizer(quantizer.look_up, seed), gradient)

    def mean_table(self) -> TableView:
        """What training sees on average: the latents while the quantiser is soft, else integers."""
        if self.quantizer.is_soft and self.is_trainable:
            return TableView(self.latents.detach())
        if self.quantizer.look_up is None or not self.is_trainable:
            return TableView(self.rounded())
        return TableView(self.latents.detach(), TableQuantizer("round"))

    def forward(
        self,
        x: Float[Tensor, "S D"],
        table: TableView | None = None,
        *,
        values: Float[Tensor, "S L d"] | None = None,
        num_levels: int | None = None,
    ) -> Float[Tensor, "S L d"]:
        """Interpolated latents at positions in the unit cube.

        Args:
            table: From :meth:`table`, so that several calls of one step see the same sample.
            values: See :meth:`Backend.interpolate`.
            num_levels: Levels from this one on read as 0; by default :attr:`num_levels_read`.
        """
        table = self.table() if table is None else table
        latents = self.backend.interpolate(
            x,
            table.rows,
            self.grid,
            quantizer=table.quantizer,
            values=values,
            gradient=table.gradient,
        )
        num_levels = self.num_levels_read if num_levels is None else num_levels
        if num_levels < self.grid.num_levels:
            keep = torch.arange(self.grid.num_levels, device=latents.device) < num_levels
            latents = latents * keep[:, None]
        return latents

    def bits(self, *, fraction: float = 1.0) -> Float[Tensor, ""]:
        """Estimated bits of the whole table by :attr:`rate_model`, differentiable in the latents.

        Of all rows, or blocks of rows, it reads every k-th from a random one on, k = round(1 /
        fraction): each row is read with probability 1/k, so the estimate is unbiased.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"expected a fraction in (0, 1], got {fraction}")
        stride = max(1, round(1 / fraction))
        first = int(torch.randint(stride, ())) if stride > 1 else 0
        is_trained = torch.is_grad_enabled() and self.latents.requires_grad and self.training
        gradient = self._gradient() if is_trained else None
        return stride * self.rate_model.bits(
            self.latents, self.grid, self.backend, first=first, stride=stride, gradient=gradient
        )

    def bits_of_touched(self) -> Float[Tensor, ""] | None:
        """The same from the rows whose gradient is there by now, see
        :meth:`CodeLengths.bits_of_touched`; None without code lengths, or without a gradient."""
        model = self.rate_model
        if not isinstance(model, CodeLengths) or not model.is_installed:
            return None
        gradient = self._gradient()
        if gradient is None and self.latents.grad is None:
            return None
        found = gradient or SparseRowGradient.of(self.latents.grad)  # pyright: ignore
        touched = found.touched_rows()
        return model.bits_of_touched(
            self.latents, self.grid, self.backend, touched, gradient=gradient
        )
