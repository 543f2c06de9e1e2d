"""The choice of bits keeps within the loss it is allowed, and uses what it is allowed."""

import numpy as np
import pytest
import torch

from shacira_nerfstudio.codec import QuantizedTensor
from shacira_nerfstudio.codec.sections.weights import encode_weights
from shacira_nerfstudio.compression.pack import quantize_weight
from shacira_nerfstudio.compression.weight_bits import MIN_BITS, choose_weights

NOISE = 1e-3
"""Mean squared error of the float weights: what no choice can undo."""


def layers(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "important.weight": torch.randn(16, 32, generator=generator),
        "idle.weight": torch.randn(16, 32, generator=generator),
        "important.bias": torch.randn(16, generator=generator),
        "single.weight": torch.randn(1, 32, generator=generator),
    }


def loss_of(weights, seen=None):
    """Quadratic in the errors, as losses are near their minimum; idle weights matter little."""
    if seen is not None:
        seen.append(dict(weights))
    total = NOISE
    for name, exact in layers().items():
        value = weights[name]
        if isinstance(value, QuantizedTensor):
            value = torch.from_numpy(value.dequantize())
        factor = 1e-6 if name.startswith("idle") else 1.0
        total += factor * float((value - exact).double().square().mean())
    return total


def size(weights):
    return len(encode_weights(weights))


def bits(tensor):
    return int(np.abs(tensor.values).max() + 1).bit_length()


@pytest.mark.parametrize("max_loss_db", [0.003, 0.03, 0.3])
def test_the_loss_is_kept_and_used(max_loss_db):
    chosen = choose_weights(layers(), lambda _: 12, loss_of, max_loss_db=max_loss_db)
    loss_db = 10 * np.log10(loss_of(chosen) / NOISE)
    assert max_loss_db / 4 < loss_db <= max_loss_db


def test_more_loss_is_fewer_bytes():
    sizes = [
        size(choose_weights(layers(), lambda _: 12, loss_of, max_loss_db=db))
        for db in (0.003, 0.03, 0.3)
    ]
    at_bound = size({name: quantize_weight(w, 12) for name, w in layers().items()})
    assert at_bound > sizes[0] > sizes[1] > sizes[2]


def test_bits_go_where_they_matter():
    chosen = choose_weights(layers(), lambda _: 12, loss_of, max_loss_db=0.03)
    assert bits(chosen["idle.weight"]) == MIN_BITS
    assert bits(chosen["important.weight"]) > MIN_BITS + 1


def test_the_bound_of_training_is_kept():
    chosen = choose_weights(layers(), lambda _: 5, loss_of, max_loss_db=100.0)
    assert all(bits(tensor) <= 5 for tensor in chosen.values())


def test_with_too_little_room_nothing_changes():
    base = {name: quantize_weight(w, 5) for name, w in layers().items()}
    assert choose_weights(layers(), lambda _: 5, loss_of, max_loss_db=1e-9) == base


def test_the_same_weights_give_the_same_choice():
    first, second = (
        choose_weights(layers(), lambda _: 10, loss_of, max_loss_db=0.05) for _ in range(2)
    )
    assert first == second


def test_what_is_taken_has_been_measured():
    seen = []
    chosen = choose_weights(
        layers(), lambda _: 8, lambda weights: loss_of(weights, seen), max_loss_db=0.05
    )
    assert any(all(chosen[name] is weights[name] for name in chosen) for weights in seen)


def test_changes_are_compared_by_the_quick_measure_and_taken_by_the_exact_one():
    """However wrong the quick one is."""
    trials, exact = [], []

    def quick(weights):
        trials.append(weights)
        return 2.0 * loss_of(weights)

    chosen = choose_weights(
        layers(),
        lambda _: 12,
        lambda weights: loss_of(weights, exact),
        max_loss_db=0.05,
        trial_loss_of=quick,
        progress=(done := []).append,
    )
    assert chosen == choose_weights(layers(), lambda _: 12, loss_of, max_loss_db=0.05)
    assert len(exact) < 12 < len(trials)
    assert done == sorted(done) and 0 <= done[0] < done[-1] < 1
    wild = choose_weights(
        layers(), lambda _: 12, loss_of, max_loss_db=0.05, trial_loss_of=lambda _: NOISE
    )
    assert 10 * np.log10(loss_of(wild) / NOISE) <= 0.05
