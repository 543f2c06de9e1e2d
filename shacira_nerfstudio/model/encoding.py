"""A multi-resolution hash grid of quantised latents (SHACIRA, Sec. 3)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, Int16, Shaped
from torch import Tensor, nn

from shacira_nerfstudio.backends import Backend, Quantizer, RowGradient
from shacira_nerfstudio.backends.sparse_rows import PLAIN, RATE_BLOCK
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.bernoulli_rate import binary_bits
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.latent_decoder import LatentDecoder
from shacira_nerfstudio.model.quantize import QuantizeMode, quantize, sign

_LOOK_UPS: dict[QuantizeMode, Literal["none", "round", "noise"]] = {
    "none": "none",
    "noise": "noise",
    "round": "round",
    "straight_through": "round",
}
"""Quantisers that a look-up applies to the rows that it reads; the others make a table of their
own."""


_TABLES = "code_lengths", "classes", "first_table"
"""Buffers whose shapes are those of the file that training would write now."""


@dataclass(frozen=True)
class TableView:
    """A table as one training step, or one view, reads it."""

    rows: Shaped[Tensor, "E d"]
    quantizer: Quantizer = PLAIN
    gradient: RowGradient | None = None
    """Gets the gradient of the rows, if the backend writes it there."""


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
        """Levels from this one on read as 0 in eval mode; for looking at coarse versions."""
        self.trained_levels = grid.num_levels
        """The same while training: whoever looks at coarse versions meanwhile changes nothing."""
        self.by_rows = True
        """Whether gradients of the latents may go by rows; autograd's own functions get none
        then."""
        self._rounded: tuple[tuple, Tensor] | None = None
        self._row_gradient: RowGradient | None = None
        self.symbols: Tensor | None
        self.register_buffer("symbols", None)
        self.code_lengths: Tensor
        """Bits of each letter in each of the file's tables [T, W]; empty if :attr:`entropy_model`
        says what latents cost."""
        self.classes: Tensor
        """Table of each latent, int16 [E, d], from the first one of its level on; -1 in entries
        that nothing reaches. Empty likewise."""
        self.first_table: Tensor
        """The first table of each level, int32 [L]. Empty likewise."""
        self.letters_per_unit: Tensor
        """How densely these tables know the cost, int32 []."""
        self.register_buffer("letters_per_unit", torch.ones((), dtype=torch.int32))
        self.register_buffer("code_lengths", torch.zeros(0, 0))
        self.register_buffer("classes", torch.zeros(0, 0, dtype=torch.int16))
        self.register_buffer("first_table", torch.zeros(0, dtype=torch.int32))

    @property
    def num_levels_read(self) -> int:
        """Levels from this one on read as 0."""
        return self.trained_levels if self.training else self.max_level

    def set_quantizer(self, mode: QuantizeMode, temperature: float) -> None:
        """What training uses from now on, see :class:`QuantizeSchedule`."""
        self.mode, self.temperature = mode, temperature

    @property
    def is_quantized(self) -> bool:
        return self.mode != "none"

    def install_tables(
        self,
        code_lengths: Float[Tensor, "T W"],
        classes: Int16[Tensor, "E d"],
        first_table: Int[Tensor, " L"],
        *,
        letters_per_unit: int = 1,
    ) -> None:
        """From now on latents cost what these tables say, see :meth:`Backend.coded_bits`."""
        self.letters_per_unit.fill_(letters_per_unit)
        for name, value in zip(_TABLES, (code_lengths, classes, first_table), strict=True):
            setattr(self, name, value.to(self.latents.device))

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        # The number of tables is the checkpoint's.
        for name in _TABLES:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args)

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

    def _rows_gradient(self) -> RowGradient | None:
        """Where gradients of the latents go, with ``latents.grad`` being what it holds."""
        if not (self.backend.writes_rows and self.by_rows):
            return None
        if self._row_gradient is None:
            self._row_gradient = RowGradient.zeros(*self.latents.shape)
        gradient = self._row_gradient
        if self.latents.grad is not gradient.values:
            gradient.clear()
            self.latents.grad = gradient.values
            # For the optimiser, which knows parameters only.
            self.latents.rows = (gradient, self.backend)  # pyright: ignore
        return gradient

    def table(self) -> TableView:
        """Quantised latents: a fresh sample while training, integers otherwise."""
        if not self.training:
            return TableView(self.rounded() if self.is_quantized else self.latents)
        if self.symbols is not None:
            raise RuntimeError(
                "a field from a decoded file cannot be trained: it has no float latents"
            )
        gradient = self._rows_gradient() if torch.is_grad_enabled() else None
        if self.mode not in _LOOK_UPS:
            if gradient is not None:
                gradient.touch_all()
            return TableView(quantize(self.latents, self.mode, self.temperature))
        seed = _new_seed() if self.mode == "noise" else 0
        return TableView(self.latents, Quantizer(_LOOK_UPS[self.mode], seed), gradient)

    def mean_table(self) -> TableView:
        """What training sees on average: the latents while the quantiser is soft, else integers."""
        if self.symbols is not None or self.mode == "binary":
            return TableView(self.rounded())
        soft = self.mode in ("noise", "sga", "sga_tanh", "none")
        return TableView(self.latents.detach(), PLAIN if soft else Quantizer("round"))

    def forward(
        self,
        x: Float[Tensor, "S D"],
        table: TableView | None = None,
        *,
        values: Float[Tensor, "S L d"] | None = None,
    ) -> Float[Tensor, "S L d"]:
        """Interpolated latents at positions in the unit cube.

        Args:
            table: From :meth:`table`, so that several calls of one step see the same sample.
            values: See :meth:`Backend.interpolate`.
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
        if self.num_levels_read < self.grid.num_levels:
            keep = torch.arange(self.grid.num_levels, device=latents.device) < self.num_levels_read
            latents = latents * keep[:, None]
        return latents

    def bits(self, *, fraction: float = 1.0) -> Float[Tensor, ""]:
        """Estimated bits of the whole table, differentiable in the latents.

        With tables it is what they say, and entries that nothing reaches cost nothing. Without, it
        is the entropy model's word on ``latents + noise`` (SHACIRA, Eq. 4), which gives the latents
        a gradient that rounding would not, and differentiable in the model, too. Of the blocks of
        16 rows it reads every k-th from a random one on, k = round(1 / fraction): each row is read
        with probability 1/k, so the estimate is unbiased.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"expected a fraction in (0, 1], got {fraction}")
        stride = max(1, round(1 / fraction))
        first = int(torch.randint(stride, ())) if stride > 1 else 0
        model = self.entropy_model
        is_trained = torch.is_grad_enabled() and self.latents.requires_grad and self.training
        gradient = self._rows_gradient() if is_trained else None
        if self.mode == "binary":
            if gradient is not None:
                gradient.touch_all()
            tables = itertools.pairwise(self.grid.offsets)
            rows = [self.latents[b + (first - b) % stride : e : stride] for b, e in tables]
            return stride * binary_bits(rows, model)
        if len(self.code_lengths):
            return stride * self.backend.coded_bits(
                self.latents,
                self.code_lengths,
                self.classes,
                self.first_table.tolist(),
                self.grid,
                letters_per_unit=int(self.letters_per_unit),
                first=first,
                stride=stride,
                gradient=gradient,
            )
        seed = _new_seed()
        if model.num_layers == 1:
            return stride * self.backend.logistic_bits(
                self.latents,
                *model.logistic(),
                self.grid,
                seed=seed,
                first=first,
                stride=stride,
                gradient=gradient,
            )
        if gradient is not None:
            gradient.touch_all()
        noisy = self.latents + (
            self.backend.quantize(self.latents, Quantizer("noise", seed)) - self.latents.detach()
        )
        row = torch.arange(len(noisy), device=noisy.device)
        rated = row // RATE_BLOCK % stride == first
        total = self.latents.new_zeros(())
        for level, (begin, end) in enumerate(itertools.pairwise(self.grid.offsets)):
            rows = row[begin:end][rated[begin:end]]
            total = total + model.bits(noisy[rows], level).sum()
        return total * stride


def _new_seed() -> int:
    """From torch's generator, so that ``torch.manual_seed`` governs this noise too."""
    return int(torch.randint(1 << 32, ()).item())
