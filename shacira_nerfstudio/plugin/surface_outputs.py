"""What the host's exports of points and meshes ask a model for: normals, and colours cut out.

`ns-export pointcloud` and `poisson` look for an output ``normals`` of single rays, and tell empty
rays by the fourth channel of :meth:`Model.get_rgba_image`, which the host itself sets to one
wherever a background is known: a cloud would then come with the walls of its box.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.model_components import renderers
from torch import Tensor

from shacira_nerfstudio.model.normals import MIN_ACCUMULATION, surface_normals
from shacira_nerfstudio.model.scene import RadianceScene

NORMALS = "normals"
_ANGLE = 1 / 600
"""Between a ray and those that tell its normal, in radians: about two pixels of a picture."""


class OutputsWithNormals(dict[str, Tensor]):
    """Outputs of rays, one row each, and normals for whoever asks for them by name.

    They take four more rays each, so that they are no item: pictures and the viewer do without.
    """

    def __init__(
        self,
        outputs: dict[str, Tensor],
        scene: RadianceScene,
        origins: Float[Tensor, "R 3"],
        directions: Float[Tensor, "R 3"],
    ) -> None:
        super().__init__(outputs)
        self._scene, self._rays = scene, (origins, directions)

    def __contains__(self, name: object) -> bool:
        return name == NORMALS or super().__contains__(name)

    def __missing__(self, name: str) -> Tensor:
        if name != NORMALS:
            raise KeyError(name)
        origins, directions = self._rays
        normals = -directions
        hits = (self["accumulation"][:, 0] >= MIN_ACCUMULATION).nonzero()[:, 0]
        depth = self["depth"][hits, 0]
        found, _ = surface_normals(
            self._scene, origins[hits], directions[hits], depth, angle=_ANGLE
        )
        # From 0 to 1, as the host keeps them.
        return ((normals.index_copy(0, hits, found) + 1) / 2).clamp(0, 1)


def cut_out(
    outputs: dict[str, Tensor], output_name: str, background: Tensor | str
) -> Float[Tensor, "*R 4"]:
    """Colours of what was met alone, and its opacity.

    Args:
        output_name: Of colours that have been put on a background.
        background: Of the scene; the host may have another one in force.
    """
    rgb, opacity = outputs[output_name], outputs["accumulation"]
    override: Any = renderers.BACKGROUND_COLOR_OVERRIDE
    behind = background if override is None else override
    if isinstance(behind, Tensor):
        rgb = (rgb - (1 - opacity) * behind.to(rgb)) / opacity.clamp_min(1e-6)
    return torch.cat([rgb.clamp(0, 1), opacity], dim=-1)
