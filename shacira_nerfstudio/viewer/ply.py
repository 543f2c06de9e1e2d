"""Points as a PLY file, binary and little-endian, as every program for points reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

_FIELDS = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
_FIELDS += [(name, "u1") for name in ("red", "green", "blue")]
_TYPES = {"<f4": "float", "u1": "uchar"}
BYTES_PER_POINT = np.dtype(_FIELDS).itemsize


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points with what they look like."""

    positions: Float[np.ndarray, "N 3"]
    """In the scene's coordinates."""
    normals: Float[np.ndarray, "N 3"]
    """Of unit length, towards the camera that saw the point."""
    colors: UInt8[np.ndarray, "N 3"]
    distances: Float[np.ndarray, " N"]
    """From the camera that saw the point."""

    def __len__(self) -> int:
        return len(self.positions)

    def chosen(self, keep: np.ndarray) -> PointCloud:
        """Those of some indices, or where a mask says so."""
        return PointCloud(
            self.positions[keep], self.normals[keep], self.colors[keep], self.distances[keep]
        )


def joined(clouds: list[PointCloud]) -> PointCloud:
    """All points of several clouds, one cloud after the other."""
    columns = zip(*((c.positions, c.normals, c.colors, c.distances) for c in clouds), strict=True)
    return PointCloud(*(np.concatenate(column) for column in columns))


def ply_bytes(cloud: PointCloud, comment: str = "") -> bytes:
    """The file's content.

    Args:
        comment: A line for people; no line breaks.
    """
    rows = np.empty(len(cloud), np.dtype(_FIELDS))
    for names, columns in (
        (("x", "y", "z"), cloud.positions),
        (("nx", "ny", "nz"), cloud.normals),
        (("red", "green", "blue"), cloud.colors),
    ):
        for name, column in zip(names, columns.T, strict=True):
            rows[name] = column
    return rows_as_ply(rows, comment)


def rows_as_ply(rows: np.ndarray, comment: str = "") -> bytes:
    """A structured array of floats and bytes as the vertices of a file."""
    if len(comment.splitlines()) > 1 or not comment.isascii():
        raise ValueError(f"expected one line of ASCII as comment, got {comment!r}")
    head = ["ply", "format binary_little_endian 1.0"]
    head += [f"comment {comment}"] if comment else []
    head.append(f"element vertex {len(rows)}")
    for name in rows.dtype.names or ():
        head.append(f"property {_TYPES[rows.dtype[name].str.lstrip('|')]} {name}")
    return "\n".join([*head, "end_header", ""]).encode("ascii") + rows.tobytes()
