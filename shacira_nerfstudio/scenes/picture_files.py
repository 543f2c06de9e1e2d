"""Pictures as their files mean them: palettes, greys, 16 bits, CMYK and EXIF rotation included.

The host reads the numbers of a file as they stand: indices of a palette as greys, CMYK as RGBA, the
low byte of 16 bits, the rows of a phone's picture lying on its side. What a picture means is plain
in nearly all of these cases; the others are faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shacira_nerfstudio.scenes.linear_pixels import exr_size

Size = tuple[int, int]
"""Width and height."""
_ORIENTATION = 0x0112
_TURNED = 5
"""EXIF orientations from this one on swap the sides."""
_ROUNDED = 100
"""Sides from here on may be a pixel longer or shorter than stated: images that somebody shrank were
rounded up or down."""
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_READABLE = ("RGB", "RGBX", "L", "1", "P", "CMYK", "YCbCr", "HSV", "I;16", "I;16B", *_ALPHA)


@dataclass(frozen=True)
class Picture:
    """What the header of a file says."""

    path: Path
    size: Size
    """As stored."""
    mode: str = "RGB"
    """Pillow's."""
    orientation: int = 1
    """EXIF's; 1 is upright."""
    has_alpha: bool = False

    @property
    def fault(self) -> str | None:
        """What no reading puts right."""
        if self.mode in _READABLE or (self.mode == "I" and self.path.suffix.lower() == ".png"):
            return None
        return f"expected a picture of 8 or 16 bits, RGB or grey, found Pillow's mode {self.mode}"

    def turns(self, expected: Size) -> bool:
        """Whether its rows and columns are those of a camera only once EXIF's rotation is applied.

        Raises:
            ValueError: no reading has the camera's size, or two have.
        """
        size = self.size
        turned = (size[1], size[0]) if self.orientation >= _TURNED else size
        as_stored, as_turned = _fits(size, expected), _fits(turned, expected)
        stated, found = "x".join(map(str, expected)), "x".join(map(str, size))
        if not (as_stored or as_turned):
            hint = ""
            if size == expected[::-1]:
                hint = ": its sides are swapped"
            elif size[0] * expected[1] == size[1] * expected[0]:
                hint = f": resized by {size[0] / expected[0]:.4g}, unlike its camera"
            raise ValueError(f"expected {stated} pixels, as its camera says, found {found}{hint}")
        if self.orientation != 1 and as_stored and as_turned:
            raise ValueError(
                f"expected a picture that is the right way up, found EXIF orientation "
                f"{self.orientation} on {found} pixels, which fits the camera with and without "
                "that rotation; if poses were found on the stored pixels, as COLMAP does, remove "
                "the tag (exiftool -Orientation= FILES), else apply it (mogrify -auto-orient FILES)"
            )
        return as_turned and not as_stored


def _fits(found: Size, expected: Size) -> bool:
    if found == expected or found == expected[::-1]:
        return found == expected
    slack = 1 if min(expected) >= _ROUNDED else 0
    return all(abs(a - b) <= slack for a, b in zip(found, expected, strict=True))


def read_header(path: Path) -> Picture:
    """Opens a file as far as its header."""
    path = Path(path)
    if path.suffix.lower() == ".exr":
        return Picture(path, exr_size(path))
    with Image.open(path) as image:
        return _described(path, image)


def _described(path: Path, image: Image.Image) -> Picture:
    # Pillow decodes a whole PNG for a tag that may stand behind its pixels, and turns TIFF itself.
    has_tag = "exif" in image.info and image.format != "TIFF"
    orientation = image.getexif().get(_ORIENTATION, 1) if has_tag else 1
    return Picture(
        path,
        image.size,
        image.mode,
        orientation if orientation in range(1, 9) else 1,
        image.mode in _ALPHA or (image.mode == "P" and "transparency" in image.info),
    )


def read_pixels(path: Path, expected: Size, scale_factor: float = 1.0) -> NDArray[np.uint8]:
    """The picture, [H, W, 3], or [H, W, 4] with straight alpha.

    Args:
        expected: Size of its camera before scaling.

    Raises:
        ValueError: naming the file.
    """
    try:
        with Image.open(path) as image:
            picture = _described(Path(path), image)
            if picture.fault:
                raise ValueError(picture.fault)
            turned = ImageOps.exif_transpose(image) if picture.turns(expected) else image
            plain = _plain(turned, has_alpha=picture.has_alpha)
            if scale_factor != 1.0:
                size = int(plain.width * scale_factor), int(plain.height * scale_factor)
                plain = plain.resize(size, resample=Image.Resampling.BILINEAR)
            return np.array(plain, dtype="uint8")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected a file, found none") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_lossy_mask(path: Path, scale_factor: float = 1.0) -> NDArray[np.bool_]:
    """A mask [H, W, 1] that compression has made grey."""
    with Image.open(path) as image:
        size = int(image.width * scale_factor), int(image.height * scale_factor)
        return np.array(image.convert("L").resize(size, Image.Resampling.NEAREST))[..., None] > 127


def _plain(image: Image.Image, *, has_alpha: bool) -> Image.Image:
    """RGB or RGBA of 8 bits."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        image = Image.fromarray((values / 257 + 0.5).astype(np.uint8))
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    wanted = "RGBA" if has_alpha else "RGB"
    return image if image.mode == wanted else image.convert(wanted)
