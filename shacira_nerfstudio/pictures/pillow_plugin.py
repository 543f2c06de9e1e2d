"""Pillow reads .shacira files once this is imported: ``Image.open("picture.shacira")``.

A video is a picture of several frames, to be reached with ``seek``. Opening reads the file and its
head; pixels are decoded when they are first asked for.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile

from shacira_nerfstudio.codec import SceneFormatError, decode_scene
from shacira_nerfstudio.codec.container import unpack_sections
from shacira_nerfstudio.codec.sections.head import decode_head
from shacira_nerfstudio.codec.sections.table import KNOWN
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.files.image_files import as_image
from shacira_nerfstudio.pictures.layout import PixelLayout

FORMAT = "SHACIRA"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _accept(prefix: bytes) -> bool:
    return prefix[:4] == b"SHCR"


class ShaciraImageFile(ImageFile.ImageFile):
    """A picture or a video from a file."""

    format = FORMAT
    format_description = "SHACIRA picture"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        try:
            sections = unpack_sections(self._data, known=KNOWN)
            head = decode_head(next(s.payload for s in sections if s.tag == "HEAD"))
            layout = PixelLayout.from_architecture(head["kind"], head["architecture"])
        except (SceneFormatError, StopIteration) as error:
            # What Pillow takes for "not a file of this kind".
            raise SyntaxError(str(error) or "expected a head, found none") from error
        self._size = layout.width, layout.height
        is_deep_grey = layout.bits == 16 and layout.channels == 1
        self._mode = "I;16" if is_deep_grey else _MODES[layout.channels]
        self.info["bits"] = layout.bits  # in the file: Pillow has 16 for grey without alpha alone
        self.n_frames, self.is_animated = layout.frames, layout.frames > 1
        if layout.is_video:
            self.info["duration"] = 1000 / layout.frames_per_second
        self._frame, self._decoder = 0, None

    def load(self) -> Any:
        """Decodes the frame that has been chosen."""
        if self._im is None:
            if self._decoder is None:
                try:
                    self._decoder = PixelDecoder(decode_scene(self._data))
                except SceneFormatError as error:
                    raise OSError(str(error)) from error
            self.im = as_image(self._decoder.pixels(frame=self._frame)).im
        return super(ImageFile.ImageFile, self).load()

    def seek(self, frame: int) -> None:
        """Chooses a frame of a video, from 0."""
        if not 0 <= frame < self.n_frames:
            raise EOFError(f"expected a frame from 0 to {self.n_frames - 1}, got {frame}")
        if frame != self._frame:
            self._frame, self._im = frame, None

    def tell(self) -> int:
        """The frame that has been chosen."""
        return self._frame


def register() -> None:
    """Tells Pillow; importing this module does so."""
    Image.register_open(FORMAT, ShaciraImageFile, _accept)
    Image.register_extension(FORMAT, ".shacira")


register()
