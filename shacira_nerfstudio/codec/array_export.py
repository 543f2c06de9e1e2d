"""A scene as named arrays for other programs: .npz or .safetensors.

A .safetensors file is the length of a JSON header as u64, the header, and the arrays one after the
other, little-endian; the header gives dtype, shape and place of each. No package is needed for it.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shacira_nerfstudio.codec.file_tools import save_scene
from shacira_nerfstudio.codec.scene import PackedScene

_DTYPES = {"int16": "I16", "int64": "I64", "uint32": "U32", "float32": "F32", "bool": "BOOL"}
"""Numpy's names and those of safetensors, of the types that :func:`scene_arrays` gives."""


def scene_arrays(scene: PackedScene) -> dict[str, np.ndarray]:
    """A scene as named arrays; weights are floats."""
    arrays = {
        "symbols": scene.symbols,
        "resolutions": np.array(scene.grid.resolutions, np.int64),
        "table_sizes": np.array(scene.grid.table_sizes, np.int64),
        "offsets": np.array(scene.grid.offsets, np.int64),
    }
    if scene.occupancy is not None:
        arrays["occupancy"] = scene.occupancy
    if scene.rendering is not None:
        arrays["box"] = scene.rendering.box
    if scene.cameras is not None:
        for name in ("camera_to_worlds", "intrinsics", "sizes"):
            arrays[f"cameras.{name}"] = getattr(scene.cameras, name)
    for name, tensor in scene.weights.items():
        arrays[f"weights.{name}"] = tensor.dequantize()
    return arrays


def scene_words(scene: PackedScene) -> dict[str, str]:
    """What is no array, as text by name."""
    words = {"kind": scene.kind}
    words |= {f"architecture.{key}": str(value) for key, value in scene.architecture.items()}
    words |= {f"meta.{key}": str(value) for key, value in scene.meta.items()}
    if scene.rendering is not None:
        settings = {name: value for name, value in vars(scene.rendering).items() if name != "box"}
        words |= {f"rendering.{name}": str(value) for name, value in settings.items()}
    return words


def save_arrays(path: str | os.PathLike, scene: PackedScene) -> dict[str, np.ndarray]:
    """Writes a scene's arrays, in the format that the name ends in, and returns them."""
    path, arrays = Path(path), scene_arrays(scene)
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        data = buffer.getvalue()
    elif path.suffix == ".safetensors":
        data = safetensors(arrays, scene_words(scene))
    else:
        raise ValueError(f"expected a name that ends in .npz or .safetensors, got {path}")
    save_scene(path, data)
    return arrays


def safetensors(arrays: Mapping[str, np.ndarray], words: Mapping[str, str]) -> bytes:
    """The bytes of a .safetensors file."""
    header: dict = {"__metadata__": dict(words)}
    parts, end = [], 0
    # Large elements first: every array then begins at a multiple of its element.
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        parts.append(np.ascontiguousarray(little).tobytes())
        begin, end = end, end + len(parts[-1])
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
