"""From what rays give to pixels: colours as they are, other outputs on a scale of brightness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Output = Literal["colour", "depth", "accumulation", "bits"]
OUTPUTS: tuple[Output, ...] = get_args(Output)

_STOPS = np.array(
    [[0, 0, 8], [40, 12, 84], [128, 28, 110], [212, 66, 72], [248, 150, 40], [255, 250, 200]],
    np.float64,
)
"""Dark to bright, equally far apart."""
_LEAST_OPACITY = 0.5
"""Of rays whose depth counts for the scale."""


@dataclass(frozen=True)
class Scale:
    """Values that are drawn darkest and brightest."""

    low: float
    high: float

    @classmethod
    def of(cls, output: Output, parts: Sequence[np.ndarray]) -> Scale:
        """That of pictures, parts [..., channels] as :func:`pixels` takes them."""
        if output == "depth":
            values = np.concatenate(
                [part[..., 0][part[..., 1] > _LEAST_OPACITY].ravel() for part in parts]
            )
            if len(values):
                return cls(*(float(v) for v in np.percentile(values, [1, 99])))
        elif output == "bits":
            values = np.concatenate([part.ravel() for part in parts])
            return cls(0.0, float(np.percentile(values, 99.5)))
        return cls(0.0, 1.0)

    def words(self, output: Output) -> str:
        """For people; empty for what needs no scale."""
        if output == "depth":
            return f"depth {self.low:.3g} (bright) to {self.high:.3g} (dark), world units"
        if output == "bits":
            return f"{self.low:.3g} (dark) to {self.high:.3g} (bright) bits per ray"
        return ""


def pixels(output: Output, values: np.ndarray, scale: Scale) -> np.ndarray:
    """uint8 [..., 3].

    Args:
        values: Colour [..., 3] from 0 to 1; depth and accumulation [..., 2]; accumulation or bits
            [..., 1].
    """
    if output == "colour":
        return (values * 255 + 0.5).astype(np.uint8)
    span = max(scale.high - scale.low, 1e-12)
    shares = np.clip((values[..., 0] - scale.low) / span, 0, 1)
    if output == "depth":
        shares = (0.95 - 0.8 * shares) * values[..., 1]  # near is bright, nothing is black
    if output == "accumulation":
        return np.repeat((shares * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=-1)
    position = shares * (len(_STOPS) - 1)
    stop = np.minimum(position.astype(np.int64), len(_STOPS) - 2)
    rest = (position - stop)[..., None]
    colors = _STOPS[stop] * (1 - rest) + _STOPS[stop + 1] * rest
    return (colors + 0.5).astype(np.uint8)
