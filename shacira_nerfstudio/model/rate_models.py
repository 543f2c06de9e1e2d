"""What latents cost while they train: three models of the rate, with one interface.

Each looks at some rows of the table and sums up their bits, differentiable in the latents.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Int16
from torch import Tensor, nn

from shacira_nerfstudio.backends import Backend, SparseRowGradient
from shacira_nerfstudio.backends.latent_rates import num_rated, rated_rows
from shacira_nerfstudio.backends.sparse_rows import noise_at
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.entropy_model import FactorizedEntropyModel
from shacira_nerfstudio.model.quantize import Binary, LatentQuantizer, noise_seed

RateModelName = Literal["code_lengths", "learned"]

LARGEST_VALUE = 63
"""Tables of code lengths hold values from -63 to 63; beyond, a unit costs as much as between the
last two."""
_MIN_PROBABILITY = 1e-4
"""A probability of a sign never comes nearer to 0 or 1: signs that die out must be able to come
back."""


class RateModel(nn.Module, ABC):
    """The bits of a table of latents [E, d]."""

    @abstractmethod
    def bits(
        self,
        latents: Float[Tensor, "E d"],
        grid: GridSpec,
        backend: Backend,
        *,
        first: int = 0,
        stride: int = 1,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, ""]:
        """Sum of the bits of about 1 / ``stride`` of the rows, of each with the same probability if
        ``first`` is drawn from those below ``stride``.

        Args:
            gradient: As in :meth:`Backend.interpolate`; autograd's own functions write to its
                array, too, after which all of its rows count as touched.
        """


class Learned(RateModel):
    """The densities' word on ``latents + noise`` (SHACIRA, Eq. 4), which gives the latents a
    gradient that rounding would not; differentiable in the densities, too.

    Rows are read in blocks of 16.
    """

    def __init__(self, density: FactorizedEntropyModel) -> None:
        super().__init__()
        self.density = density

    def bits(
        self,
        latents: Float[Tensor, "E d"],
        grid: GridSpec,
        backend: Backend,
        *,
        first: int = 0,
        stride: int = 1,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, ""]:
        seed = noise_seed()
        if self.density.num_layers == 1:
            return backend.logistic_bits(
                latents,
                *self.density.logistic(),
                grid,
                seed=seed,
                first=first,
                stride=stride,
                gradient=gradient,
            )
        if gradient is not None:
            gradient.touch_all()
        rows = rated_rows(len(latents), first, stride, latents.device)
        rated, channels = latents[rows], torch.arange(latents.shape[1], device=latents.device)
        noise = noise_at(rows[:, None] * len(channels) + channels, seed).to(latents)
        noisy = rated + ((rated.detach() + noise) - rated.detach())
        total = latents.new_zeros(())
        ends = [num_rated(offset, first, stride) for offset in grid.offsets]
        for level, (begin, end) in enumerate(itertools.pairwise(ends)):
            total = total + self.density.bits(noisy[begin:end], level).sum()
        return total


class CodeLengths(RateModel):
    """What the file's own tables of code lengths say, and nothing for entries that nothing reaches,
    see :meth:`Backend.coded_bits`.

    Until the first tables are installed, densities say what latents cost; they do not learn.
    """

    code_lengths: Tensor
    """Bits of each value in each of the file's tables [T, W]; empty before the first."""
    classes: Tensor
    """Table of each latent, int16 [E, d], from the first one of its level on; -1 in entries that
    nothing reaches. Empty likewise."""
    first_table: Tensor
    """The first table of each level, int32 [L]. Empty likewise."""

    def __init__(self, before: Learned) -> None:
        super().__init__()
        self.before = before.requires_grad_(False)
        self.register_buffer("code_lengths", torch.zeros(0, 0))
        self.register_buffer("classes", torch.zeros(0, 0, dtype=torch.int16))
        self.register_buffer("first_table", torch.zeros(0, dtype=torch.int32))

    @property
    def is_installed(self) -> bool:
        return len(self.code_lengths) > 0

    @property
    def bins_per_unit(self) -> int:
        """How densely the tables give the cost: 1 at integers only."""
        return (self.code_lengths.shape[1] - 1) // (2 * LARGEST_VALUE)

    def install(
        self,
        code_lengths: Float[Tensor, "T W"],
        classes: Int16[Tensor, "E d"],
        first_table: Int[Tensor, " L"],
    ) -> None:
        """From now on latents cost what these tables say.

        Args:
            code_lengths: Bits of the values from -63 to 63, of as many in each unit as there are.
        """
        width, unit = code_lengths.shape[1], 2 * LARGEST_VALUE
        if width <= unit or (width - 1) % unit:
            raise ValueError(f"expected {unit} k + 1 code lengths in each table, got {width}")
        device = self.code_lengths.device
        self.code_lengths = code_lengths.to(device, non_blocking=True)
        self.classes = classes.to(device, non_blocking=True)
        self.first_table = first_table.to(device, non_blocking=True)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        # The number of tables is the checkpoint's.
        for name in ("code_lengths", "classes", "first_table"):
            if prefix + name in state_dict:
                device = getattr(self, name).device
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def bits(
        self,
        latents: Float[Tensor, "E d"],
        grid: GridSpec,
        backend: Backend,
        *,
        first: int = 0,
        stride: int = 1,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, ""]:
        if not self.is_installed:
            return self.before.bits(
                latents, grid, backend, first=first, stride=stride, gradient=gradient
            )
        return backend.coded_bits(
            latents,
            self.code_lengths,
            self.classes,
            self.first_table,
            grid,
            bins_per_unit=self.bins_per_unit,
            first=first,
            stride=stride,
            gradient=gradient,
        )

    def bits_of_touched(
        self,
        latents: Float[Tensor, "E d"],
        grid: GridSpec,
        backend: Backend,
        touched: Bool[Tensor, " E"],
        *,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, ""]:
        """An estimate of all bits from the rows that a step has touched already: those of each
        level count as often as the level has more rows.

        A step that looks at a part of a picture so leaves alone what lies elsewhere: rate and
        distortion of a latent come in the same steps, and none drifts towards 0 in between.
        """
        lengths = self.code_lengths.clone()
        tables = [*self.first_table.tolist(), len(lengths)]
        for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
            count = int(touched[begin:end].sum())
            lengths[tables[level] : tables[level + 1]] *= (end - begin) / max(count, 1)
        return backend.coded_bits(
            latents,
            lengths,
            torch.where(touched[:, None], self.classes, -1).to(torch.int16),
            self.first_table,
            grid,
            bins_per_unit=self.bins_per_unit,
            gradient=gradient,
        )


class Bernoulli(RateModel):
    """The rate of signs: one probability per level and channel, as in BiRF and CNC.

    That of -1 is what the density of the integers gives to everything below 0, so it needs no
    parameters of its own.
    """

    def __init__(self, density: FactorizedEntropyModel) -> None:
        super().__init__()
        self.density = density

    def bits(
        self,
        latents: Float[Tensor, "E d"],
        grid: GridSpec,
        backend: Backend,
        *,
        first: int = 0,
        stride: int = 1,
        gradient: SparseRowGradient | None = None,
    ) -> Float[Tensor, ""]:
        del backend
        if gradient is not None:
            gradient.touch_all()
        total = latents.new_zeros(())
        for level, (begin, end) in enumerate(itertools.pairwise(grid.offsets)):
            rows = latents[begin + (first - begin) % stride : end : stride]
            total = total + self.bits_of_signs(rows, level)
        return total

    def bits_of_signs(self, latents: Float[Tensor, "n d"], level: int) -> Float[Tensor, ""]:
        """Bits of the signs of some latents of a level, differentiable in these, as if a sign were
        the latent, and in the probabilities."""
        below = self.density.cdf(latents.new_zeros(latents.shape[1]), level)
        below = below.clamp(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
        is_above = (Binary().table(latents) + 1) / 2
        bits = -is_above * torch.log2(1 - below) - (1 - is_above) * torch.log2(below)
        return bits.sum()


def make_rate_model(
    name: RateModelName, density: FactorizedEntropyModel, quantizer: LatentQuantizer
) -> RateModel:
    """The model of that name for latents of integers, :class:`Bernoulli` for signs.

    Args:
        density: Of the integers.
        quantizer: That of training.
    """
    if name not in ("code_lengths", "learned"):
        raise ValueError(f"expected a rate model of code_lengths or learned, got {name!r}")
    if not quantizer.codes_integers and quantizer.is_quantized:
        return Bernoulli(density)
    learned = Learned(density)
    return CodeLengths(learned) if name == "code_lengths" and quantizer.codes_integers else learned
