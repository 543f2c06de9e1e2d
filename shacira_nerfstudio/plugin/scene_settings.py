"""From a data set to a box, a contraction and a background: what `auto` means."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from shacira_nerfstudio.backends import MarchSettings

if TYPE_CHECKING:
    from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig

Background = Literal["white", "black", "random", "last_sample", "color"]
_NAMED = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


@dataclass(frozen=True)
class SceneSettings:
    """How a scene is marched and what lies behind it."""

    march: MarchSettings
    """In training."""
    render: MarchSettings
    """Afterwards: the same, but for the length of steps."""
    train_background: Any
    """In the form that the host's renderer takes: a name or a colour [3]."""
    background: Background
    """What is rendered behind the scene after training; never random."""
    background_color: tuple[float, float, float]
    """The colour, if it is one."""

    def background_for(self, *, training: bool) -> Tensor | str | None:
        """A colour [3], ``last_sample``, or None for random: the host's renderer then adds it in
        the loss."""
        if (
            training
            and isinstance(self.train_background, str)
            and self.train_background == "random"
        ):
            return None
        if self.background == "last_sample":
            return "last_sample"
        return torch.tensor(self.background_color)


def resolve_scene_settings(
    config: ShaciraModelConfig, scene_box: Any, facts: dict[str, Any] | None
) -> SceneSettings:
    """Decides what the configuration leaves to the data.

    Args:
        scene_box: The host's scene box, in scene units.
        facts: What :class:`ShaciraDataset` found out: ``alpha_color`` (colour that images with
            alpha were put on, or
            None) and ``bounded`` (True, False or None for unknown).
    """
    facts = facts or {}
    alpha_color = facts.get("alpha_color")
    bounded = facts.get("bounded")
    contraction = config.contraction
    if contraction == "auto":
        bounded = alpha_color is not None if bounded is None else bounded
        contraction = "affine" if bounded else "contracted"
    low, high = (tuple(float(v) for v in corner) for corner in scene_box.aabb.tolist())
    half = max(b - a for a, b in zip(low, high, strict=True)) / 2
    # The diagonal of the cube that is marched through: Instant-NGP takes 1024 steps across it. Of
    # contracted space that cube is twice as wide as the box.
    width = 2 * half * (2 if contraction == "contracted" else 1)
    step = width * math.sqrt(3) / config.steps_across_box
    march = MarchSettings(
        contraction=contraction,
        box=(low, high),  # pyright: ignore[reportArgumentType]
        near=config.near_plane,
        far=config.far_plane,
        step_size=step,
        # Steps grow from where a camera at the border of the box has passed its centre.
        knee=0.0 if contraction == "affine" else 2 * half,
    )
    finer = config.render_steps_across_box or config.steps_across_box
    render = replace(march, step_size=width * math.sqrt(3) / finer)
    background = config.background_color
    if background == "auto":
        if alpha_color is not None:
            color = tuple(float(v) for v in alpha_color)
            named = [name for name, value in _NAMED.items() if value == color]
            after = named[0] if named else "color"
            return SceneSettings(march, render, torch.tensor(color), after, color)  # pyright: ignore
        background = "random"
    after = "black" if background == "random" else background
    color = _NAMED.get(after, (0.0, 0.0, 0.0))
    return SceneSettings(march, render, background, after, color)  # pyright: ignore[reportArgumentType]
