"""What ``auto`` means where a GPU computes the steps: more of them, and larger batches.

Laid out for a card with 24 GB of memory, and by what others measured: nerfacc trains 20,000 steps
of 2^18 samples on a TITAN RTX in 288 s, which is 18 million samples a second, with the same kind of
grid in half floats. With 13 million, the kinds of quality take about 1, 5 and 12 minutes there. The
model stays as it is, and so does the file.
"""

from __future__ import annotations

from typing import Any

STEPS = "max_num_iterations"
"""The trainer's option; all others are the model's."""

# Quality:                        draft, normal, max
ON_CUDA: dict[str, tuple[Any, Any, Any]] = {
    STEPS: (6000, 15000, 35000),
    "sampling.target_num_samples": (1 << 17, 1 << 18, 1 << 18),
    # Late in training most rays of an object end after a few samples.
    "sampling.max_num_rays": (1 << 18, 1 << 18, 1 << 18),
}
"""In place of what stands in the table of captures, whatever the capture."""


def on_device(
    settings: dict[str, tuple[Any, Any, Any]], device_type: str
) -> dict[str, tuple[Any, Any, Any]]:
    """Settings of a kind of capture on a type of device."""
    return {**settings, **ON_CUDA} if device_type == "cuda" else settings
