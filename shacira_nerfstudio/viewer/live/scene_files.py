"""Files on disk as they are shown: decoded in the background, level by level, while they may still
grow or be replaced."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shacira_nerfstudio.codec import PackedScene, SceneFormatError
from shacira_nerfstudio.codec.container import declared_length, unpack_sections
from shacira_nerfstudio.codec.progressive import ProgressiveDecoder
from shacira_nerfstudio.codec.sections.head import decode_head
from shacira_nerfstudio.codec.sections.table import KNOWN
from shacira_nerfstudio.viewer.live.shown_scene import ShownScene

POLL_SECONDS = 0.25
"""Between two looks at a file."""
_SHOW_SECONDS = 0.3
"""Levels that are decoded faster than this after each other are shown together."""


def check_file(path: Path) -> None:
    """Raises an error in words unless a file is a scene, or the beginning of one."""
    if not path.is_file():
        raise ValueError(f"expected a .shacira file at {path}, found none")
    data = path.read_bytes()
    try:
        if declared_length(data) is not None:
            sections = unpack_sections(data, allow_truncated=True, known=KNOWN)
            if sections and sections[0].tag == "HEAD":
                _check_kind(decode_head(sections[0].payload)["kind"])
    except SceneFormatError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_kind(kind: str) -> None:
    if kind != "radiance_field":
        raise SceneFormatError("HEAD", "a radiance_field, which has views", f"kind {kind!r}")


def shown_name(path: Path) -> str:
    """A file's name with nothing in it that the browser would take for more than text."""
    return re.sub(r"[^\w .,()+-]", "·", path.name)[:80].replace("_", "\\_")


@dataclass(frozen=True)
class FileStatus:
    """How far a file is."""

    num_bytes: int = 0
    declared_bytes: int | None = None
    """What its table of contents says; None before that is there."""
    num_levels: int = 0
    num_levels_stored: int = 0
    """Of the whole file; 0 before the first one is there."""
    error: str = ""

    @property
    def is_complete(self) -> bool:
        return 0 < self.num_levels_stored == self.num_levels and not self.error

    def words(self) -> str:
        """For people."""
        if self.error:
            return f"damaged: {self.error}"
        if self.is_complete:
            return f"{self.num_bytes:,} bytes, {self.num_levels} levels"
        total = f" of {self.declared_bytes:,}" if self.declared_bytes else ""
        levels = f", {self.num_levels} of {self.num_levels_stored} levels"
        return f"{self.num_bytes:,}{total} bytes" + (levels if self.num_levels_stored else "")


class SceneFile:
    """One file, watched by a thread of its own from :meth:`start` to :meth:`stop`.

    Args:
        on_change: Called by that thread after :attr:`status` or :attr:`scene` has changed.
        device: Where it is rendered.
    """

    def __init__(
        self, path: Path, on_change: Callable[[SceneFile], None], *, device: str = "cpu"
    ) -> None:
        self.path, self.name, self._device = path, shown_name(path), device
        self.status = FileStatus()
        self.scene: ShownScene | None = None
        """The levels that are there; None before the first one."""
        self._on_change = on_change
        self._decoder, self._seen, self._signature = ProgressiveDecoder(), b"", (-1, -1, -1)
        self._stopped, self._may_show = threading.Event(), threading.Event()
        self._published = -1e9
        self._thread = threading.Thread(target=self._watch, name=f"watch {path.name}", daemon=True)

    def start(self) -> None:
        """Begins to decode."""
        self._thread.start()

    def show(self) -> None:
        """Begins to make scenes of what is decoded: from now on PyTorch is there."""
        self._may_show.set()

    def stop(self) -> None:
        self._stopped.set()
        self._may_show.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                stat = self.path.stat()
                signature = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
                if signature != self._signature:
                    self._take(self.path.read_bytes())
                    self._signature = signature
            except FileNotFoundError:
                pass  # being replaced, or gone: what was there stays on show
            except (OSError, MemoryError) as error:
                self._set_status(error=str(error) or "too little memory")
            self._stopped.wait(POLL_SECONDS)

    def _take(self, data: bytes) -> None:
        """Decodes what is new in a file's bytes, and shows it."""
        if not data.startswith(self._seen):  # another file took its place
            self._decoder = ProgressiveDecoder()
        self._seen = data
        latest: PackedScene | None = None
        try:
            declared = declared_length(data)
            self._set_status(num_bytes=len(data), declared_bytes=declared, error="")
            for packed in self._decoder.feed(data) if declared is not None else ():
                latest = packed
                if self._stopped.is_set():
                    return
                if self._may_show.is_set() and time.monotonic() - self._published > _SHOW_SECONDS:
                    self._publish(packed)
                    latest = None
            self._may_show.wait()
            self._publish(latest)
        except SceneFormatError as error:
            self._set_status(num_bytes=len(data), error=str(error))

    def _publish(self, packed: PackedScene | None) -> None:
        """Shows a scene, if there is one."""
        if self._stopped.is_set() or packed is None:
            return
        _check_kind(packed.kind)
        self.scene = ShownScene(packed, lambda: self._on_change(self), device=self._device)
        self._published = time.monotonic()
        self._set_status(
            num_levels=packed.num_coded_levels,
            num_levels_stored=self._decoder.num_levels_stored or 0,
        )

    def _set_status(self, **changes: object) -> None:
        self.status = FileStatus(**{**self.status.__dict__, **changes})  # pyright: ignore
        self._on_change(self)
