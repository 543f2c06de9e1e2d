"""What can be said about an export, on the command line and by programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAX_CAMERAS = 64
"""Cameras in a file by default."""


@dataclass
class ExportOptions:
    """Which run is exported, where to, and with what."""

    load_config: Path
    """Path to the config YAML file of a run, or of an export folder."""
    output_dir: Path
    """Folder for scene.shacira, config.yml and ckpt/; made if it is not there."""
    verify: bool = True
    """Decode the file again, compare with what was encoded, and encode once more to the same
    bytes."""
    max_cameras: int = MAX_CAMERAS
    """Training cameras to store for looking at the file without its data set, evenly spread; 0
    stores none, more costs about 12 bytes each."""
    max_loss_db: float = 0.02
    """PSNR in dB that may be given away for fewer bytes, measured on pixels of training images:
    network weights get fewer bits, isolated occupied cells go, cells grow. Larger makes the file
    smaller; 0 exports what was trained, as does a run with a target size, which has spent it."""
    psnr_views: int = 0
    """Test images on which every prefix of the file, level by level, is measured; the file then
    says how good each is. 0 measures nothing; all images at most, evenly spread."""
    json: bool = False
    """Print JSON instead of a table."""
    comment: str = ""
    """Any text, stored in the file."""
    author: str = ""
    """Who made the scene, stored in the file."""
    licence: str = ""
    """Terms of the scene, stored in the file."""

    def check(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        for name in ("max_cameras", "psnr_views", "max_loss_db"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} of 0 or more, got {getattr(self, name)}")

    @property
    def user_metadata(self) -> dict[str, str | int]:
        """What the user wants the file to say."""
        texts = {name: getattr(self, name) for name in ("comment", "author", "licence")}
        return {name: text for name, text in texts.items() if text}
