"""Pictures on disk, as integers of 8 or 16 bits: grey or RGB, with or without alpha."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from shacira_nerfstudio.output_files import replacing_file, write_file
from shacira_nerfstudio.pictures.layout import MAX_CHANNELS, PixelLayout

_MAPPED = (".npy", ".tif", ".tiff")
"""Files that are read and written a part at a time where they are large."""
LARGE_PIXELS = 1 << 26
"""Of a picture that is."""
READABLE = (
    ".npy",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".avif",
    ".jp2",
    ".ppm",
)
"""Endings of files that are taken from a folder."""
_FORMATS = {
    **{".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM"},
    **{".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".jp2": "JPEG2000", ".avif": "AVIF"},
}
_WITHOUT_ALPHA = ("JPEG", "BMP", "PPM")
_PNG_DEPTH_AT = 24
"""Where a PNG says how many bits its channels have."""


def read_image(path: Path) -> tuple[np.ndarray, PixelLayout]:
    """Integers [H, W, C], uint8 or uint16, the right way up; of arrays (.npy) and of large TIFF
    files a view of the file itself, or of an unpacked copy on disk.

    Raises:
        ValueError: naming the file, which is no picture or of a kind that has no such integers.
    """
    try:
        mapped = _mapped(path) if path.suffix.lower() in _MAPPED else None
        if mapped is not None:
            pixels = mapped
        elif _has_16_bits(path):
            pixels = _read_16_bits(path)
        else:
            with Image.open(path) as image:
                pixels = plain_pixels(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ValueError(f"expected a picture {path}, found no such file") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"expected a picture, got {path}: {error}") from error
    height, width, channels = pixels.shape
    return pixels, PixelLayout(width, height, channels, 8 * pixels.itemsize)


def plain_pixels(image: Image.Image) -> np.ndarray:
    """Of a picture of Pillow's: palettes, CMYK and the like become what they mean."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"expected 16 bits, got values from {values.min()} to {values.max()}")
        return values.astype(np.uint16)[..., None]
    if image.mode == "F":
        raise ValueError("expected 8 or 16 bits per channel, got floats")
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    is_grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if has_alpha else "L") if is_grey else ("RGBA" if has_alpha else "RGB")
    values = np.array(image if image.mode == mode else image.convert(mode))
    return values if values.ndim == 3 else values[..., None]


def _mapped(path: Path) -> np.ndarray | None:
    """The file as an array that is read where it is looked at; None if that is not worth it, or not
    possible."""
    if path.suffix.lower() == ".npy":
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            if page.size < LARGE_PIXELS:  # pyright: ignore
                return None
            # Tiles and what is compressed are unpacked once, into a file that goes away.
            is_plain = page.is_memmappable  # pyright: ignore
            values = None if is_plain else page.asarray(out="memmap")
        values = tifffile.memmap(path, mode="r") if values is None else values
    values = values if values.ndim == 3 else values[..., None]
    is_picture = values.ndim == 3 and 1 <= values.shape[2] <= MAX_CHANNELS
    if not is_picture or values.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"expected uint8 or uint16 [H, W] or [H, W, 1 to 4], got {values.dtype} {values.shape}"
        )
    return values


def write_bands(path: Path, bands: Iterable[np.ndarray], layout: PixelLayout) -> None:
    """Writes rows [rows, W, C] after one another, without holding all of them: .npy or TIFF.

    Args:
        layout: Of what is written.
    """
    shape = (layout.height, layout.width, layout.channels)
    with replacing_file(path) as part:
        if path.suffix.lower() == ".npy":
            target = np.lib.format.open_memmap(part, "w+", layout.dtype, shape)
        else:
            import tifffile

            kind = "rgb" if layout.channels >= 3 else "minisblack"
            target = tifffile.memmap(
                part, shape=shape, dtype=layout.dtype, photometric=kind, bigtiff=True
            )
        at = 0
        for band in bands:
            target[at : at + len(band)] = band
            at += len(band)
        target.flush()


def is_mapped(path: Path) -> bool:
    """Whether :func:`write_bands` writes such a file."""
    return path.suffix.lower() in _MAPPED


def _has_16_bits(path: Path) -> bool:
    """Whether it is a picture whose channels Pillow would cut to 8 bits."""
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        with tifffile.TiffFile(path) as file:
            return file.pages[0].dtype == np.uint16  # pyright: ignore
    with open(path, "rb") as stream:
        head = stream.read(_PNG_DEPTH_AT + 1)
    return head[:4] == b"\x89PNG" and head[_PNG_DEPTH_AT:] == b"\x10"


def _read_16_bits(path: Path) -> np.ndarray:
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        values = tifffile.imread(path)
    else:
        import cv2

        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise ValueError("it cannot be read")
        if values.ndim == 3:  # blue comes first there
            values = values[..., [2, 1, 0, *range(3, values.shape[2])]]
    values = values if values.ndim == 3 else values[..., None]
    if values.dtype != np.uint16 or values.ndim != 3 or not 1 <= values.shape[2] <= 4:
        raise ValueError(f"expected 1 to 4 channels of 16 bits, got {values.dtype} {values.shape}")
    return values


def check_writable_format(path: Path, layout: PixelLayout) -> None:
    """Raises ValueError where a picture of this kind cannot be written under that name."""
    ending = path.suffix.lower()
    if ending == ".npy":
        return
    if ending not in _FORMATS:
        raise ValueError(f"expected a file ending in {', '.join(_FORMATS)}, .npy, got {path}")
    if layout.bits == 16 and ending not in (".png", ".tif", ".tiff"):
        raise ValueError(f"expected PNG or TIFF for 16 bits per channel, got {path}")
    if layout.has_alpha and _FORMATS[ending] in _WITHOUT_ALPHA:
        raise ValueError(f"expected a format with alpha, such as PNG, got {path}")


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Writes integers [H, W, C] in the format of the file's ending, whole or not at all."""
    stream, ending = io.BytesIO(), path.suffix.lower()
    if ending == ".npy":
        np.save(stream, pixels)
    elif pixels.dtype == np.uint16 and ending in (".tif", ".tiff"):
        import tifffile

        extra = {"extrasamples": ["unassalpha"]} if pixels.shape[2] in (2, 4) else {}
        kind = "rgb" if pixels.shape[2] >= 3 else "minisblack"
        values = pixels if pixels.shape[2] > 1 else pixels[..., 0]
        tifffile.imwrite(stream, values, photometric=kind, **extra)  # pyright: ignore
    elif pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        import cv2

        if pixels.shape[2] == 2:  # OpenCV writes no grey with alpha
            pixels = pixels[..., [0, 0, 0, 1]]
        order = [2, 1, 0, *range(3, pixels.shape[2])]
        done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]))
        if not done:
            raise OSError(f"expected to write {path}, got no PNG from OpenCV")
        stream.write(data.tobytes())
    else:
        as_image(pixels).save(stream, format=_FORMATS[ending])
    write_file(path, stream.getvalue())


def as_image(pixels: np.ndarray) -> Image.Image:
    """Integers [H, W, C] as Pillow's picture; 16 bits for grey alone, all others become 8."""
    if pixels.dtype == np.uint16:
        if pixels.shape[2] == 1:
            return Image.fromarray(pixels[..., 0])
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
