"""A client's controls: what to show of which files, and where to look from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shacira_nerfstudio.viewer.live.camera_space import (
    VIEW_DISTANCE,
    CameraSpace,
    Placement,
    ViewPose,
)
from shacira_nerfstudio.viewer.live.painter import Request
from shacira_nerfstudio.viewer.live.scene_files import SceneFile
from shacira_nerfstudio.viewer.live.tones import OUTPUTS

SIDES = ("256", "512", "768", "1024", "1536", "2048")
FIRST_SIDE = "1024"
_OUTPUT, _LEVELS = -2.0, -1.0
"""Places among the controls, before all others; texts have -4 and -3."""
_MAX_FRUSTUMS = 200
"""Stored cameras that are shown; of more, some that are evenly spread."""
_KEYS = """Drag to orbit, drag with the right button to pan, wheel to come nearer.
W A S D and Q E fly, arrow keys look around."""


class Panel:
    """Controls of one client.

    Args:
        client: viser's handle.
        on_change: Called after something else is to be shown.
    """

    def __init__(
        self, client: Any, files: Sequence[SceneFile], on_change: Callable[[], None]
    ) -> None:
        self._client, self._files, self._on_change = client, files, on_change
        # Not without its button that shares, which is refused: viser's page breaks when it goes.
        client.gui.configure_theme(show_logo=False)
        self._about = client.gui.add_markdown("", order=-4.0)
        self._state = client.gui.add_markdown(
            "loading ... (the very first start compiles for up to a minute)", order=-3.0
        )
        self._controls: dict[str, Any] = {}
        self._num_levels = 0
        self._frustums: list[Any] = []
        self._space: CameraSpace | None = None
        self._names = [f"{number}: {file.path.name}" for number, file in enumerate(files, 1)]
        self.show_files()

    def show_files(self) -> None:
        """Says how far the files are."""
        self._about.content = "\n\n".join(
            f"**{f.name}** {_plain(f.status.words())}" for f in self._files
        )
        if self._space is not None:
            self._fit_levels()

    def _fit_levels(self) -> None:
        """Lets the slider reach all levels of the files whose beginning is there by now."""
        most = max(2, *(file.status.num_levels_stored for file in self._files))
        if most == self._num_levels:
            return
        old = self._controls.get("levels")
        value = most if old is None or old.value >= self._num_levels else old.value
        hint = "Coarse to fine, as in the file."
        slider = self._client.gui.add_slider("Levels", 1, most, 1, value, hint=hint, order=_LEVELS)
        slider.on_update(lambda _: self._on_change())
        self._controls["levels"], self._num_levels = slider, most
        if old is not None:
            old.remove()

    def show_state(self, message: str) -> None:
        """Says what is on show, or why nothing is."""
        self._state.content = _plain(message)

    def build(self, space: CameraSpace) -> None:
        """Adds the controls, which depend on the scene."""
        self._space = space
        gui, controls = self._client.gui, self._controls
        controls["output"] = gui.add_dropdown(
            "Output", OUTPUTS, initial_value=OUTPUTS[0], order=_OUTPUT
        )
        self._fit_levels()
        controls["side"] = gui.add_dropdown(
            "Resolution", SIDES, initial_value=FIRST_SIDE, hint="Longer side while at rest."
        )
        if len(self._files) > 1:
            self._add_comparison()
        for name in controls.keys() - {"levels"}:
            controls[name].on_update(lambda _: self._on_change())
        if space.cameras:
            gui.add_checkbox("Stored cameras", False, hint="Click one to stand there.").on_update(
                lambda event: self._show_frustums(event.target.value)
            )
        gui.add_button("First view").on_click(lambda _: self.look_from_first_view())
        with gui.add_folder("Keys", expand_by_default=False):
            gui.add_markdown(_KEYS)

    def _add_comparison(self) -> None:
        for index, side in enumerate(("left", "right")):
            self._controls[side] = self._client.gui.add_dropdown(
                side.capitalize(), self._names, initial_value=self._names[index]
            )
        self._controls["divider"] = self._client.gui.add_slider("Divider", 0.0, 1.0, 0.005, 0.5)

    def wanted(self, pose: ViewPose) -> Request:
        """What is to be shown, seen from a pose.

        Raises:
            ValueError: the browser has sent a choice that it was not given.
        """
        values = {name: control.value for name, control in self._controls.items()}
        allowed = {"output": OUTPUTS, "side": SIDES, "left": self._names, "right": self._names}
        for name in allowed.keys() & values.keys():
            if values[name] not in allowed[name]:
                raise ValueError(f"expected {name} of {allowed[name]}, got {values[name]!r}")
        files = (0,)
        if "divider" in values:
            files = (self._names.index(values["left"]), self._names.index(values["right"]))
        return Request(
            pose,
            values["output"],
            int(values["levels"]),
            int(values["side"]),
            files,
            float(values.get("divider", 1.0)),
        )

    # ── where to look from ──

    def look_from_first_view(self) -> None:
        """Puts the camera where the first stored one stands."""
        assert self._space is not None
        self._client.scene.set_up_direction(self._space.up)
        self._look_from(self._space.first_view())

    def _look_from(self, placement: Placement) -> None:
        assert self._space is not None
        camera = self._client.camera
        with self._client.atomic():
            camera.up_direction = self._space.up
            camera.position = placement.position
            camera.look_at = placement.look_at
            camera.fov = placement.fov

    def _show_frustums(self, is_shown: bool) -> None:
        """Adds the stored cameras to the picture, or removes them."""
        for frustum in self._frustums:
            frustum.remove()
        self._frustums = []
        if not is_shown or self._space is None:
            return
        space, count = self._space, len(self._space.cameras)
        for index in np.unique(np.linspace(0, count - 1, min(count, _MAX_FRUSTUMS)).astype(int)):
            camera = space.cameras[index]
            pose = space.pose(camera)
            frustum = self._client.scene.add_camera_frustum(
                f"/cameras/{index}",
                fov=pose.fov,
                aspect=pose.aspect,
                scale=VIEW_DISTANCE / 25,
                color=(230, 120, 20),
                wxyz=pose.wxyz,
                position=pose.position,
            )
            frustum.on_click(lambda _, camera=camera: self._look_from(space.placement(camera)))
            self._frustums.append(frustum)


def _plain(text: str) -> str:
    """Without what the browser's Markdown would take for more than text: it runs what stands in
    braces."""
    return "".join(c if c.isalnum() or c in " .,:;()+-/%" else "·" for c in text)
