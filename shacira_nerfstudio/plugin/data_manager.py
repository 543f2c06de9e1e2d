"""Training images in the memory that their files are worth, and rays that are there in time.

Nerfstudio keeps all training images as floats, and while it joins them, twice: an image of 8 bits
and four channels takes 4 bytes per pixel in its file's own numbers, 12 as three floats, 24 while
they are joined. Here the cache of images holds bytes, and the pixels of a batch become floats, by
the very operations that Nerfstudio applies to whole images.

Rays of the next batch are made in a thread while a step goes on: much of a step leaves a core idle.
Pixels are drawn one batch ahead by the thread that draws all other random numbers, so that the same
seed gives the same training.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from torch import Tensor

from shacira_nerfstudio.plugin.rtmv_dataparser import ShaciraDataset


class EightBitDataset(ShaciraDataset):
    """Images as they stand in files of 8 bits; where that would lose something, as floats.

    With a background colour all images have four channels and are not yet put on it.
    """

    @cached_property
    def is_eight_bit(self) -> bool:
        """Whether all images are handed out as bytes; all are alike, since they are joined."""
        linear = any(self.is_linear(index) for index in range(len(self)))
        return not linear and not self.mask_color

    def get_image_uint8(self, image_idx: int) -> Tensor:
        """uint8 [H, W, 3 or 4]."""
        image = torch.from_numpy(self.get_numpy_image(image_idx))
        if self._dataparser_outputs.alpha_color is not None and image.shape[-1] == 3:
            image = torch.cat([image, torch.full_like(image[..., :1], 255)], -1)
        return image

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """As the host's; float32 becomes uint8 if :attr:`is_eight_bit`."""
        return super().get_data(image_idx, "uint8" if self.is_eight_bit else image_type)

    def to_float(self, pixels: Tensor) -> Tensor:
        """What the host makes of such pixels, uint8 [..., 3 or 4] to float32 in [0, 1]; floats stay
        as they are."""
        if pixels.dtype != torch.uint8:
            return pixels
        values = pixels.float() / 255.0
        color = self._dataparser_outputs.alpha_color
        if color is None:
            return values
        rgb, alpha = values[..., :3], values[..., -1:]
        return rgb * alpha + color.to(values) * (1.0 - alpha)


class ShaciraDataManager(VanillaDataManager[ShaciraDataset]):
    """The host's data manager, but for what it keeps of training images and when it makes rays."""

    def setup_train(self) -> None:
        """As the host's, with a cache of :class:`EightBitDataset`."""
        whole = self.train_dataset
        self.eight_bit = EightBitDataset(
            self.train_dataparser_outputs, self.config.camera_res_scale_factor
        )
        self.train_dataset = self.eight_bit
        try:
            super().setup_train()
        finally:
            self.train_dataset = whole
        # One thread of torch: more would wait for those of the step by spinning.
        self._pool = ThreadPoolExecutor(
            1, "shacira_rays", initializer=torch.set_num_threads, initargs=(1,)
        )
        self._next: Future[tuple[RayBundle, dict]] | None = None

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays and pixels of a batch; ``image`` float32 as ever. A number of rays that is set
        between two batches holds from the one after the next on."""
        self.train_count += 1
        batch = self._next or self._begin_batch()
        self._next = self._begin_batch()
        return batch.result()

    def _begin_batch(self) -> Future[tuple[RayBundle, dict]]:
        assert self.train_pixel_sampler is not None
        images: Any = next(self.iter_train_image_dataloader)
        batch = self.train_pixel_sampler.sample(images)
        return self._pool.submit(self._finish_batch, batch)

    def _finish_batch(self, batch: dict) -> tuple[RayBundle, dict]:
        batch["image"] = self.eight_bit.to_float(batch["image"])
        return self.train_ray_generator(batch["indices"]), batch
