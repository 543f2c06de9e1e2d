"""Quantisers of the latents, and the schedule that picks one for a training step.

Each quantiser makes values near integers of float latents, with a gradient. SHACIRA (Girish et al.,
ICCV 2023, Sec. 3.2) anneals `sga` and ends with `straight_through`; `round` is what evaluation and
the file use. The step between two values is 1: the scale of features lives in the latent decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

QuantizerName = Literal["sga", "sga_tanh", "noise", "straight_through", "binary", "round", "none"]

_MAX_ARCTANH = 1 - 1e-6
"""arctanh is finite below 1; an integer latent then stays itself but for one draw in 1500 at
temperature 1."""


class LatentQuantizer:
    """What training reads of float latents, and what evaluation does.

    This class is the rounding that all others end with; see :func:`get_quantizer`.
    """

    name: ClassVar[QuantizerName]
    is_soft: ClassVar[bool] = False
    """Whether training reads values between integers."""
    codes_integers: ClassVar[bool] = True
    """Whether the file has tables of integers for such latents, so that fewer bits are had by
    moving latents towards 0. Not so for signs and for latents that stay floats."""
    is_quantized: ClassVar[bool] = True
    """Whether evaluation reads integers."""
    look_up: ClassVar[Literal["none", "round", "noise"] | None] = None
    """What a look-up does to the rows that it reads; None if training needs :meth:`table`."""

    def table(self, latents: Tensor, temperature: float = 1.0) -> Tensor:
        """What training reads, differentiable: the nearest integers, without a gradient."""
        del temperature
        return latents.round()

    def evaluate(self, latents: Tensor) -> Tensor:
        """What evaluation and the file read."""
        return latents.detach().round()


class Round(LatentQuantizer):
    """The nearest integer, no gradient; in look-ups, the gradient of the identity."""

    name, look_up = "round", "round"


class StraightThrough(LatentQuantizer):
    """The nearest integer; the gradient passes as if it were the latent (Bengio et al., 2013)."""

    name, look_up = "straight_through", "round"

    def table(self, latents: Tensor, temperature: float = 1.0) -> Tensor:
        del temperature
        return latents + (latents.detach().round() - latents.detach())


class Noise(LatentQuantizer):
    """Uniform noise in [-0.5, 0.5) on top: a differentiable stand-in for rounding (Ballé et al.,
    ICLR 2017)."""

    name, look_up, is_soft = "noise", "noise", True

    def table(self, latents: Tensor, temperature: float = 1.0) -> Tensor:
        del temperature
        return latents + (torch.rand_like(latents) - 0.5)


class Sga(LatentQuantizer):
    """Stochastic Gumbel annealing: a soft choice between the two nearest integers.

    With r the fraction above the floor f: logits ``-arctanh(r) / T`` for f and ``-arctanh(1 - r) /
    T`` for f + 1, plus Gumbel noise, through a softmax of temperature T > 0; the smaller, the
    closer to rounding. The reference code has tanh where Yang et al., "Improving Inference for
    Neural Image Compression" (NeurIPS 2020, Sec. 3.2) have arctanh; arctanh it is, with which an
    integer stays an integer. The gradient reaches the latents through the logits only.
    """

    name, is_soft = "sga", True

    def table(self, latents: Tensor, temperature: float = 1.0) -> Tensor:
        low = latents.detach().floor()
        above = latents - low
        # The difference of two Gumbel variables is logistic: one draw instead of two.
        uniform = torch.rand_like(latents).clamp_(1e-7, 1 - 1e-7)
        logistic = torch.log(uniform) - torch.log1p(-uniform)
        return low + torch.sigmoid((logistic - self._logit(above) / temperature) / temperature)

    def _logit(self, above: Tensor) -> Tensor:
        """T times the logit of f against f + 1."""
        limit = _MAX_ARCTANH
        return torch.arctanh((1 - above).clamp(0, limit)) - torch.arctanh(above.clamp(0, limit))


class SgaTanh(Sga):
    """The same as the reference code has it, with which an integer does not stay one. For
    comparison only."""

    name = "sga_tanh"

    def _logit(self, above: Tensor) -> Tensor:
        return torch.tanh(1 - above) - torch.tanh(above)


class Binary(LatentQuantizer):
    """-1 below 0, 1 from 0 on, never 0; the gradient passes as if it were the identity (BiRF: Shin
    and Park, NeurIPS 2023, Sec. 3.2)."""

    name, codes_integers = "binary", False

    def table(self, latents: Tensor, temperature: float = 1.0) -> Tensor:
        del temperature
        return latents + (self.evaluate(latents) - latents.detach())

    def evaluate(self, latents: Tensor) -> Tensor:
        return torch.where(latents.detach() < 0, -1.0, 1.0).to(latents)


class Unquantized(LatentQuantizer):
    """The latents themselves: a plain hash grid, which no file can hold."""

    name, look_up = "none", "none"
    is_soft, codes_integers, is_quantized = True, False, False

    def table(self, latents: Tensor, temperature: float = 1.0) -> Tensor:
        del temperature
        return latents

    def evaluate(self, latents: Tensor) -> Tensor:
        return latents.detach()


_QUANTIZERS: dict[str, LatentQuantizer] = {
    quantizer.name: quantizer
    for quantizer in (
        Sga(),
        SgaTanh(),
        Noise(),
        StraightThrough(),
        Binary(),
        Round(),
        Unquantized(),
    )
}


def get_quantizer(name: str) -> LatentQuantizer:
    """The one object of that name."""
    if name not in _QUANTIZERS:
        raise ValueError(f"expected a quantizer of {', '.join(_QUANTIZERS)}, got {name!r}")
    return _QUANTIZERS[name]


def noise_seed() -> int:
    """From torch's generator, so that ``torch.manual_seed`` governs the noise of look-ups and of
    the rate, too."""
    return int(torch.randint(1 << 32, ()).item())


@dataclass(frozen=True)
class QuantizeSchedule:
    """Which quantiser a training step uses: a pure function of the step, so a resumed run goes on
    exactly.

    The first ``anneal_fraction`` of ``num_steps`` uses ``quantizer``, with a temperature that falls
    exponentially from 1 to ``final_temperature`` (it acts in `sga` only); the rest rounds with
    `straight_through`. `binary` and `none` stay what they are.
    """

    quantizer: LatentQuantizer
    num_steps: int
    anneal_fraction: float = 0.9
    final_temperature: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.anneal_fraction <= 1:
            raise ValueError(f"expected anneal_fraction from 0 to 1, got {self.anneal_fraction}")
        if not 0 < self.final_temperature <= 1:
            raise ValueError(f"expected final_temperature in (0, 1], got {self.final_temperature}")
        if self.num_steps < 1:
            raise ValueError(f"expected num_steps of at least 1, got {self.num_steps}")

    def at(self, step: int) -> tuple[LatentQuantizer, float]:
        """Quantiser and temperature of one step, counted from 0."""
        if not self.quantizer.codes_integers:
            return self.quantizer, 1.0
        num_anneal_steps = self.anneal_fraction * self.num_steps
        if step >= num_anneal_steps:
            return get_quantizer("straight_through"), self.final_temperature
        progress = step / num_anneal_steps
        return self.quantizer, max(self.final_temperature, self.final_temperature**progress)
