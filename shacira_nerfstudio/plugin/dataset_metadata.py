"""What a data set tells the model, on its way through the host's untyped metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nerfstudio.cameras.cameras import Cameras

from shacira_nerfstudio.scenes.visual_hull import Box

_KEY = "shacira"


@dataclass(frozen=True)
class DatasetMetadata:
    """Of the training images."""

    alpha_color: tuple[float, float, float] | None = None
    """Colour that images with alpha are put on."""
    cameras: Cameras | None = None
    is_bounded: bool | None = None
    """Whether all that images show lies inside the scene's box; None where unknown."""
    object_box: Box | None = None
    """A cube around the object that pictures with alpha show, tighter than the scene's box."""
    is_cut_out: bool = False
    """Whether pixels show an object of which the data parser knows nothing."""
    reason: str = ""
    """Why this is so, where pixels decided: for people."""

    def put_into(self, metadata: dict[str, Any]) -> None:
        """Adds this to what the host hands to the model."""
        metadata[_KEY] = self

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> DatasetMetadata:
        """What :meth:`put_into` put there, or that nothing is known."""
        return (metadata or {}).get(_KEY) or cls()
