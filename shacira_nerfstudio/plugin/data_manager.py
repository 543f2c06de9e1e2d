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

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import (
    VanillaDataManager,
    VanillaDataManagerConfig,
    variable_res_collate,
)
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.pixel_samplers import PatchPixelSampler, PixelSampler
from torch import Tensor

from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.input_check import (
    InputError,
    camera_faults,
    camera_sizes,
    fit_cameras,
    read_pictures,
    refuse,
)
from shacira_nerfstudio.plugin.object_capture import find_object
from shacira_nerfstudio.plugin.rtmv_dataparser import PLACEHOLDERS, ShaciraDataset
from shacira_nerfstudio.scenes.camera_faults import transforms_faults


class EightBitDataset(ShaciraDataset):
    """Images as they stand in files of 8 bits; where that would lose something, as floats.

    With a background colour all images have four channels and are not yet put on it. Images that
    cannot be read are noted in ``faults`` and empty, so that one message can name them all.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        self.faults: list[str] = []
        self.pads_alpha = self.alpha_color is not None

    @cached_property
    def is_eight_bit(self) -> bool:
        """Whether all images are handed out as bytes; all are alike, since they are joined."""
        linear = any(self.is_linear(index) for index in range(len(self)))
        return not linear and not self.mask_color

    def get_image_uint8(self, image_idx: int) -> Tensor:
        """The same; not yet on a background."""
        return torch.from_numpy(self.get_numpy_image(image_idx))

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """As the host's; float32 becomes uint8 if :attr:`is_eight_bit`."""
        try:
            return super().get_data(image_idx, "uint8" if self.is_eight_bit else image_type)
        except (OSError, ValueError) as error:
            path = str(self.image_filenames[image_idx])
            self.faults.append(str(error) if path in str(error) else f"{path}: {error}")
            return self._empty(image_idx)

    def _empty(self, image_idx: int) -> dict:
        camera = self.cameras[image_idx]
        size = int(camera.height), int(camera.width)
        image = torch.zeros(*size, 4 if self.pads_alpha else 3, dtype=torch.uint8)
        image = image if self.is_eight_bit else image[..., :3].float()
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


class ShaciraDataManager(VanillaDataManager[ShaciraDataset]):
    """The host's data manager, but for what it keeps of training images and when it makes rays."""

    def __init__(self, config: VanillaDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        data = config.data or config.dataparser.data
        # A parser that centres and scales poses would spread what is wrong with one to all.
        refuse(transforms_faults(Path(data)))
        super().__init__(config, *args, **kwargs)

    def create_train_dataset(self) -> ShaciraDataset:
        """As the host's; pictures that are cut out show an object."""
        outputs = self.train_dataparser_outputs
        if not outputs.image_filenames:
            raise InputError(f"expected training images in {self.config.data}, found none")
        refuse(camera_faults(outputs))
        dataset = super().create_train_dataset()
        found = find_object(outputs)
        if found is not None:
            DatasetMetadata(
                alpha_color=(1.0, 1.0, 1.0),
                cameras=dataset.cameras,
                is_bounded=True,
                object_box=found.box,
                is_cut_out=True,
                reason=found.reason,
            ).put_into(dataset.metadata)
        return dataset

    def create_eval_dataset(self) -> ShaciraDataset:
        """As the host's, which fails without a word where no view is held out."""
        dataset = super().create_eval_dataset()
        if len(dataset) == 0:
            raise InputError(
                f"expected views of {self.config.data} held out for evaluation, found none beside "
                f"{len(self.train_dataset)} for training: add views, or let the data parser hold "
                "out more (nerfstudio-data --eval-mode interval, or all to evaluate on training "
                "views)"
            )
        refuse(camera_faults(dataset._dataparser_outputs))
        return dataset

    def setup_train(self) -> None:
        """As the host's, with a cache of :class:`EightBitDataset`, once files have been looked
        at."""
        whole = self.train_dataset
        self._check_pictures()
        self.eight_bit = EightBitDataset(
            self.train_dataparser_outputs, self.config.camera_res_scale_factor
        )
        self.eight_bit.cameras = whole.cameras
        self.eight_bit.pads_alpha |= whole.pads_alpha
        self.train_dataset = self.eight_bit
        try:
            super().setup_train()
        finally:
            self.train_dataset = whole
        refuse(self.eight_bit.faults)
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

    def _check_pictures(self) -> None:
        """Refuses all that is wrong with files; prepares for images of several sizes and kinds."""
        faults: list[str] = []
        datasets = self.eval_dataset, self.train_dataset
        has_alpha: set[bool] = set()
        for dataset in datasets:
            if PLACEHOLDERS in dataset.metadata:
                return
            outputs = dataset._dataparser_outputs
            pictures, found = read_pictures(outputs)
            faults += found
            if not found:
                fit_cameras(dataset.cameras, camera_sizes(outputs), pictures, dataset.scale_factor)
            has_alpha |= {picture.has_alpha for picture in pictures if picture is not None}
        refuse(faults)
        for dataset in datasets:
            dataset.pads_alpha = len(has_alpha) > 1 and dataset.alpha_color is None
            if dataset.cameras.is_jagged:  # the host looks at the parser's training cameras only
                self.config.collate_fn = variable_res_collate
                if self.config.patch_size > 1:
                    raise InputError("expected images of one size for patches, found several")

    def _get_pixel_sampler(self, dataset: ShaciraDataset, num_rays_per_batch: int) -> PixelSampler:
        """The host's, but for masks that come alone."""
        sampler: Any = super()._get_pixel_sampler(dataset, num_rays_per_batch)
        sampler.rejection_sample_mask = partial(_sample_mask, sampler.rejection_sample_mask)
        return sampler

    def set_num_rays(self, count: int) -> None:
        """Sets the number of rays per batch to about so many, as its sampler can draw them: images
        of several sizes and pairs need an even number, patches whole ones."""
        sampler = self.train_pixel_sampler
        assert sampler is not None
        if isinstance(sampler, PatchPixelSampler):
            count = max(count, sampler.config.patch_size**2)  # which rounds down by itself
        elif type(sampler) is not PixelSampler or self._has_several_sizes:
            count += count % 2
        sampler.set_num_rays_per_batch(count)

    @cached_property
    def _has_several_sizes(self) -> bool:
        return bool(self.train_dataset.cameras.is_jagged)

    def _begin_batch(self) -> Future[tuple[RayBundle, dict]]:
        assert self.train_pixel_sampler is not None
        if PLACEHOLDERS in self.train_dataset.metadata:
            batch = _grey_pixels(self.train_dataset.cameras, self.get_train_rays_per_batch())
            return self._pool.submit(self._finish_batch, batch)
        images: Any = next(self.iter_train_image_dataloader)
        batch = self.train_pixel_sampler.sample(images)
        refuse(self.eight_bit.faults)  # of images that are read while training
        return self._pool.submit(self._finish_batch, batch)

    def _finish_batch(self, batch: dict) -> tuple[RayBundle, dict]:
        batch["image"] = self.eight_bit.to_float(batch["image"])
        return self.train_ray_generator(batch["indices"]), batch


def _grey_pixels(cameras: Cameras, count: int) -> dict:
    """Pixels of cameras without pictures, for who looks along training rays, as exports of points
    do; placeholders are smaller than what cameras see."""
    index = torch.randint(len(cameras), (count, 1))
    sizes = torch.cat([cameras.height, cameras.width], 1).cpu()[index[:, 0]]
    pixels = (torch.rand(count, 2) * sizes).long().clamp_max(sizes - 1)
    return {"indices": torch.cat([index, pixels], 1), "image": torch.full((count, 3), 0.5)}


def _sample_mask(draw: Callable[..., Tensor], mask: Tensor, **options: Any) -> Tensor:
    """The host indexes the masks of several images, and fails for one: here there are two of it."""
    if len(mask) > 1:
        return draw(mask=mask, **options)
    indices = draw(mask=mask.expand(2, -1, -1, -1), **options)
    indices[:, 0] = 0
    return indices
