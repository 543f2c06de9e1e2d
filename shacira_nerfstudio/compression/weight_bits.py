"""How many bits each tensor of the networks gets in a file: as few as a measured loss allows.

Training fixes an upper bound, for which it rounds weights in the loop. Below it, every tensor is
tried alone at fewer bits, with a step per row and with one step for all of them, and the loss is
measured. The choice is then one number, a Lagrangian multiplier: bytes per loss. With it each
tensor takes what costs least by itself; the lowest multiplier whose choice, measured as a whole,
stays within the allowed loss is the one that is taken. The same weights and the same measure give
the same choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from shacira_nerfstudio.codec import QuantizedTensor
from shacira_nerfstudio.codec.sections.weights import encode_weights
from shacira_nerfstudio.compression.pack import quantize_weight

MIN_BITS = 4
"""Fewer have never paid: neighbouring layers would need more."""

_NUM_LAGRANGIANS = 64
"""Multipliers that are tried, in steps of sqrt(2): from one byte for all the loss that is allowed
to more than any file's weights for it."""

Weights = Mapping[str, QuantizedTensor] | Mapping[str, Tensor]
"""Of a file, or floats, by name."""


@dataclass(frozen=True)
class _Option:
    """One way to store a tensor."""

    tensor: QuantizedTensor
    num_bytes: int
    loss: float
    """What it adds to the loss if it is the only change."""


def choose_weights(
    layers: Mapping[str, Tensor],
    bits_of: Callable[[str], int],
    loss_of: Callable[[Weights], float],
    *,
    max_loss_db: float,
    trial_loss_of: Callable[[Weights], float] | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> dict[str, QuantizedTensor]:
    """Integers and steps of each tensor.

    Args:
        layers: Float weights by name.
        bits_of: The upper bound for a tensor, by its name.
        loss_of: Mean squared error that some weights lead to.
        max_loss_db: By how much 10 log10 of that error may grow, compared with the better of the
            float weights and those at their upper bounds.
        trial_loss_of: The same, quicker and less exact, by which changes of one tensor are
            compared; the choice as a whole is measured by ``loss_of``.
        progress: Gets the fraction that is done.
    """
    trial_loss_of = trial_loss_of or loss_of
    base = {name: quantize_weight(w, bits_of(name)) for name, w in layers.items()}
    base_loss = loss_of(base)
    allowed = min(base_loss, loss_of(layers)) * 10 ** (max_loss_db / 10)
    if base_loss >= allowed:
        return base
    trial_base = trial_loss_of(base)
    room = (allowed - base_loss) * trial_base / max(base_loss, 1e-12)

    def options(name: str) -> list[_Option]:
        tried = [_Option(base[name], _num_bytes(name, base[name]), 0.0)]
        for per_row in (True, False):
            for bits in range(bits_of(name), MIN_BITS - 1, -1):
                tensor = quantize_weight(layers[name], bits, per_row=per_row)
                if tensor == base[name] or (not per_row and len(tensor.values) == 1):
                    continue
                loss = max(trial_loss_of({**base, name: tensor}) - trial_base, 0.0)
                tried.append(_Option(tensor, _num_bytes(name, tensor), loss))
                if loss > room:
                    break
        return tried

    by_name = {}
    for number, name in enumerate(layers):
        progress(number / (len(layers) + 1))
        by_name[name] = options(name)
    progress(len(layers) / (len(layers) + 1))

    def choice(number: int) -> dict[str, QuantizedTensor]:
        lagrangian = 2 ** (number / 2) / room
        return {
            name: min(tried, key=lambda o: (o.num_bytes + lagrangian * o.loss, o.num_bytes)).tensor
            for name, tried in by_name.items()
        }

    # Losses do not simply add up: what is taken has been measured. The highest multiplier takes
    # `base` or something with no loss at all.
    low, high, best = 0, _NUM_LAGRANGIANS, base
    while low < high:
        middle = (low + high) // 2
        candidate = choice(middle)
        if loss_of(candidate) <= allowed:
            high, best = middle, candidate
        else:
            low = middle + 1
    return best


def _num_bytes(name: str, tensor: QuantizedTensor) -> int:
    return len(encode_weights({name: tensor}))
