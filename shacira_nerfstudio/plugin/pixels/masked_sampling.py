"""Pixels inside of masks that lie in a file, as the host's samplers draw them from memory.

Those shrink the masks of all images anew for each batch of patches or pairs, and list all pixels of
all masks where chance finds too few. Here only the surroundings of what was drawn are looked at,
and such a list is made once; random numbers are drawn in the same order, so batches are the same.

Notation: N images of H x W pixels, R pixels or centres that are drawn, r = radius around a centre
that must lie inside of the mask.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from nerfstudio.data.pixel_samplers import PairPixelSampler, PatchPixelSampler, PixelSampler
from numpy.typing import NDArray
from torch import Tensor

from shacira_nerfstudio.scenes.pixel_cache import PixelCache


@dataclass(frozen=True, eq=False)
class ShrunkMasks:
    """Masks of several images of one size, in the order in which a batch holds them, without what
    is closer than a radius to their edges or to the images'."""

    cache: PixelCache
    order: tuple[int, ...]
    radius: int

    def holds(self, centers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether these are inside, [R]; centres are position in the order, row, column, [R, 3]."""
        (height, width), r = self.cache.source.sizes[0], self.radius
        _, row, column = centers.T
        is_inside = (row >= r) & (row < height - r) & (column >= r) & (column < width - r)
        window = np.stack(np.meshgrid([0], *[np.arange(-r, r + 1)] * 2, indexing="ij"), -1)
        around = centers[is_inside][:, None] + window.reshape(1, -1, 3)
        around[..., 0] = np.array(self.order)[around[..., 0]]
        _, masks = self.cache.gather(around.reshape(-1, 3))
        assert masks is not None
        is_inside[is_inside] = masks.reshape(around.shape[:2]).all(1)
        return is_inside

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """Numbers of all pixels inside, image after image in their order."""
        size = int(np.prod(self.cache.source.sizes[0]))
        found = [
            position * size + np.flatnonzero(self._shrunk(image))
            for position, image in enumerate(self.order)
        ]
        return np.concatenate(found)

    def _shrunk(self, image: int) -> NDArray[np.bool_]:
        inside, r = np.array(self.cache.mask(image)), self.radius
        for axis in (0, 1) if r else ():
            lines = np.moveaxis(inside, axis, 0)
            length = len(lines) - 2 * r
            kept = np.zeros_like(lines)
            if length > 0:
                kept[r:-r] = np.all([lines[k : k + length] for k in range(2 * r + 1)], axis=0)
            inside = np.moveaxis(kept, 0, axis)
        return inside

    def at(self, numbers: list[int]) -> NDArray[np.int64]:
        """The pixels with these places in :attr:`pixels`, [R, 3]."""
        shape = (len(self.order), *self.cache.source.sizes[0])
        return np.stack(np.unravel_index(self.pixels[numbers], shape), -1).astype(np.int64)


def sample_from_file(sampler: PixelSampler, cache: PixelCache, order: tuple[int, ...]) -> None:
    """Makes one of the host's samplers draw from masks in a file; images are of one size."""
    masks = ShrunkMasks(cache, order, _radius(sampler))
    host: Any = sampler.sample_method
    bound: Any = sampler
    bound.sample_method = partial(_sample, sampler, masks, host)


def _radius(sampler: PixelSampler) -> int:
    if isinstance(sampler, PatchPixelSampler):
        return sampler.config.patch_size // 2
    return sampler.radius if isinstance(sampler, PairPixelSampler) else 0


def _sample(
    sampler: PixelSampler,
    masks: ShrunkMasks,
    host: Callable[..., Tensor],
    batch_size: int,
    *sizes: int,
    mask: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Pixels [batch_size, 3]: position in the order, row, column."""
    if mask is None or sampler.config.ignore_mask:
        return host(batch_size, *sizes, mask=mask, device=device)
    if isinstance(sampler, PatchPixelSampler):
        side, half = sampler.config.patch_size, masks.radius
        centers = _draw_centers(sampler, masks, batch_size // side**2)
        row, column = torch.meshgrid(*[torch.arange(side) - half] * 2, indexing="ij")
        offsets = torch.stack([torch.zeros_like(row), row, column], -1)
        return (centers[:, None, None] + offsets).reshape(-1, 3)
    if isinstance(sampler, PairPixelSampler):
        first, r = _draw_centers(sampler, masks, batch_size // 2), masks.radius
        second = first.clone()
        second[:, 1:] += torch.randint(-r, r, (len(first), 2))
        return torch.stack([first, second], 1).reshape(-1, 3)
    return _draw_centers(sampler, masks, batch_size)


def _draw_centers(sampler: PixelSampler, masks: ShrunkMasks, count: int) -> Tensor:
    """By chance, [count, 3]; from the list of all where chance does not find enough."""
    config = sampler.config
    if config.rejection_sample_mask:
        shape = torch.tensor([len(masks.order), *masks.cache.source.sizes[0]])
        centers = (torch.rand((count, 3)) * shape).long()
        for _ in range(config.max_num_iterations):
            is_good = torch.from_numpy(masks.holds(centers.numpy()))
            num_bad = count - int(is_good.sum())
            if not num_bad:
                return centers
            centers[~is_good] = (torch.rand((num_bad, 3)) * shape).long()
        warnings.warn("Masks leave little of the images: listing their pixels", stacklevel=2)
        config.rejection_sample_mask = False
    return torch.from_numpy(masks.at(random.sample(range(len(masks.pixels)), k=count)))
