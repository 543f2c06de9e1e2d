"""What a data set tells the model, on its way through the host's untyped metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nerfstudio.cameras.cameras import Cameras

_KEY = "shacira"


@dataclass(frozen=True)
class DatasetMetadata:
    """Of the training images."""

    alpha_color: tuple[float, float, float] | None = None
    """Colour that images with alpha were put on."""
    cameras: Cameras | None = None
    is_bounded: bool | None = None
    """Whether all that images show lies inside the scene's box; None where unknown."""

    def put_into(self, metadata: dict[str, Any]) -> None:
        """Adds this to what the host hands to the model."""
        metadata[_KEY] = self

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> DatasetMetadata:
        """What :meth:`put_into` put there, or that nothing is known."""
        return (metadata or {}).get(_KEY) or cls()
