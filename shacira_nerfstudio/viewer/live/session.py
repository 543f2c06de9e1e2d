"""One browser window: its camera, its controls, its drawing loop."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from shacira_nerfstudio.viewer.live.camera_space import CameraSpace, ViewPose
from shacira_nerfstudio.viewer.live.compare import add_labels
from shacira_nerfstudio.viewer.live.frame_loop import FrameLoop
from shacira_nerfstudio.viewer.live.painter import Painter, Picture, Request
from shacira_nerfstudio.viewer.live.panel import Panel
from shacira_nerfstudio.viewer.live.resolution import AdaptiveResolution
from shacira_nerfstudio.viewer.live.scene_files import SceneFile

_MOVING_QUALITY, _QUALITY = 70, 95
"""Of JPEG."""


class Session:
    """From a client's coming to its going.

    Args:
        client: viser's handle.
    """

    def __init__(self, client: Any, files: Sequence[SceneFile]) -> None:
        self._client, self._files = client, files
        self._lock = threading.Lock()
        self.is_closed = self._is_refining = False
        self._drawn: object = None
        self._loop: FrameLoop | None = None
        self._panel = Panel(client, files, self.ask)
        client.camera.on_update(lambda _: self.ask())

    def begin(self, space: CameraSpace) -> None:
        """Starts to draw, once there is something to see; later calls do nothing."""
        with self._lock:
            if self.is_closed or self._loop is not None:
                return
            resolution = AdaptiveResolution()
            painter = Painter(self._files, space, resolution)
            self._panel.build(space)
            self._panel.look_from_first_view()
            self._loop = FrameLoop(painter.paint, self, resolution)
            self._loop.start()
        self.ask()

    def close(self) -> None:
        """Ends all work for the client."""
        with self._lock:
            self.is_closed = True
            if self._loop is not None:
                self._loop.stop()

    def join(self, seconds: float) -> bool:
        """Waits for its thread to end and says whether it has."""
        return self._loop is None or self._loop.join(seconds)

    def files_changed(self) -> None:
        """Shows what has become of the files; draws anew only if that changes the picture."""
        with self._lock:
            self._panel.show_files()
        drawn = [
            (file.scene, file.scene is not None and file.scene.has_bits) for file in self._files
        ]
        if drawn != self._drawn:
            self._drawn = drawn
            self.ask()

    def ask(self) -> None:
        """Wants what camera and controls say now to be drawn."""
        if self._loop is None:
            return
        camera = self._client.camera
        try:
            pose = ViewPose(
                tuple(map(float, camera.wxyz)),
                tuple(map(float, camera.position)),
                float(camera.fov),
                float(camera.aspect),
            )
            self._loop.ask(self._panel.wanted(pose))
        except ValueError as error:
            self.show_problem(str(error))

    # ── the screen of the drawing loop ──

    def show_frame(self, image: np.ndarray) -> None:
        self._send(image, _MOVING_QUALITY)
        if not self._is_refining:
            self._is_refining = True
            self._panel.show_state("refining ...")

    def show_picture(self, request: Request, picture: Picture, *, is_last: bool) -> None:
        files = [self._files[number] for number in request.files]
        labels = [f"{file.path.name}  {file.status.words()}" for file in files]
        image = picture.image
        if len(files) > 1:
            image = add_labels(image, picture.columns, labels)
        self._send(image, _QUALITY)
        if is_last:
            self._is_refining = False
            self._panel.show_state(self._words(request, picture, files))

    def show_problem(self, message: str) -> None:
        self._panel.show_state(message)

    def _send(self, image: np.ndarray, quality: int) -> None:
        self._client.scene.set_background_image(image, format="jpeg", jpeg_quality=quality)
        try:
            self._client.flush()
        except KeyError:
            # viser has forgotten the client, which went while this was drawn; and it says nothing
            # of one that went before it was said to have come.
            self.close()

    def _words(self, request: Request, picture: Picture, files: list[SceneFile]) -> str:
        height, width = picture.image.shape[:2]
        words = [f"{width} x {height} pixels in {picture.seconds:.1f} s"]
        if request.output == "bits" and any(
            f.scene and f.scene.entry_bits() is None for f in files
        ):
            words.append("counting the bits of entries ...")
        elif picture.scale.words(request.output):
            words.append(picture.scale.words(request.output))
        return "; ".join(words)
