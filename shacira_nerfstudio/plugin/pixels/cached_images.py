"""Training images in a file: the host's samplers draw places, and the file has the pixels.

To the samplers the images are tensors of the right sizes that take no memory; what they drew is
then looked up. They draw the same places in the same order as from images in memory, so the same
seed gives the same training; images of 8 bits give the same numbers, too, linear ones are rounded.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.pixel_samplers import PairPixelSampler, PatchPixelSampler, PixelSampler
from torch import Tensor

from shacira_nerfstudio.plugin.pixels.eight_bit import EightBitDataset
from shacira_nerfstudio.plugin.pixels.masked_sampling import sample_from_file
from shacira_nerfstudio.scenes.pixel_cache import Image, PixelSource, open_pixel_cache

_SAMPLERS = (PixelSampler, PatchPixelSampler, PairPixelSampler)
"""That look at sizes and masks of images only."""


def default_cache_dir() -> Path:
    """Of the user, as the XDG base directories have it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shacira" / "pixels"


def memory_bytes(dataset: EightBitDataset) -> int:
    """What the images would take in memory."""
    cameras = dataset.cameras
    pixels = int((cameras.height.long() * cameras.width.long()).sum())
    return pixels * dataset.num_channels * (1 if dataset.is_eight_bit else 4)


def obstacle(sampler: PixelSampler) -> str | None:
    """Why a sampler needs images in memory; None if it does not."""
    if type(sampler) not in _SAMPLERS:
        return f"{type(sampler).__name__} may look at whole images"
    return "keep_full_image hands them out" if sampler.config.keep_full_image else None


class CachedImages:
    """What a data manager needs of training images.

    Args:
        dataset: Decodes them, if there is no file yet.
        cache_dir: Folder of the file.
        bits: Of a channel of linear images, 8 or 16; images of 8 bits keep theirs.
    """

    def __init__(self, dataset: EightBitDataset, cache_dir: Path, bits: int) -> None:
        self._dataset = dataset
        self._bits = 8 if dataset.is_eight_bit else bits
        source = _source_of(dataset, self._bits)
        name = dataset.image_filenames[0].parent.resolve().name or "scene"
        self.path = source.file_in(cache_dir, name)
        self.cache = open_pixel_cache(self.path, source, self._read)
        # The host's order of images in memory, which is random.
        self.order = tuple(random.sample(range(len(dataset)), k=len(dataset)))
        self.batch = self._placeholders()

    @property
    def has_one_size(self) -> bool:
        """Whether all images are of the same size."""
        return len(set(self.cache.source.sizes)) == 1

    def bind(self, sampler: PixelSampler) -> None:
        """Makes a sampler draw from masks in the file."""
        if self.cache.masks is not None and self.has_one_size:
            sample_from_file(sampler, self.cache, self.order)

    def fill(self, batch: dict[str, Tensor]) -> None:
        """Replaces placeholders by the pixels at ``indices``, as floats, and by their masks."""
        pixels, masks = self.cache.gather(batch["indices"].cpu().numpy())
        if masks is not None and "mask" in batch:
            batch["mask"] = torch.from_numpy(masks)[:, None]
        batch["image"] = self._to_float(pixels)

    def _to_float(self, pixels: Image) -> Tensor:
        if self._dataset.is_eight_bit:
            return self._dataset.to_float(torch.from_numpy(pixels))
        return torch.from_numpy(pixels.astype(np.float32)) / (2**self._bits - 1)

    def _read(self, index: int) -> tuple[Image, Any]:
        data = self._dataset.read(index)
        image, mask = data["image"].numpy(), data.get("mask")
        if not self._dataset.is_eight_bit:
            image *= 2**self._bits - 1
            image += 0.5
            image = image.astype(np.uint8 if self._bits == 8 else np.uint16)
        return image, None if mask is None else mask.numpy()[..., 0]

    def _placeholders(self) -> dict[str, Any]:
        """What the host's samplers take for the images, in their random order."""
        sizes, image, mask = self.cache.source.sizes, torch.zeros(1), torch.ones(1).bool()
        found: dict[str, Any] = {"image_idx": torch.tensor(self.order)}
        has_masks = self.cache.masks is not None
        if self.has_one_size:
            shape = (len(sizes), *sizes[0], 1)
            masks = {"mask": mask.expand(shape)} if has_masks else {}
            return {**found, "image": image.expand(shape), **masks}
        found["image"] = [image.expand(*sizes[index], 1) for index in self.order]
        if has_masks:
            found["mask"] = [
                torch.from_numpy(self.cache.mask(index))[..., None] for index in self.order
            ]
        return found


def _source_of(dataset: EightBitDataset, bits: int) -> PixelSource:
    """All that decides what the dataset decodes."""
    masks = dataset._dataparser_outputs.mask_filenames
    cameras = dataset.cameras
    sizes = torch.cat([cameras.height, cameras.width], 1).tolist()
    color = None if dataset.alpha_color is None else dataset.alpha_color.tolist()
    return PixelSource(
        paths=tuple(Path(path).resolve() for path in (*dataset.image_filenames, *(masks or ()))),
        sizes=tuple((int(height), int(width)) for height, width in sizes),
        channels=dataset.num_channels,
        bits=bits,
        has_masks=masks is not None,
        options={
            "scale_factor": dataset.scale_factor,
            "file_sizes": dataset.file_sizes,
            "rtmv": dataset.metadata.get("rtmv"),
            "mask_color": dataset.mask_color and list(dataset.mask_color),
            # Images of 8 bits are put on it when they have been drawn.
            "alpha_color": None if dataset.is_eight_bit else color,
        },
    )
