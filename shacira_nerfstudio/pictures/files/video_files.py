"""Videos on disk: a folder of pictures, or what ffmpeg reads and writes."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from shacira_nerfstudio.output_files import only_writer, replacing_file
from shacira_nerfstudio.pictures.files.image_files import (
    READABLE,
    as_image,
    read_image,
    write_image,
)
from shacira_nerfstudio.pictures.layout import PixelLayout

ENDINGS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m")
"""Files that ffmpeg takes apart."""
DEFAULT_RATE = Fraction(24)
"""Of a folder of pictures."""
_IN_MEMORY = 1 << 30
"""Bytes up to which frames are held in memory; beyond, in a file that goes away."""
_QUALITY = 14
"""x264's constant rate factor for decoded frames: hardly any further loss."""


def read_video(path: Path, *, rate: float = 0.0) -> tuple[Any, PixelLayout]:
    """Integers [T, H, W, C] of all frames, and their layout.

    Args:
        rate: Frames per second, where the file does not say or is to be overruled; 0 leaves it.

    Raises:
        ValueError: there is no video, or its frames are of several sizes.
    """
    frames, first, count, found = _of_folder(path) if path.is_dir() else _of_file(path)
    fraction = Fraction(rate).limit_denominator(1001) if rate else found
    if fraction <= 0:
        raise ValueError(f"expected a rate above 0, got {rate}")
    layout = PixelLayout(
        first.width,
        first.height,
        first.channels,
        first.bits,
        count,
        (fraction.numerator, fraction.denominator),
    )
    shape = (count, first.height, first.width, first.channels)
    if math.prod(shape) * first.bits // 8 <= _IN_MEMORY:
        pixels: Any = np.empty(shape, first.dtype)
    else:
        pixels = np.memmap(tempfile.TemporaryFile(), first.dtype, "w+", shape=shape)
    number = 0
    for frame in frames:
        if frame.shape != shape[1:] or frame.dtype != pixels.dtype:
            raise ValueError(
                f"expected frames of {shape[1:]}, {pixels.dtype}, got {frame.shape}, {frame.dtype} "
                f"for frame {number} of {path}"
            )
        if number < count:
            pixels[number] = frame
        number += 1
    if number != count:
        raise ValueError(f"expected {count} frames in {path}, found {number}")
    return pixels, layout


_Source = tuple[Iterable[np.ndarray], PixelLayout, int, Fraction]
"""Frames, the layout of one, how many, frames per second."""


def _of_folder(path: Path) -> _Source:
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in READABLE)
    if not files:
        raise ValueError(f"expected frames {', '.join(READABLE)} in {path}, found none")
    _, first = read_image(files[0])
    return (read_image(file)[0] for file in files), first, len(files), DEFAULT_RATE


def _of_file(path: Path) -> _Source:
    if not path.is_file():
        raise ValueError(f"expected a video or a folder of frames, found no {path}")
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"expected a folder or a video of {', '.join(ENDINGS)}, got {path}")
    import imageio_ffmpeg

    try:
        # Its own count is by duration, which many files state roughly.
        count = sum(1 for _ in _frames_of(path, None))
        reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
        info: Any = next(reader)
        reader.close()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"expected a video, got {path}: {str(error)[-300:]}") from error
    width, height = info["size"]
    rate = Fraction(info["fps"] or 0).limit_denominator(1001)
    layout = PixelLayout(width, height)
    return _frames_of(path, (height, width)), layout, count, rate or DEFAULT_RATE


def _frames_of(path: Path, size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(
        str(path), pix_fmt="rgb24", output_params=["-fps_mode", "passthrough"]
    )
    next(reader)
    for data in reader:
        flat = np.frombuffer(data, np.uint8)
        yield flat if size is None else flat.reshape(*size, 3)


def write_frames(folder: Path, frames: Iterable[np.ndarray], *, first: int = 0) -> int:
    """Writes ``00000.png`` and so on.

    Args:
        first: Number of the first frame.

    Returns:
        How many.
    """
    count = 0
    with only_writer(folder):
        for count, pixels in enumerate(frames, start=1):
            write_image(folder / f"{first + count - 1:05d}.png", pixels)
    return count


def check_frames_in(folder: Path, numbers: range) -> None:
    """Raises ValueError for pictures of another sequence, which would mix with these."""
    if not folder.is_dir():
        return
    names = [p.stem for p in folder.iterdir() if re.fullmatch(r"\d{5,}\.png", p.name)]
    others = sorted(name for name in names if int(name) not in numbers)
    if others:
        raise ValueError(
            f"expected no pictures but {numbers[0]:05d}.png to {numbers[-1]:05d}.png in {folder}, "
            f"found {len(others)} others, such as {others[0]}.png: take another folder"
        )


def write_video(
    path: Path, frames: Iterable[np.ndarray], *, size: tuple[int, int], rate: float
) -> int:
    """Writes a video: Y4M without loss but for the halved resolution of its colours, others with
    H.264.

    Returns:
        The number of frames.
    """
    import imageio_ffmpeg

    count, ending = 0, path.suffix.lower()
    is_raw = ending == ".y4m"
    params = ["-f", "yuv4mpegpipe"] if is_raw else ["-crf", str(_QUALITY), "-f", _muxer(ending)]
    with replacing_file(path) as part:
        writer = imageio_ffmpeg.write_frames(
            str(part),
            size,
            fps=rate,  # pyright: ignore[reportArgumentType]
            codec="rawvideo" if is_raw else "libx264",
            quality=None,  # pyright: ignore[reportArgumentType]
            macro_block_size=1,
            pix_fmt_out="yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p",
            output_params=params,
        )
        writer.send(None)
        try:
            for pixels in frames:
                writer.send(np.ascontiguousarray(np.asarray(as_image(pixels).convert("RGB"))))
                count += 1
        finally:
            writer.close()
        if not part.stat().st_size:
            raise RuntimeError(f"expected ffmpeg to write {path}, got nothing")
    return count


def _muxer(ending: str) -> str:
    names = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
    if ending not in names:
        raise ValueError(f"expected a folder, or a video of .y4m, {', '.join(names)}, got {ending}")
    return names[ending]
