"""The section cams: cameras to bytes and back.

Poses are stored as the float32 matrices they are or, in a third of the bytes, as six integers and a
number from 0 to 3. These are enough for poses that :func:`rounded_cameras`
gives, which are off by less than 1e-4 rad and 1/30000 of the largest coordinate: a small fraction
of a pixel. The choice is the encoder's and loses nothing: it takes integers only where these give
the very floats.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shacira_nerfstudio.codec.bitio import ByteReader, SceneFormatError, varint
from shacira_nerfstudio.codec.entropy.int_array import decode_array, encode_array
from shacira_nerfstudio.codec.scene import MAX_CAMERAS, CameraSet

AS_FLOATS, AS_INTEGERS = 0, 1
"""How poses are stored."""

UNIT = 46340
"""What 1 is as a component of a quaternion: a component other than the largest is at most
UNIT / sqrt(2) = 32767."""

_MOST = 32767
_MAX_EXPONENT, _EXPONENT_BIAS = 80, 40
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Components of a quaternion beside one of them."""

_MAX_SKEW = 1e-4
"""Rotations whose columns are off by more than this are taken as they are."""


def rounded_cameras(cameras: CameraSet) -> CameraSet:
    """The nearest cameras whose poses are small in a file; the same ones if any is no rotation."""
    # A camera near a tie of two components can change once more.
    for _ in range(4):
        integers = _pose_integers(cameras.camera_to_worlds)
        if integers is None:
            return cameras
        poses = _poses(*integers)
        if np.array_equal(poses, cameras.camera_to_worlds):
            return cameras
        cameras = replace(cameras, camera_to_worlds=poses)
    return cameras


def encode_cameras(cameras: CameraSet, *, fast: bool | None = None) -> bytes:
    """Optics once if all cameras share them; poses as planes of bytes, element by element."""
    count = len(cameras.sizes)
    optics = [
        row.tobytes() + size.tobytes()
        for row, size in zip(
            cameras.intrinsics.astype("<f4"), cameras.sizes.astype("<u4"), strict=True
        )
    ]
    is_shared = len(set(optics)) == 1
    parts = [varint(count), bytes([is_shared]), *(optics[:1] if is_shared else optics)]
    integers = _pose_integers(cameras.camera_to_worlds)
    if integers is not None and np.array_equal(_poses(*integers), cameras.camera_to_worlds):
        largest, exponent, numbers = integers
        parts.append(bytes([AS_INTEGERS, exponent]))
        unsigned = (numbers + _MOST + 1).T.reshape(-1)
        arrays = [largest, unsigned >> 8, unsigned & 255]
    else:
        parts.append(bytes([AS_FLOATS]))
        poses = np.ascontiguousarray(cameras.camera_to_worlds.reshape(count, 12).T.astype("<f4"))
        arrays = list(poses.reshape(-1).view(np.uint8).reshape(-1, 4).T)
    return b"".join(parts + [encode_array(array, fast=fast) for array in arrays])


def decode_cameras(payload: memoryview, *, fast: bool | None = None) -> CameraSet:
    reader = ByteReader(payload, "cams")
    count = reader.varint("cameras", 1, MAX_CAMERAS)
    num_optics = 1 if reader.byte("whether optics are shared", 0, 1) else count
    optics = reader.take(24 * num_optics, "optics")
    intrinsics = np.frombuffer(optics, dtype=[("f", "<f4", 4), ("n", "<u4", 2)])
    if num_optics == 1:
        intrinsics = np.repeat(intrinsics, count)
    mode = reader.byte("form of the poses", AS_FLOATS, AS_INTEGERS)
    read_poses = _read_integers if mode == AS_INTEGERS else _read_floats
    poses = read_poses(reader, count, fast)
    reader.finish()
    try:
        return CameraSet(
            poses, intrinsics["f"].astype(np.float32), intrinsics["n"].astype(np.uint32)
        )
    except ValueError as error:
        raise SceneFormatError("cams", "valid cameras", error) from None


def _read_floats(reader: ByteReader, count: int, fast: bool | None) -> np.ndarray:
    planes = [_plane(reader, 12 * count, 255, fast) for _ in range(4)]
    floats = np.stack(planes, axis=1).astype(np.uint8).reshape(-1).view("<f4")
    return floats.reshape(12, count).T.reshape(count, 3, 4).astype(np.float32)


def _read_integers(reader: ByteReader, count: int, fast: bool | None) -> np.ndarray:
    exponent = reader.byte("exponent", 0, _MAX_EXPONENT)
    largest = _plane(reader, count, 3, fast)
    high, low = _plane(reader, 6 * count, 255, fast), _plane(reader, 6 * count, 255, fast)
    numbers = (high * 256 + low).reshape(6, count).T - (_MOST + 1)
    if (numbers < -_MOST).any() or ((numbers[:, :3] ** 2).sum(axis=1) > UNIT**2).any():
        reader.fail("quaternions of length 1 and numbers within 32767", "others")
    return _poses(largest, exponent, numbers)


def _plane(reader: ByteReader, count: int, most: int, fast: bool | None) -> np.ndarray:
    plane = decode_array(reader, count, fast=fast).astype(np.int64)
    if plane.min() < 0 or plane.max() > most:
        reader.fail(f"values from 0 to {most}", "others")
    return plane


def _pose_integers(poses: np.ndarray) -> tuple[np.ndarray, int, np.ndarray] | None:
    """Which component of each quaternion is largest, an exponent, and six integers [N, 6]; None
    unless all poses are rotations and shifts of a usual size."""
    rotation, shift = np.split(poses.astype(np.float64), [3], axis=2)
    skew = np.abs(np.swapaxes(rotation, 1, 2) @ rotation - np.eye(3)).max()
    reach = np.abs(shift).max()
    if not skew <= _MAX_SKEW or (np.linalg.det(rotation) < 0).any() or reach > 2**40:
        return None
    exponent = next(e for e in range(_MAX_EXPONENT + 1) if reach <= _MOST * _step(e))
    # 4 q q^T of the quaternion q = (w, x, y, z), from sums and differences of the elements.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.transpose(1, 2, 0)
    products = np.array(
        [
            [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz],
        ]
    ).transpose(2, 0, 1)
    rows = np.arange(len(poses))
    largest = np.diagonal(products, axis1=1, axis2=2).argmax(axis=1)
    twice = np.sqrt(products[rows, largest, largest])
    quaternion = products[rows, largest] / (2 * twice[:, None])
    others = np.take_along_axis(quaternion, _OTHERS[largest], axis=1)
    numbers = np.concatenate([others * UNIT, shift[:, :, 0] / _step(exponent)], axis=1)
    return largest, exponent, np.clip(np.rint(numbers), -_MOST, _MOST).astype(np.int64)


def _step(exponent: int) -> float:
    return 2.0 ** (exponent - _EXPONENT_BIAS)


def _poses(largest: np.ndarray, exponent: int, numbers: np.ndarray) -> np.ndarray:
    """Inverse of :func:`_pose_integers`, float32 [N, 3, 4]; double precision, each product and sum
    in the order that FORMAT.md gives."""
    others = numbers[:, :3].astype(np.float64)
    rest = np.sqrt(float(UNIT**2) - (others**2).sum(axis=1))
    quaternion = np.empty((len(numbers), 4))
    np.put_along_axis(quaternion, _OTHERS[largest], others, axis=1)
    np.put_along_axis(quaternion, largest[:, None], rest[:, None], axis=1)
    w, x, y, z = (quaternion / UNIT).T
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    poses = np.empty((len(numbers), 3, 4))
    poses[:, :, :3] = np.array(rotation).transpose(2, 0, 1)
    poses[:, :, 3] = numbers[:, 3:] * _step(exponent)
    return poses.astype(np.float32)
