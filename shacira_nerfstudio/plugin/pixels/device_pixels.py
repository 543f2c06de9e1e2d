"""Batches of training on a GPU: pixels and rays are made there, and no step waits for them.

Images that fit lie on the GPU as bytes, and pixels are drawn there. Of more images, pixels are
drawn by the host as ever, in a thread; what is sent then are bytes and indices, from pinned memory,
which a copy need not be waited for. Rays are those of the host's own generator, which asks the GPU
several questions in each call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nerfstudio.cameras.camera_utils import radial_and_tangential_undistort
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.pixel_samplers import PixelSampler
from torch import Tensor

MAX_IMAGE_BYTES = 8 << 30
"""Of images on a GPU; and at most the third part of what is free there."""


class DeviceRays:
    """Rays of perspective cameras, as of the host's generator."""

    def __init__(self, cameras: Cameras, device: torch.device | str) -> None:
        optics = [getattr(cameras, name).view(-1) for name in ("fx", "fy", "cx", "cy")]
        self._optics = torch.stack(optics, 1).float().to(device)
        self._poses = cameras.camera_to_worlds.view(-1, 3, 4).float().to(device)
        bends, self._bends = cameras.distortion_params, None
        if bends is not None and bool((bends != 0).any()):
            self._bends = bends.view(-1, 6).float().to(device)

    @staticmethod
    def obstacle(cameras: Cameras) -> str:
        """Why these cameras have no such rays; empty if they have."""
        types = set(cameras.camera_type.flatten().tolist()) - {CameraType.PERSPECTIVE.value}
        return "some cameras are not perspective" if types else ""

    def __call__(self, indices: Tensor) -> RayBundle:
        """Rays through pixels: camera, row and column each, [R, 3]."""
        camera, row, column = indices.unbind(1)
        fx, fy, cx, cy = self._optics.index_select(0, camera).unbind(1)
        on_plane = torch.stack([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy], 1)
        if self._bends is not None:
            bends = self._bends.index_select(0, camera)
            on_plane = radial_and_tangential_undistort(on_plane, bends)
        x, y = on_plane.unbind(1)
        local = torch.stack([x, -y, -torch.ones_like(x)], 1)
        poses = self._poses.index_select(0, camera)
        directions = (poses[:, :, :3] * local[:, None]).sum(2)
        norm = directions.norm(dim=1, keepdim=True)
        return RayBundle(
            origins=poses[:, :, 3],
            directions=directions / norm,
            pixel_area=(1 / (fx * fy))[:, None],  # in the middle of the image; nothing here asks
            camera_indices=camera[:, None],
            metadata={"directions_norm": norm},
        )


class DevicePixels:
    """Images on a device, and pixels that are drawn from them as the host would: of images of one
    size all with the same probability, of others the same number of each image.

    Args:
        images: [N, H, W, C], or [H, W, C] each; in whatever numbers.
        cameras: The camera of each image, int64 [N].
        masks: Pixels that may be drawn, [N, H, W, 1] or [H, W, 1] each; None for all.
    """

    def __init__(
        self,
        images: Tensor | Sequence[Tensor],
        cameras: Tensor,
        masks: Tensor | Sequence[Tensor] | None,
        device: torch.device | str,
    ) -> None:
        self._by_image = not isinstance(images, Tensor)
        sizes = torch.tensor([image.shape[0] * image.shape[1] for image in images])
        widths = torch.tensor([image.shape[1] for image in images])
        self._colors = torch.cat([image.flatten(0, 1).to(device) for image in images])
        self._cameras, self._widths = cameras.to(device), widths.to(device)
        self._ends = sizes.cumsum(0).to(device)
        self._begins, self._allowed, counts = self._ends - sizes.to(device), None, sizes
        if masks is not None:
            is_allowed = torch.cat([mask.flatten().bool().to(device) for mask in masks])
            self._allowed = is_allowed.nonzero()[:, 0]
            counts = torch.tensor([int(mask.bool().sum()) for mask in masks])
        if not int(counts.sum()):
            raise ValueError("expected training pixels outside of masks, found none")
        drawn = counts > 0
        self._first = (counts.cumsum(0) - counts)[drawn].to(device)
        self._counts, self._total = counts[drawn].to(device), int(counts.sum())

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Colours [R, C] as they are kept, and camera, row and column of each, [R, 3]."""
        device = self._ends.device
        place = torch.rand(count, dtype=torch.float64, device=device)
        if self._by_image:
            image = torch.randint(len(self._counts), (count,), device=device)
            of_image = self._counts.index_select(0, image)
            at = self._first.index_select(0, image) + (place * of_image).long()
        else:
            at = (place * self._total).long()
        if self._allowed is not None:
            at = self._allowed.index_select(0, at)
        image = torch.searchsorted(self._ends, at, right=True)
        rest, width = at - self._begins.index_select(0, image), self._widths.index_select(0, image)
        camera = self._cameras.index_select(0, image)
        indices = torch.stack([camera, rest // width, rest % width], 1)
        return self._colors.index_select(0, at), indices


class DeviceBatches:
    """Batches on a device, from images there or from pixels that the host has drawn.

    Args:
        background: Colour [3] that images of bytes with alpha are put on; None leaves them alone.
        pixels: The images, if they are there.
    """

    def __init__(
        self,
        rays: DeviceRays,
        background: Tensor | None,
        pixels: DevicePixels | None,
        device: torch.device | str,
    ) -> None:
        self._rays, self._pixels, self._device = rays, pixels, torch.device(device)
        self._background = None if background is None else background.float().to(device)

    @classmethod
    def create(
        cls,
        dataset: Any,
        sampler: PixelSampler,
        images: Mapping[str, Any] | None,
        device: torch.device | str,
    ) -> DeviceBatches | None:
        """For a data set of :class:`EightBitDataset`; None where only the host can make rays.

        Args:
            images: All of them, as the host joins them; None if they are somewhere else.
        """
        if DeviceRays.obstacle(dataset.cameras):
            return None
        rays, pixels = DeviceRays(dataset.cameras, device), None
        if images is not None and _is_uniform(sampler) and _fits(images, device):
            masks = None if sampler.config.ignore_mask else images.get("mask")
            cameras = torch.as_tensor(images["image_idx"])
            pixels = DevicePixels(images["image"], cameras, masks, device)
        return cls(rays, dataset.alpha_color, pixels, device)

    @property
    def has_images(self) -> bool:
        """Whether :meth:`draw` is there."""
        return self._pixels is not None

    def draw(self, count: int) -> tuple[RayBundle, dict[str, Tensor]]:
        """So many rays and their pixels, as of the host's data manager."""
        assert self._pixels is not None
        colors, indices = self._pixels.draw(count)
        return self._rays(indices), {"image": self._to_float(colors), "indices": indices}

    def send(self, batch: Mapping[str, Any]) -> tuple[RayBundle, dict[str, Any]]:
        """The same of a batch that the host has drawn: ``image`` in whatever numbers, ``indices``,
        and what else there is, which stays where it is."""
        colors, indices = self._sent(batch["image"]), self._sent(batch["indices"])
        batch = {**batch, "image": self._to_float(colors), "indices": indices}
        return self._rays(indices), batch

    def _sent(self, tensor: Tensor) -> Tensor:
        tensor = tensor.pin_memory() if self._device.type == "cuda" else tensor
        return tensor.to(self._device, non_blocking=True)

    def _to_float(self, pixels: Tensor) -> Tensor:
        """As ``EightBitDataset.to_float``, with a colour that is on the device."""
        if pixels.dtype != torch.uint8:
            return pixels
        values = pixels.float() / 255.0
        if self._background is None:
            return values
        rgb, alpha = values[..., :3], values[..., -1:]
        return rgb * alpha + self._background * (1.0 - alpha)


def _is_uniform(sampler: PixelSampler) -> bool:
    """Whether it draws all pixels alike."""
    config = sampler.config
    return type(sampler) is PixelSampler and not (
        config.is_equirectangular or config.fisheye_crop_radius or config.keep_full_image
    )


def _fits(images: Mapping[str, Any], device: torch.device | str) -> bool:
    """Whether there is room for images, and eight bytes for each pixel of those with masks."""
    needed = sum(image.nbytes for image in images["image"])
    needed += sum(8 * mask.numel() for mask in images.get("mask", ()))
    if torch.device(device).type != "cuda":
        return needed <= MAX_IMAGE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return needed <= min(MAX_IMAGE_BYTES, free // 3)
