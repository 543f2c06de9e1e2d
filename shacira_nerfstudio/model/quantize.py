"""Quantisers of the latents, and the schedule that picks one for a training step.

Each quantiser is a function from float latents to values near integers, with a gradient. SHACIRA
(Girish et al., ICCV 2023, Sec. 3.2) anneals `sga` and ends with `straight_through`; `round` is what
evaluation and the file use. The step between two values is 1: the scale of features lives in the
latent decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

QuantizeMode = Literal["sga", "sga_tanh", "noise", "straight_through", "binary", "round", "none"]

_MAX_ARCTANH = 1 - 1e-6
"""arctanh is finite below 1; an integer latent then stays itself but for one draw in 1500 at
temperature 1."""


def straight_through(latents: Tensor) -> Tensor:
    """Rounds; the gradient passes as if it had not (Bengio et al., 2013)."""
    return latents + (latents.detach().round() - latents.detach())


def add_noise(latents: Tensor) -> Tensor:
    """Adds uniform noise in [-0.5, 0.5): a differentiable stand-in for rounding (Ballé et al., ICLR
    2017)."""
    return latents + (torch.rand_like(latents) - 0.5)


def sign(latents: Tensor) -> Tensor:
    """-1 below 0, 1 from 0 on: never 0."""
    return torch.where(latents.detach() < 0, -1.0, 1.0).to(latents)


def binary(latents: Tensor) -> Tensor:
    """The sign; the gradient passes as if it were the identity (BiRF: Shin and Park, NeurIPS 2023,
    Sec. 3.2)."""
    return latents + (sign(latents) - latents.detach())


def sga(latents: Tensor, temperature: float, *, with_tanh: bool = False) -> Tensor:
    """Stochastic Gumbel annealing: a soft choice between the two nearest integers.

    With r the fraction above the floor f: logits ``-arctanh(r) / T`` for f and ``-arctanh(1 - r) /
    T`` for f + 1, plus Gumbel noise, through a softmax of temperature T. The reference code has
    tanh where Yang et al., "Improving Inference for Neural Image Compression" (NeurIPS 2020, Sec.
    3.2) have arctanh; arctanh it is, with which an integer stays an integer. The gradient reaches
    the latents through the logits only.

    Args:
        temperature: > 0; the smaller, the closer to rounding.
        with_tanh: As in the reference code, with which an integer does not stay one. For comparison
            only.
    """
    low = latents.detach().floor()
    above = latents - low
    # The difference of two Gumbel variables is logistic: one draw instead of two.
    uniform = torch.rand_like(latents).clamp_(1e-7, 1 - 1e-7)
    logistic = torch.log(uniform) - torch.log1p(-uniform)
    if with_tanh:
        logit = torch.tanh(1 - above) - torch.tanh(above)
    else:
        limit = _MAX_ARCTANH
        logit = torch.arctanh((1 - above).clamp(0, limit)) - torch.arctanh(above.clamp(0, limit))
    # logit of f against f + 1 is (arctanh(1 - r) - arctanh(r)) / T.
    return low + torch.sigmoid((logistic - logit / temperature) / temperature)


def quantize(latents: Tensor, mode: QuantizeMode, temperature: float = 1.0) -> Tensor:
    """Applies a quantiser.

    - ``sga``: a soft sample between the two nearest integers, annealed by ``temperature``.
    - ``sga_tanh``: the same as the reference code has it, for comparison.
    - ``binary``: -1 or 1, identity gradient.
    - ``noise``: uniform noise of one step's width.
    - ``straight_through``: nearest integer, identity gradient.
    - ``round``: nearest integer, no gradient.
    - ``none``: the latents themselves (a plain hash grid).
    """
    if mode in ("sga", "sga_tanh"):
        return sga(latents, temperature, with_tanh=mode == "sga_tanh")
    if mode == "noise":
        return add_noise(latents)
    if mode == "binary":
        return binary(latents)
    if mode == "straight_through":
        return straight_through(latents)
    if mode == "round":
        return latents.round()
    if mode == "none":
        return latents
    raise ValueError(f"expected a quantiser of {', '.join(get_args(QuantizeMode))}, got {mode!r}")


@dataclass(frozen=True)
class QuantizeSchedule:
    """Which quantiser a training step uses: a pure function of the step, so a resumed run goes on
    exactly.

    The first ``anneal_fraction`` of ``num_steps`` uses ``mode``, with a temperature that falls
    exponentially from 1 to ``final_temperature`` (it acts in `sga` only); the rest rounds with
    `straight_through`. `binary` and `none` stay what they are.
    """

    mode: QuantizeMode
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

    def at(self, step: int) -> tuple[QuantizeMode, float]:
        """Mode and temperature of one step, counted from 0."""
        if self.mode in ("none", "binary"):
            return self.mode, 1.0
        num_anneal_steps = self.anneal_fraction * self.num_steps
        if step >= num_anneal_steps:
            return "straight_through", self.final_temperature
        progress = step / num_anneal_steps
        return self.mode, max(self.final_temperature, self.final_temperature**progress)
