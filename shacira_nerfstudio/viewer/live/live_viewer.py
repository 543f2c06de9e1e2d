"""All files and all clients of one viewer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from shacira_nerfstudio.model.scene import PinholeCamera
from shacira_nerfstudio.viewer.live.camera_space import CameraSpace
from shacira_nerfstudio.viewer.live.scene_files import SceneFile
from shacira_nerfstudio.viewer.live.session import Session


class LiveViewer:
    """Brings files and clients together.

    Args:
        server: From :func:`start_server`.
        files: Already decoding.
    """

    def __init__(self, server: Any, files: Sequence[SceneFile]) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._space: CameraSpace | None = None
        self.first_scene = threading.Event()
        """Set once there is something to see."""
        server.on_client_connect(self._connect)
        server.on_client_disconnect(self._disconnect)

    @property
    def sessions(self) -> list[Session]:
        """Of the clients that are there."""
        with self._lock:
            return list(self._sessions.values())

    def file_changed(self, file: SceneFile) -> None:
        """To be called after more of a file is there, or something else."""
        with self._lock:
            if self._space is None and file.scene is not None:
                # All files are seen by one camera: that of the first which is there.
                self._space = file.scene.camera_space(lambda camera: _distance(file, camera))
                self.first_scene.set()
            space = self._space
        for session in self.sessions:
            if space is not None:
                session.begin(space)
            session.files_changed()

    def stop(self) -> None:
        """Ends all work."""
        for file in self._files:
            file.stop()
        for session in self.sessions:
            session.close()
        for session in self.sessions:
            session.join(5.0)

    def _connect(self, client: Any) -> None:
        session = Session(client, self._files)
        with self._lock:
            self._sessions[client.client_id] = session
            space = self._space
        if space is not None:
            session.begin(space)

    def _disconnect(self, client: Any) -> None:
        with self._lock:
            session = self._sessions.pop(client.client_id, None)
        if session is not None:
            session.close()


def _distance(file: SceneFile, camera: PinholeCamera) -> float:
    """How far away is what a camera sees, by the levels that are there by now."""
    assert file.scene is not None
    return file.scene.distance_ahead(camera)
