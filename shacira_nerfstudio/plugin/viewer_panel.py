"""Controls under "Custom Elements" of the web viewer: rate, coarse versions, size of the file.

A module without parameters, because the viewer looks for its elements on modules only.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerControl,
    ViewerNumber,
    ViewerSlider,
    ViewerText,
)
from torch import nn

from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.compression.compressor import Compressor
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata

VISER_NERFSTUDIO_SCALE_RATIO = 10.0
"""The host's constant of that name; its module is not yet importable when plugins load."""
_UNKNOWN = "press Measure size"


class ShownModel(Protocol):
    """What is asked of a model."""

    scene: RadianceScene
    compressor: Compressor
    dataset: DatasetMetadata
    file_scene: PackedScene | None


class _StartView(ViewerControl):
    """Puts every client that connects where the first camera stands."""

    def __init__(self, panel: ViewerPanel) -> None:
        super().__init__()
        self._panel = panel

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        self.viser_server.on_client_connect(self._panel.place)


class ViewerPanel(nn.Module):
    """Elements are attributes without a leading underscore: that is how the viewer finds them.

    Args:
        model: Whose scene is shown. Held in a list: it must not become a child of its child.
    """

    def __init__(self, model: ShownModel) -> None:
        super().__init__()
        self._model = [model]
        levels = model.scene.encoding.grid.num_levels
        self.rate_lambda = ViewerNumber(
            "Rate lambda",
            model.compressor.options.rate_lambda,
            cb_hook=self._set_rate,
            hint="Weight of the rate while training; larger gives smaller files.",
        )
        self.max_level = ViewerSlider(
            "Levels",
            levels,
            1,
            levels,
            1,
            cb_hook=self._set_levels,
            hint="Show the scene as the first levels of the file alone would.",
        )
        self.size = ViewerText("File size", _UNKNOWN, disabled=True)
        self.measure = ViewerButton("Measure size", self._measure)
        self.control = _StartView(self)
        self.reset_view = ViewerButton("View from first camera", self._reset_view)

    def _set_rate(self, element: Any) -> None:
        compressor, rate = self._model[0].compressor, max(float(element.value), 0.0)
        compressor.options = dataclasses.replace(compressor.options, rate_lambda=rate)

    def _set_levels(self, element: Any) -> None:
        self._model[0].scene.encoding.max_level = int(element.value)

    def _measure(self, _: Any) -> None:
        """Encodes the scene as it is now and shows bytes by part. An export looks longer and may
        find that fewer bytes do."""
        self.size.value = "measuring ..."
        try:
            parts = self._model[0].compressor.size_meter.file_bytes_by_part()
        except ValueError as error:  # latents that are not quantised
            self.size.value = str(error)
            return
        listing = ", ".join(f"{name} {count:,}" for name, count in parts.items())
        self.size.value = f"{sum(parts.values()):,} bytes ({listing})"

    def _reset_view(self, _: Any) -> None:
        for client in self.control.viser_server.get_clients().values():
            self.place(client)

    def place(self, client: Any) -> None:
        """Moves one client to the first camera.

        The viewer starts at (0.3, 0.3, 0.3) in scene units, often inside the object.
        """
        pose = self._first_pose()
        if pose is None:
            return
        # The viewer shows scene units enlarged by this factor.
        position = np.asarray(pose[:, 3], dtype=np.float64) * VISER_NERFSTUDIO_SCALE_RATIO
        with client.atomic():
            client.camera.position = position
            client.camera.look_at = position - np.asarray(pose[:, 2], dtype=np.float64)

    def _first_pose(self) -> Any:
        """Camera-to-world [3, 4] of the first camera that the model knows of, or None."""
        model = self._model[0]
        if model.file_scene is not None and model.file_scene.cameras is not None:
            return model.file_scene.cameras.camera_to_worlds[0]
        cameras = model.dataset.cameras
        return None if cameras is None else cameras.camera_to_worlds[0].cpu().numpy()
