"""Training images in the memory that their files are worth.

Nerfstudio keeps all training images as floats, and while it joins them, twice: an image of 8 bits
and four channels takes 4 bytes per pixel in its file's own numbers, 12 as three floats, 24 while
they are joined. Here images stay bytes, and the pixels of a batch become floats, by the very
operations that Nerfstudio applies to whole images.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from shacira_nerfstudio.plugin.rtmv_dataparser import RANDOM, ShaciraDataset


class EightBitDataset(ShaciraDataset):
    """Images as they stand in files of 8 bits; where that would lose something, as floats.

    With a background colour all images have four channels and are not yet put on it. Images that
    cannot be read are noted in ``faults`` and empty, so that one message can name them all.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        self.faults: list[str] = []
        self.pads_alpha = self.alpha_color is not None
        self.has_alpha = False
        """Whether files have it; all or none of them, unless it is padded."""

    @cached_property
    def is_eight_bit(self) -> bool:
        """Whether all images are handed out as bytes; all are alike, since they are joined."""
        linear = any(self.is_linear(index) for index in range(len(self)))
        return not linear and not self.mask_color

    @property
    def num_channels(self) -> int:
        """Of the images as :meth:`read` has them."""
        if "rtmv" in self.metadata:
            return 4 if self.metadata["rtmv"]["background"] == RANDOM else 3
        if self.is_eight_bit:
            return 4 if self.pads_alpha or self.has_alpha else 3
        return 4 if self.has_alpha and self.alpha_color is None else 3

    def get_image_uint8(self, image_idx: int) -> Tensor:
        """The same; not yet on a background."""
        return torch.from_numpy(self.get_numpy_image(image_idx))

    def read(self, image_idx: int) -> dict:
        """As :meth:`get_data`.

        Raises:
            ValueError: naming the file that cannot be read.
        """
        try:
            return super().get_data(image_idx, "uint8" if self.is_eight_bit else "float32")
        except (OSError, ValueError, AssertionError) as error:  # the host asserts sizes of masks
            path = str(self.image_filenames[image_idx])
            message = str(error) if path in str(error) else f"{path}: {error}"
            raise ValueError(message) from error

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """As the host's; float32 becomes uint8 if :attr:`is_eight_bit`."""
        try:
            return self.read(image_idx)
        except ValueError as error:
            self.faults.append(str(error))
            return self._empty(image_idx)

    def _empty(self, image_idx: int) -> dict:
        camera = self.cameras[image_idx]
        size = int(camera.height), int(camera.width)
        image = torch.zeros(*size, self.num_channels, dtype=torch.uint8)
        image = image if self.is_eight_bit else image.float()
        mask = torch.ones(*size, 1, dtype=torch.bool)
        has_mask = self._dataparser_outputs.mask_filenames is not None
        return {"image_idx": image_idx, "image": image} | ({"mask": mask} if has_mask else {})

    def to_float(self, pixels: Tensor) -> Tensor:
        """What the host makes of such pixels, uint8 [..., 3 or 4] to float32 in [0, 1]; floats stay
        as they are."""
        if pixels.dtype != torch.uint8:
            return pixels
        values = pixels.float() / 255.0
        color = self.alpha_color
        if color is None:
            return values
        rgb, alpha = values[..., :3], values[..., -1:]
        return rgb * alpha + color.to(values) * (1.0 - alpha)
