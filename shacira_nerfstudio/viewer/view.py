"""A web viewer of scene files, and of nothing else: no data set, no Nerfstudio, no GPU.

The server listens before PyTorch is loaded and files are decoded, which the browser's own start
hides.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shacira_nerfstudio.viewer.live.scene_files import SceneFile, check_file
from shacira_nerfstudio.viewer.live.server import (
    SceneServer,
    address,
    is_loopback,
    start_server,
    stop_server,
)


def view(
    paths: Sequence[Path],
    *,
    host: str,
    port: int,
    device: str = "cpu",
    ended: threading.Event | None = None,
) -> None:
    """Shows files until interrupted from the keyboard, or until ``ended`` is set.

    Args:
        device: Where to render, as for ``shacira render``. Another than cpu has PyTorch loaded
            before the server listens.

    Raises:
        ValueError: a file is none of ours or damaged, or the address cannot be listened on, or
            there is no such device.
    """
    for path in paths:
        check_file(path)
    if device != "cpu":
        from shacira_nerfstudio.viewer.scene_files import find_device

        device = find_device(device)
    ended = ended or threading.Event()
    listeners: list[Callable[[SceneFile], None]] = []

    def tell(file: SceneFile) -> None:
        for listener in listeners:
            listener(file)

    files = [SceneFile(path, tell, device=device) for path in paths]
    server = start_server(host, port, label=", ".join(path.name for path in paths)[:60])
    try:
        for file in files:
            file.start()
        print(f"{address(host, server.get_port())}  (Ctrl-C ends)", flush=True)
        if not is_loopback(host):
            print(f"Whoever reaches {host} can look at this scene.", file=sys.stderr, flush=True)
        _show(server, files, listeners, ended)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        for file in files:
            file.stop()
        stop_server(server)


def _show(
    server: SceneServer,
    files: Sequence[SceneFile],
    listeners: list[Callable[[SceneFile], None]],
    ended: threading.Event,
) -> None:
    with _without_collection():
        from shacira_nerfstudio.viewer.live.live_viewer import LiveViewer

    viewer = LiveViewer(server, files)
    try:
        listeners.append(viewer.file_changed)
        for file in files:
            file.show()
        _wait(ended, viewer.first_scene, files)
    finally:
        viewer.stop()


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Python looks for garbage again and again while packages load, and there is none: a tenth of
    the time that PyTorch takes. What has been loaded stays, and need not be looked at later."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _wait(ended: threading.Event, is_shown: threading.Event, files: Sequence[SceneFile]) -> None:
    """Waits for the end; raises ValueError if no file can ever be shown."""
    said = dict.fromkeys(range(len(files)), "")
    while not ended.wait(0.2):
        for number, file in enumerate(files):
            if file.status.error != said[number]:
                said[number] = file.status.error
                if said[number]:
                    print(f"{file.path}: {said[number]}", file=sys.stderr, flush=True)
        if not is_shown.is_set() and all(file.status.error for file in files):
            raise ValueError(f"{files[0].path}: {files[0].status.error}")
