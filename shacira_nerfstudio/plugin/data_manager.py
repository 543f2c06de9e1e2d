"""Training images in little memory or in a file, and rays that are there in time.

Few images stay in memory as bytes (:mod:`pixels.eight_bit`), many or large ones in a file that is
made once (:mod:`pixels.cached_images`); batches are the same.

Rays of the next batch are made in a thread while a step goes on: much of a step leaves a core idle.
Pixels are drawn one batch ahead by the thread that draws all other random numbers, so that the same
seed gives the same training.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
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
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PatchPixelSampler, PixelSampler
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
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
from shacira_nerfstudio.plugin.pixels.cached_images import (
    CachedImages,
    default_cache_dir,
    memory_bytes,
    obstacle,
)
from shacira_nerfstudio.plugin.pixels.device_pixels import DeviceBatches
from shacira_nerfstudio.plugin.pixels.eight_bit import EightBitDataset
from shacira_nerfstudio.plugin.rtmv_dataparser import (
    PLACEHOLDERS,
    RtmvDataParserConfig,
    ShaciraDataset,
)
from shacira_nerfstudio.scenes import rtmv
from shacira_nerfstudio.scenes.camera_faults import transforms_faults
from shacira_nerfstudio.scenes.pixel_cache import BrokenImages


@dataclass
class ShaciraDataManagerConfig(VanillaDataManagerConfig):
    """The host's options, and where many or large training images are kept."""

    _target: type = field(default_factory=lambda: ShaciraDataManager)
    cache_dir: Path | None = None
    """Folder for files of decoded training pixels, which take the place of memory;
    ~/.cache/shacira/pixels by default. They may be deleted at any time between runs."""
    cache_above_bytes: int = 1 << 30
    """Training images that would take more memory than this are kept in such a file; 0 for all, -1
    for none."""
    cache_bits: Literal[8, 16] = 8
    """Bits of a colour channel in the file, for linear images (EXR); others keep their 8."""


class ShaciraDataManager(VanillaDataManager[ShaciraDataset]):
    """The host's data manager, but for what it keeps of training images and when it makes rays."""

    config: ShaciraDataManagerConfig

    def __init__(self, config: VanillaDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        if not isinstance(config, ShaciraDataManagerConfig):  # of a run before there were files
            options = {f.name: getattr(config, f.name) for f in fields(VanillaDataManagerConfig)}
            config = ShaciraDataManagerConfig(**options)
        data = Path(config.data or config.dataparser.data)
        recognize_rtmv(config, data)
        # A parser that centres and scales poses would spread what is wrong with one to all.
        refuse(transforms_faults(data))
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
        """As the host's, with images in a file or as bytes, once files have been looked at."""
        self._check_pictures()
        self.eight_bit = EightBitDataset(
            self.train_dataparser_outputs, self.config.camera_res_scale_factor
        )
        self.eight_bit.cameras = self.train_dataset.cameras
        self.eight_bit.pads_alpha |= self.train_dataset.pads_alpha
        self.eight_bit.has_alpha = self._has_alpha
        self.is_in_file = self._decide_for_file()
        if self.is_in_file:
            self._set_up_file()
        else:
            self._set_up_memory()
        # One thread of torch: more would wait for those of the step by spinning.
        self._pool = ThreadPoolExecutor(
            1, "shacira_rays", initializer=torch.set_num_threads, initargs=(1,)
        )
        self._next: Future[tuple[RayBundle, dict]] | None = None

    def _set_up_memory(self) -> None:
        whole = self.train_dataset
        self.train_dataset = self.eight_bit
        try:
            super().setup_train()
        finally:
            self.train_dataset = whole
        refuse(self.eight_bit.faults)

    def _set_up_file(self) -> None:
        rays = self.config.train_num_rays_per_batch
        self.train_pixel_sampler = self._get_pixel_sampler(self.train_dataset, rays)
        self.train_ray_generator = RayGenerator(self.train_dataset.cameras.to(self.device))
        if self.test_mode == "val":  # others may not want a single batch
            assert self.cached_images.cache

    def _decide_for_file(self) -> bool:
        """Whether training images are kept in a file; says why they are not, where they should."""
        config, limit = self.config, self.config.cache_above_bytes
        if PLACEHOLDERS in self.train_dataset.metadata or limit < 0:
            return False
        size = memory_bytes(self.eight_bit)
        if size <= limit:
            return False
        reason = obstacle(self._get_pixel_sampler(self.train_dataset, 4096))
        if config.train_num_images_to_sample_from != -1:
            reason = "train_num_images_to_sample_from says how many"
        if config.images_on_gpu:
            reason = "images_on_gpu has them there"
        if reason:
            CONSOLE.print(
                f"Training images stay in memory, {size:,} bytes: {escape(reason)}", soft_wrap=True
            )
        return not reason

    @cached_property
    def cached_images(self) -> CachedImages:
        """The file with training images; made on first use where it is not there."""
        folder = self.config.cache_dir or default_cache_dir()
        try:
            images = CachedImages(self.eight_bit, folder, self.config.cache_bits)
        except BrokenImages as error:
            refuse(error.faults)
            raise
        except OSError as error:
            raise OSError(
                f"{error}; --pipeline.datamanager.cache-dir names another folder, and "
                "--pipeline.datamanager.cache-above-bytes -1 keeps images in memory"
            ) from error
        assert self.train_pixel_sampler is not None
        images.bind(self.train_pixel_sampler)
        CONSOLE.print(
            f"Training pixels of {len(self.eight_bit)} images are read from "
            f"{escape(str(images.path))}, {images.path.stat().st_size:,} bytes",
            soft_wrap=True,
        )
        return images

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays and pixels of a batch; ``image`` float32 as ever. A number of rays that is set
        between two batches holds from the one after the next on."""
        self.train_count += 1
        if self.device_batches is not None and self.device_batches.has_images:
            return self.device_batches.draw(self.get_train_rays_per_batch())
        batch = self._next or self._begin_batch()
        self._next = self._begin_batch()
        return batch.result()

    @cached_property
    def device_batches(self) -> DeviceBatches | None:
        """Makes batches where steps are on a GPU; None elsewhere, and where only the host can."""
        is_cuda = torch.device(self.device).type == "cuda"
        if not is_cuda or PLACEHOLDERS in self.train_dataset.metadata:
            return None
        assert self.train_pixel_sampler is not None
        images = None
        if not self.is_in_file and self.train_image_dataloader.cache_all_images:
            images = self.train_image_dataloader.cached_collated_batch
        return DeviceBatches.create(self.eight_bit, self.train_pixel_sampler, images, self.device)

    def _check_pictures(self) -> None:
        """Refuses all that is wrong with files; prepares for images of several sizes and kinds."""
        faults: list[str] = []
        datasets = self.eval_dataset, self.train_dataset
        self._has_alpha = False
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
        self._has_alpha = True in has_alpha
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
        images: Any
        if self.is_in_file:
            images = self.cached_images.batch
        else:
            images = next(self.iter_train_image_dataloader)
        batch = self.train_pixel_sampler.sample(images)
        refuse(self.eight_bit.faults)  # of images that are read while training
        return self._pool.submit(self._finish_batch, batch)

    def _finish_batch(self, batch: dict) -> tuple[RayBundle, dict]:
        if self.is_in_file:
            self.cached_images.fill(batch)
        if self.device_batches is not None:
            return self.device_batches.send(batch)
        batch["image"] = self.eight_bit.to_float(batch["image"])
        if torch.device(self.device).type == "cuda":
            batch["image"] = batch["image"].pin_memory().to(self.device, non_blocking=True)
        return self.train_ray_generator(batch["indices"]), batch


def recognize_rtmv(config: VanillaDataManagerConfig, data: Path) -> None:
    """Takes our data parser for a folder of RTMV's, where the default one would find nothing."""
    is_default = type(config.dataparser) is NerfstudioDataParserConfig
    if is_default and not (data / "transforms.json").exists() and rtmv.is_rtmv_scene(data):
        config.dataparser = RtmvDataParserConfig(data=data)
        CONSOLE.print(f"{escape(str(data))} is an RTMV scene: taking rtmv-data", soft_wrap=True)


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
