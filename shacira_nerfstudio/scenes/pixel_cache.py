"""All pixels of a scene in one file that is mapped, not read: memory for what is looked at.

The file is built once per scene and set of options, in parallel, and takes its place by a rename:
what a killed build leaves is a ``.part`` that nobody opens and the next build overwrites. It names
its sources (path, size, time of change, a hash of samples of the content) and is built anew when
one of them is another, or when a byte of its own is not what was written.

Layout: a preamble (magic, place, length and CRC-32 of the description), from byte 4096 on the
pixels of all images, row by row, then a byte per pixel for masks if there are any, then the
description as JSON. Notation: N images, P pixels of all of them, C channels, R pixels of a batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shacira_nerfstudio.output_files import check_output_file
from shacira_nerfstudio.progress import tracked

logger = logging.getLogger(__name__)

_MAGIC, _PREAMBLE, _BEGIN = b"SHPIXELS", struct.Struct("<8sQII"), 4096
_VERSION = 1
"""Of the layout and of how images are read: a file of another one is built anew."""
_SAMPLE_BYTES = 1 << 16
"""Of a source's beginning, middle and end, that are hashed."""
_DECODING_BYTES = 1 << 30
"""That images which are being decoded may take together, at :data:`_BYTES_PER_PIXEL` each."""
_BYTES_PER_PIXEL = 96
"""While a linear image is decoded and made sRGB: four floats and some copies of them."""

Image = NDArray[Any]
"""Of uint8 or uint16."""
Read = Callable[[int], tuple[Image, NDArray[np.bool_] | None]]
"""Decodes one image: pixels [H, W, C], and its mask [H, W] if there are any."""


class BrokenImages(ValueError):
    """Images that could not be read, all of them."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n  ".join(faults))
        self.faults = list(faults)


class _Miss(Exception):
    """Why a file is not what is wanted."""


@dataclass(frozen=True)
class PixelSource:
    """What decides the content of a file."""

    paths: tuple[Path, ...]
    """Files that pixels and masks are read from."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each image."""
    channels: int
    bits: int
    """8 or 16 per channel."""
    has_masks: bool
    options: dict[str, Any]
    """All else that changes pixels, ready for JSON."""

    @property
    def image_bytes(self) -> int:
        """Of one pixel."""
        return self.channels * self.bits // 8

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first pixel of each image, and P; [N + 1]."""
        return np.cumsum([0, *(height * width for height, width in self.sizes)])

    @property
    def num_bytes(self) -> int:
        """Of the file, but for its description."""
        return _BEGIN + int(self.starts[-1]) * (self.image_bytes + self.has_masks)

    def description(self) -> dict[str, Any]:
        """The same as JSON, with the state of the files."""
        content = {**asdict(self), "paths": [_state_of(path) for path in self.paths]}
        return json.loads(json.dumps({"version": _VERSION, **content}))

    def file_in(self, folder: Path, name: str) -> Path:
        """Where the file belongs: one for each set of sources and options."""
        content = {**asdict(self), "paths": [str(path) for path in self.paths]}
        digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8)
        return folder / f"{name}-{digest.hexdigest()}.pixels"


@dataclass(frozen=True, eq=False)
class PixelCache:
    """An open file."""

    source: PixelSource
    pixels: Image
    """Mapped, [P, C]."""
    masks: NDArray[np.bool_] | None
    """Mapped, [P]."""

    def gather(self, indices: NDArray[np.int64]) -> tuple[Image, NDArray[np.bool_] | None]:
        """Pixels [R, C] and masks [R] at image, row and column [R, 3]."""
        image, row, column = indices.T
        widths = np.array([width for _, width in self.source.sizes])
        places = self.source.starts[image] + row * widths[image] + column
        return self.pixels[places], None if self.masks is None else self.masks[places]

    def mask(self, image: int) -> NDArray[np.bool_]:
        """Mapped, [H, W]."""
        assert self.masks is not None
        first, last = self.source.starts[image : image + 2]
        return self.masks[first:last].reshape(self.source.sizes[image])


def open_pixel_cache(path: Path, source: PixelSource, read: Read) -> PixelCache:
    """Opens the file, and builds it first where it is not there or not what it should be.

    Of several processes that want the same file one builds it, and the others wait.

    Raises:
        BrokenImages: naming all images that could not be read; there is no file then.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    description = source.description()
    with _alone(path):
        try:
            return _open(path, source, description)
        except _Miss as miss:
            logger.info("Building the pixel cache %s: %s", path, miss)
        check_output_file(path, source.num_bytes)
        _build(path, source, description, read)
        return _open(path, source, description, is_new=True)


def _state_of(path: Path) -> list[Any]:
    """What tells a file from its later versions, without reading all of it."""
    state, digest = path.stat(), hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for place in (0, state.st_size // 2, max(0, state.st_size - _SAMPLE_BYTES)):
            file.seek(place)
            digest.update(file.read(_SAMPLE_BYTES))
    return [str(path), state.st_size, state.st_mtime_ns, digest.hexdigest()]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits for other processes that build the same file."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with path.with_name(path.name + ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another process builds the pixel cache %s: waiting for it", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


def _build(path: Path, source: PixelSource, description: dict, read: Read) -> None:
    part, faults, writing = path.with_name(path.name + ".part"), [], Lock()
    starts, mask_begin = source.starts, _BEGIN + int(source.starts[-1]) * source.image_bytes

    def store(index: int) -> tuple[int, int]:
        try:
            arrays = _checked(*read(index), source, index)
        except (OSError, ValueError) as error:
            faults.append(str(error))
            return 0, 0
        places = (_BEGIN + int(starts[index]) * source.image_bytes, mask_begin + int(starts[index]))
        with writing:
            for place, array in zip(places, arrays, strict=True):
                file.seek(place)
                file.write(array.data)
        return zlib.crc32(arrays[0].data), zlib.crc32(arrays[1].data)

    try:
        with part.open("wb") as file:
            count = len(source.sizes)
            with ThreadPoolExecutor(_num_threads(source)) as pool:
                done = pool.map(store, range(count))
                sums = list(tracked(done, "caching pixels", total=count, unit="images"))
            if faults:
                raise BrokenImages(sorted(faults))
            _finish(file, source, {**description, "crc": sums})
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _checked(
    image: Image, mask: NDArray[np.bool_] | None, source: PixelSource, index: int
) -> tuple[Image, NDArray[np.uint8]]:
    """Arrays as they are written, the mask of no bytes where there is none."""
    expected = (*source.sizes[index], source.channels)
    if image.shape != expected:
        raise ValueError(f"{source.paths[index]}: expected {expected}, found {image.shape}")
    if not source.has_masks:
        return np.ascontiguousarray(image), np.empty(0, np.uint8)
    if mask is None or mask.shape != expected[:2]:
        found = None if mask is None else mask.shape
        raise ValueError(f"{source.paths[index]}: expected a mask of {expected[:2]}, found {found}")
    return np.ascontiguousarray(image), np.ascontiguousarray(mask, np.uint8)


def _finish(file: BinaryIO, source: PixelSource, description: dict) -> None:
    text = json.dumps(description).encode()
    file.seek(source.num_bytes)
    file.write(text)
    file.seek(0)
    file.write(_PREAMBLE.pack(_MAGIC, source.num_bytes, len(text), zlib.crc32(text)))
    file.flush()
    os.fsync(file.fileno())


def _open(
    path: Path, source: PixelSource, description: dict, *, is_new: bool = False
) -> PixelCache:
    """Raises :class:`_Miss` unless the file is whole and of these sources."""
    found = _read_description(path)
    sums = found.pop("crc", None)
    if found != description:
        raise _Miss(_difference(found, description))
    if path.stat().st_size < source.num_bytes:
        raise _Miss("it is cut off")
    if not is_new:
        _check_sums(path, source, sums)
    dtype, count = np.dtype(f"u{source.bits // 8}"), int(source.starts[-1])
    # Copy on write, so that torch may look at it; nobody writes.
    pixels = np.memmap(path, dtype, "c", _BEGIN, (count, source.channels))
    begin = _BEGIN + count * source.image_bytes
    masks = np.memmap(path, np.bool_, "c", begin, (count,)) if source.has_masks else None
    return PixelCache(source, pixels, masks)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            head = file.read(_PREAMBLE.size)
            if len(head) < _PREAMBLE.size:
                raise _Miss("it is cut off")
            magic, place, length, crc = _PREAMBLE.unpack(head)
            if magic != _MAGIC:
                raise _Miss("its beginning is damaged")
            if place + length != path.stat().st_size:
                raise _Miss("it has another length than it says")
            file.seek(place)
            text = file.read(length)
    except FileNotFoundError:
        raise _Miss("there is none yet") from None
    if zlib.crc32(text) != crc:
        raise _Miss("its description is damaged")
    return json.loads(text)


def _difference(found: dict, expected: dict) -> str:
    """In words."""
    before = {entry[0]: entry for entry in found.get("paths", ())}
    changed = [entry[0] for entry in expected["paths"] if before.get(entry[0]) != entry]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{changed[0]}{more} changed since it was built"
    names = [name for name, value in expected.items() if found.get(name) != value]
    return f"it was built with another {', '.join(names)}"


def _check_sums(path: Path, source: PixelSource, sums: Any) -> None:
    """Compares all bytes with what was written; which also brings them into memory that is free."""
    count = len(source.sizes)
    if not isinstance(sums, list) or len(sums) != count:
        raise _Miss("its checksums are missing")
    spans, begin = [], _BEGIN
    for size, column in ((source.image_bytes, 0), (int(source.has_masks), 1)):
        for index, (first, last) in enumerate(pairwise(source.starts.tolist())):
            if size:
                spans.append((begin + first * size, (last - first) * size, sums[index][column]))
        begin += int(source.starts[-1]) * size

    def is_sound(span: tuple[int, int, int]) -> bool:
        place, length, expected = span
        with path.open("rb") as file:
            file.seek(place)
            return zlib.crc32(file.read(length)) == expected

    with ThreadPoolExecutor(_num_threads(source)) as pool:
        done = tracked(
            pool.map(is_sound, spans), "checking cached pixels", total=len(spans), unit="images"
        )
        if not all(list(done)):
            raise _Miss("some of its pixels are damaged")


def _num_threads(source: PixelSource) -> int:
    """As many as there are cores, and as images fit into :data:`_DECODING_BYTES`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    largest = max(height * width for height, width in source.sizes) * _BYTES_PER_PIXEL
    return max(1, min(cores or 1, _DECODING_BYTES // largest))
