"""The host's cameras and a file's, from one to the other."""

from __future__ import annotations

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from shacira_nerfstudio.codec import CameraSet
from shacira_nerfstudio.codec.sections.cameras import rounded_cameras
from shacira_nerfstudio.compression.probe import evenly_spaced


def camera_set(cameras: Cameras | None) -> CameraSet | None:
    """The pinhole cameras among the host's, without lens distortion; None if there are none."""
    if cameras is None:
        return None
    cameras = cameras.flatten().to("cpu")
    cameras = cameras[cameras.camera_type[:, 0] == CameraType.PERSPECTIVE.value]
    if not len(cameras):
        return None
    optics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], 1)
    return CameraSet(
        camera_to_worlds=cameras.camera_to_worlds.numpy().astype(np.float32),
        intrinsics=optics.numpy().astype(np.float32),
        sizes=torch.cat([cameras.width, cameras.height], 1).numpy().astype(np.uint32),
    )


def cameras_to_store(cameras: Cameras | None, at_most: int) -> CameraSet | None:
    """Some of the host's cameras, with poses that are small in a file."""
    chosen = thin_cameras(camera_set(cameras), at_most)
    return None if chosen is None else rounded_cameras(chosen)


def thin_cameras(cameras: CameraSet | None, at_most: int) -> CameraSet | None:
    """At most so many cameras, evenly spread over their order."""
    if cameras is None or at_most == 0:
        return None
    keep = evenly_spaced(len(cameras.sizes), at_most)
    return CameraSet(cameras.camera_to_worlds[keep], cameras.intrinsics[keep], cameras.sizes[keep])


def host_cameras(cameras: CameraSet) -> Cameras:
    """A file's cameras as the host's."""
    fx, fy, cx, cy = torch.from_numpy(cameras.intrinsics.copy()).T[:, :, None]
    width, height = torch.from_numpy(cameras.sizes.astype("int64")).T[:, :, None]
    return Cameras(
        camera_to_worlds=torch.from_numpy(cameras.camera_to_worlds.copy()),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )
