"""Everything that is wrong with the pictures and cameras of a data set, in one message, before
training.

The host takes much on trust: a picture of another size than its camera gives rays through the wrong
pixels, or an IndexError long after; one of another mode is trained on as if it were plain RGB. Here
headers of all files are read, in parallel, and compared with the cameras. What can be put right is
(see :mod:`shacira_nerfstudio.scenes.picture_files`), the rest is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from PIL import Image

from shacira_nerfstudio.scenes.camera_faults import number_faults, pose_fault
from shacira_nerfstudio.scenes.picture_files import Picture, Size, read_header

_MASK_MODES = ("1", "L", "P", "I", "I;16")
FILE_SIZES = "file_sizes"
"""Key of metadata: widths and heights of files that a parser's cameras see smaller."""
_NUM_THREADS = 16
"""They wait for the disk."""


class InputError(ValueError):
    """What a data set must not hold."""


def refuse(faults: Iterable[str]) -> None:
    """Raises an :class:`InputError` that lists all faults; does nothing if there are none."""
    listed = list(dict.fromkeys(faults))
    if listed:
        number = f"{len(listed)} fault{'s' if len(listed) > 1 else ''}"
        raise InputError(f"expected a sound data set, found {number}:\n  " + "\n  ".join(listed))


def camera_faults(outputs: DataparserOutputs) -> list[str]:
    """Of the cameras as a data parser made them."""
    cameras, faults = outputs.cameras.to("cpu"), []
    columns = {
        **{"fx": cameras.fx, "fy": cameras.fy, "cx": cameras.cx, "cy": cameras.cy},
        **{"width": cameras.width, "height": cameras.height},
    }
    lens = cameras.distortion_params
    for index, (path, pose) in enumerate(
        zip(outputs.image_filenames, cameras.camera_to_worlds, strict=False)
    ):
        numbers = {name: column[index].item() for name, column in columns.items()}
        found = [pose_fault(pose.numpy()), *number_faults(numbers)]
        if lens is not None and not lens[index].isfinite().all():
            found.append(f"expected finite lens distortion, found {lens[index].tolist()}")
        faults += [f"{path}: {fault}" for fault in found if fault]
    return faults


def read_pictures(outputs: DataparserOutputs) -> tuple[list[Picture | None], list[str]]:
    """What headers say, None of a file that cannot be read; and what is wrong, masks included."""
    faults: list[str] = []
    pictures: list[Picture | None] = _in_parallel(read_header, outputs.image_filenames, faults)
    sizes: list[Size | None] = []
    for picture, expected in zip(pictures, camera_sizes(outputs), strict=False):
        sizes.append(None)
        if picture is None:
            continue
        try:
            if picture.fault:
                raise ValueError(picture.fault)
            width, height = picture.size
            sizes[-1] = (height, width) if picture.turns(expected) else (width, height)
        except ValueError as error:
            faults.append(f"{picture.path}: {error}")
    masks = outputs.mask_filenames
    if masks is not None:
        headers = _in_parallel(_mask_header, masks, faults)
        for path, header, size in zip(masks, headers, sizes, strict=False):
            if header is None:
                continue
            if header[1] not in _MASK_MODES:
                faults.append(f"{path}: expected a mask of one channel, found mode {header[1]}")
            if size not in (None, header[0]):
                wanted, found = ("x".join(map(str, side)) for side in (size, header[0]))
                faults.append(f"{path}: expected {wanted} pixels, as its picture, found {found}")
    return pictures, faults


def camera_sizes(outputs: DataparserOutputs) -> list[Size]:
    """Of the pictures as their cameras have them, before the data manager scales them."""
    if FILE_SIZES in outputs.metadata:
        return list(outputs.metadata[FILE_SIZES])
    cameras = outputs.cameras.flatten()
    sides = (side.flatten().tolist() for side in (cameras.width, cameras.height))
    return list(zip(*sides, strict=True))


def fit_cameras(
    cameras: Cameras, stated: Sequence[Size], pictures: Sequence[Picture | None], scale: float
) -> None:
    """Gives cameras the sizes of pictures that somebody's rounding made a pixel larger or smaller:
    lenses stay as they are."""
    cameras.width, cameras.height = cameras.width.clone(), cameras.height.clone()
    for index, (size, picture) in enumerate(zip(stated, pictures, strict=True)):
        if picture is None:
            continue
        found = picture.size[::-1] if picture.turns(size) else picture.size
        if found != size:
            cameras.width[index], cameras.height[index] = (int(side * scale) for side in found)


def _mask_header(path: Path) -> tuple[Size, str]:
    with Image.open(path) as image:
        return image.size, image.mode


def _in_parallel(read: Callable[[Path], Any], paths: Sequence[Path], faults: list[str]) -> list:
    """What was read of each file; None and a fault where that failed."""

    def attempt(path: Path) -> Any:
        try:
            return read(path)
        except FileNotFoundError:
            return InputError("expected a file, found none")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return InputError(f"expected a picture, found one that cannot be read: {error}")

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        results = list(pool.map(attempt, paths))
    pairs = zip(paths, results, strict=True)
    faults += [f"{path}: {found}" for path, found in pairs if isinstance(found, InputError)]
    return [None if isinstance(found, InputError) else found for found in results]
