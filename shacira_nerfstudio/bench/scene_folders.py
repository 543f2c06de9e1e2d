"""What lies in the folder of a scene."""

from __future__ import annotations

from pathlib import Path


def guess_dataparser(data: Path) -> str:
    """Name of the data parser that reads a folder, from the files that lie in it."""
    names = {
        "transforms_train.json": "blender-data",
        "transforms.json": "nerfstudio-data",
        "00000.json": "rtmv-data",
    }
    for file, name in names.items():
        if (data / file).is_file():
            return name
    raise ValueError(f"expected one of {', '.join(names)} in {data}; state --dataparser")
