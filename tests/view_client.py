"""A running viewer, and a browser in a few lines: what it sends to it, and what it gets."""

import contextlib
import io
import socket
import threading
import time
from unittest import mock

import msgspec
import numpy as np
from PIL import Image
from websockets.sync.client import connect

from shacira_nerfstudio.viewer.live import panel
from shacira_nerfstudio.viewer.view import view

LIMIT_S = 120.0
"""Of whatever is waited for: only what never comes takes it, however busy the machine is."""


@contextlib.contextmanager
def serving(folder, contents, *, first_side="256"):
    """Runs the viewer of files scene0.shacira, ... with these bytes in a thread; gives its port.

    Args:
        first_side: Pixels of the longer side before another number is chosen; here few, in less
            time.
    """
    paths = [folder / f"scene{number}.shacira" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    port, ended = free_port(), threading.Event()
    options = {"host": "127.0.0.1", "port": port, "ended": ended}
    thread = threading.Thread(target=view, args=(paths,), kwargs=options)
    with mock.patch.object(panel, "FIRST_SIDE", first_side):
        thread.start()
        try:
            wait_until_listening(port)
            yield port
        finally:
            ended.set()
            thread.join(LIMIT_S)
            assert not thread.is_alive()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(port):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the viewer does not listen")


class ViewClient:
    """Connects, and says where its camera is."""

    def __init__(self, port, *, origin=None, position=(0.0, 0.0, 0.0)):
        self._socket = connect(
            f"ws://127.0.0.1:{port}",
            max_size=None,
            origin=origin,
            compression=None,
            open_timeout=LIMIT_S,
            ping_interval=None,  # a busy machine is not a dead one
        )
        self.gui, self.images, self.camera = {}, [], {}
        self.look(position=position)

    def look(self, **changes):
        """Sends a camera."""
        camera = {
            "wxyz": (0.0, 1.0, 0.0, 0.0),
            "position": (0.0, 0.0, 0.0),
            "fov": 0.75,
            "aspect": 1.5,
            "look_at": (0.0, 0.0, -1.0),
            "up_direction": (0.0, 1.0, 0.0),
        }
        self._send("ViewerCameraMessage", {**camera, **changes})

    def set(self, label, value):
        """Moves a control."""
        self._send(
            "GuiUpdateMessage", {"id": self.control(label)["id"], "updates": {"value": value}}
        )

    def control(self, label):
        """The latest of this name."""
        return [message for message in self.gui.values() if message.get("label") == label][-1]

    def press(self, label):
        self.set(label, True)

    def _send(self, kind, content):
        self._socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def receive(self, until, seconds=LIMIT_S):
        """Takes messages until a condition holds."""
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            assert left > 0, f"in vain; {len(self.images)} images, {self.texts()}"
            try:
                window = msgspec.msgpack.decode(self._socket.recv(timeout=min(left, 0.2)))
            except TimeoutError:
                continue
            for message in window:
                self._take(message)

    def _take(self, message):
        kind = message["type"]
        if kind == "BackgroundImageMessage":
            self.images.append(np.array(Image.open(io.BytesIO(message["rgb_bytes"]))))
        elif kind.startswith("GuiAdd"):
            self.gui[message["id"]] = message
        elif kind == "GuiUpdateMessage" and message["id"] in self.gui:
            self.gui[message["id"]].update(message["updates"])
        elif kind.startswith("SetCamera"):
            self.camera[kind] = message
        elif kind in ("CameraFrustumMessage", "RemoveSceneNodeMessage"):
            self.gui[f"{kind} {message['name']}"] = message

    def shows(self, width, height):
        """Whether the latest picture is so large and whole: parts of it come while it is refined,
        and that it is finished is said after it."""
        is_there = bool(self.images) and self.images[-1].shape[:2] == (height, width)
        return is_there and self.says(f"{width} x {height} pixels")

    def texts(self):
        """What the panel says."""
        return [m.get("markdown", m.get("content", "")) for m in self.gui.values()]

    def says(self, text):
        return any(text in str(message) for message in self.gui.values())

    def close(self):
        self._socket.close()

    def die(self):
        """Goes without a word, as a browser that is killed."""
        self._socket.socket.shutdown(socket.SHUT_RDWR)
