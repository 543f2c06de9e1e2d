"""A lone file as a scene that renders."""

from __future__ import annotations

from pathlib import Path

import torch

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import PackedScene, load_scene
from shacira_nerfstudio.compression.pack import stored_cameras, unpack_scene
from shacira_nerfstudio.model.scene import PinholeCamera, RadianceScene


def open_scene(
    file: Path, device: str = "auto", *, allow_truncated: bool = False
) -> tuple[PackedScene, RadianceScene]:
    """What a file holds, and the scene that it renders.

    Args:
        device: ``auto`` takes a GPU if there is one.
        allow_truncated: Accept a file whose end is missing.

    Raises:
        ValueError: there is no such device, or no such file format.
    """
    device = find_device(device)
    packed = load_scene(file, allow_truncated=allow_truncated)
    return packed, unpack_scene(packed, get_backend("auto", device), device=device)


def find_device(device: str) -> str:
    """A device that is there; of ``auto`` a GPU if there is one.

    Raises:
        ValueError: there is none of that name.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"expected a device that is there, such as cpu or cuda:0, got {device}: {reason}"
        ) from None
    return device


def cameras_in(packed: PackedScene, file: Path) -> list[PinholeCamera]:
    """The cameras that a file holds.

    Raises:
        ValueError: there are none.
    """
    cameras = stored_cameras(packed.cameras)
    if not cameras:
        raise ValueError(
            f"expected stored cameras in {file}, found none: only --camera-path and --transforms "
            "go without"
        )
    return cameras
