"""The export that the panel starts while training goes on.

The host calls a button in a thread of its viewer and holds the lock of training meanwhile: no step
and no rendering is under way. Packing there is short and gives integers of its own; encoding,
checking and writing them take seconds and follow in another thread, without the lock. Training then
goes on with numbers that nobody else touches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from shacira_nerfstudio.codec import PackedScene, encode_scene
from shacira_nerfstudio.output_files import only_writer
from shacira_nerfstudio.plugin.export_files import (
    check_export_folder,
    check_round_trip,
    write_export_folder,
)
from shacira_nerfstudio.plugin.stored_cameras import SCENE_NAME


@dataclass(frozen=True)
class Snapshot:
    """A model between two steps, and where its export goes."""

    scene: PackedScene
    config: TrainerConfig
    step: int
    folder: Path

    def export(self) -> int:
        """Writes the folder that `ns-export shacira` would write of this scene.

        Returns:
            The length of the file in bytes.
        """
        check_export_folder(self.folder)
        data = encode_scene(self.scene)
        check_round_trip(self.scene, data)
        with only_writer(self.folder):
            write_export_folder(self.config, self.step, data, self.folder)
        return len(data)


class Exports:
    """One export at a time.

    Args:
        say: Shows people how it goes, in Markdown; called from any thread.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, snapshot: Snapshot) -> None:
        """Begins an export, and returns at once."""
        self._say(f"Exporting step {snapshot.step:,} ...")
        # Not a daemon: who stops training while it runs gets a whole folder.
        self._thread = threading.Thread(target=self._run, args=(snapshot,), name="shacira-export")
        self._thread.start()

    def wait(self) -> None:
        """Until the last one has ended."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, snapshot: Snapshot) -> None:
        begin = time.monotonic()
        try:
            size = snapshot.export()
        except (ValueError, OSError, MemoryError) as error:
            self._say(f"**Not exported**: {error}")
            return
        path = snapshot.folder / SCENE_NAME
        CONSOLE.print(f"Exported {escape(str(path))}: {size:,} bytes", soft_wrap=True)
        # Short: a path does not break, and would widen the panel.
        where = f"{snapshot.folder.parent.name}/{snapshot.folder.name}"
        self._say(
            f"Step {snapshot.step:,}: **{size:,} bytes**, written and verified in "
            f"{time.monotonic() - begin:.1f} s, beside the checkpoints in `{where}`.  \n"
            "`shacira export` takes longer and may find that fewer bytes do."
        )
