"""Rate-distortion optimisation of integers: which latents are worth their bits.

The loss is taken as quadratic around the integers that training arrived at: moving entry i by δ
costs ``h_i δ² / 2``, with h the Gauss-Newton diagonal. A move towards 0 that saves b bits pays if
it costs less than ``λ · b``, with λ the Lagrangian multiplier, a loss per bit; in training a bit is
worth ``rate_lambda / num_entries``.
The gradient is left out on purpose: at the end of training it is noise, and moves that follow it
cost decibels. All terms beside the diagonal are left out, too; moves share pixels, so together they
cost more than their sum, and λ wants to be a fraction of that worth.

For a mean squared error ``1/n Σ (c - t)²`` the diagonal is ``2/n Σ (∂c/∂q_i)²``. With v a vector of
random signs over the n colours, ``(Σ v ∂c/∂q_i)²`` has that sum as its mean (Hutchinson, 1989), so
one backward pass estimates all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def probe_curvature(colors: Float[Tensor, "R 3"], latents: Tensor) -> Float[Tensor, "E d"]:
    """An unbiased estimate of the diagonal h for the mean squared error of some colours.

    Args:
        colors: With a graph down to ``latents``, which is used up.
    """
    signs = torch.randint(0, 2, colors.shape, device=colors.device) * 2.0 - 1.0
    (probe,) = torch.autograd.grad((colors * signs).sum(), latents)
    return 2.0 / colors.numel() * probe**2


@dataclass(frozen=True)
class Bits:
    """Bits of each latent [E, d] as it is, one step toward 0, and as 0."""

    symbol: Float[Tensor, "E d"]
    toward_zero: Float[Tensor, "E d"]
    zero: Float[Tensor, "E d"]


def best_moves(
    start: Float[Tensor, "E d"],
    current: Float[Tensor, "E d"],
    curvature: Float[Tensor, "E d"],
    bits: Bits,
) -> tuple[Float[Tensor, "E d"], Float[Tensor, "E d"]]:
    """The move towards 0 of each latent that buys its bits most cheaply: one step, or all the way.

    Args:
        start: Integers at which the curvature was measured.
        current: Integers as they are, after earlier moves.

    Returns:
        Where each latent would go, and the loss per saved bit, inf where no move saves any.
    """
    toward_zero, zero = current - current.sign(), torch.zeros_like(current)
    here = 0.5 * curvature * (current - start) ** 2
    goals, lagrangians = current, torch.full_like(current, torch.inf)
    for goal, cost in ((toward_zero, bits.toward_zero), (zero, bits.zero)):
        saved = bits.symbol - cost
        lagrangian = (0.5 * curvature * (goal - start) ** 2 - here) / saved
        is_better = (goal != current) & (saved > 0) & (lagrangian < lagrangians)
        goals = torch.where(is_better, goal, goals)
        lagrangians = torch.where(is_better, lagrangian, lagrangians)
    return goals, lagrangians


def find_lagrangian(
    size_at: Callable[[float], float],
    target: float,
    low: float,
    high: float,
    *,
    num_trials: int = 14,
) -> float:
    """The lowest multiplier found, between two above 0, at which a size is at most the target.

    Halves the range on a logarithmic scale; ``high`` is returned if even there the size is above
    the target.

    Args:
        size_at: Falls, or stays, as the multiplier rises.
    """
    for _ in range(num_trials):
        middle = math.sqrt(low * high)
        if size_at(middle) <= target:
            high = middle
        else:
            low = middle
    return high
