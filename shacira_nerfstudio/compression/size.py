"""How large the file of a model is: estimated while training, or measured by encoding it.

One meter serves the log, the viewer's panel, steering and the export, so that all of them mean the
same by the same name. Parts are named as in :func:`shacira_nerfstudio.codec.describe`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene, encode_scene
from shacira_nerfstudio.codec.file_tools import bytes_by_part
from shacira_nerfstudio.codec.scene_file import encode_side_sections
from shacira_nerfstudio.codec.sections.table import PART_OF_TAG


def side_bytes_of(packed: PackedScene) -> dict[str, int]:
    """Bytes of a scene's file beside the latents, by part; whatever its symbols are."""
    side_bytes: dict[str, int] = {}
    for tag, payload in encode_side_sections(packed).items():
        part = PART_OF_TAG[tag]
        side_bytes[part] = side_bytes.get(part, 0) + len(payload)
    return side_bytes


class SizeMeter:
    """Sizes of the file that a host would write now.

    Args:
        pack: Makes that file's scene.
    """

    def __init__(self, pack: Callable[[], PackedScene]) -> None:
        self._pack = pack
        self.side_bytes: dict[str, int] = {}
        """Bytes beside the latents, by part, at the last :meth:`refresh`; empty before the first
        one."""

    @torch.no_grad()
    def refresh(self) -> None:
        """Encodes all but the latents."""
        self.side_bytes = side_bytes_of(self._pack())

    def estimate(self, latent_bits: Tensor) -> dict[str, Tensor | int]:
        """Bytes by part and in all, as names and values for a log. Does not wait for a GPU.

        Args:
            latent_bits: The encoding's estimate over the whole table.
        """
        if not self.side_bytes:
            self.refresh()
        parts = {**self.side_bytes, "latents": latent_bits.detach() / 8}
        names = {f"estimated_bytes_{part}": count for part, count in parts.items()}
        return {**names, "estimated_bytes": sum(parts.values())}

    @torch.no_grad()
    def encode(self) -> bytes:
        """The file itself."""
        return encode_scene(self._pack())

    def file_bytes(self) -> int:
        """Length of the file."""
        return len(self.encode())

    def file_bytes_by_part(self) -> dict[str, int]:
        """Bytes of the file by part; they sum up to its length."""
        return bytes_by_part(self.encode())
