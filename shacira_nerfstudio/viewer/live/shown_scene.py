"""A decoded scene as the viewer reads it: any number of its levels, by any number of clients."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from shacira_nerfstudio.codec import PackedScene

if TYPE_CHECKING:  # decoding begins while PyTorch loads
    from torch import Tensor

    from shacira_nerfstudio.model.scene import PinholeCamera, RadianceScene
    from shacira_nerfstudio.viewer.live.camera_space import CameraSpace
    from shacira_nerfstudio.viewer.live.tones import Output

_ROUGH_WEIGHT = 1 / 24
"""Of a sample, from which it gets a colour of its own in a rough picture."""


class ShownScene:
    """What is on show never changes: another number of levels is another scene, which reads the
    same latents. So clients that look at different levels do not disturb each other.

    Args:
        when_counted: Called after the bits of its entries have been counted.
        device: Where it is rendered.

    Raises:
        SceneFormatError: as :func:`unpack_scene`.
    """

    def __init__(
        self, packed: PackedScene, when_counted: Callable[[], None], *, device: str = "cpu"
    ) -> None:
        self._packed, self._when_counted, self._device = packed, when_counted, device
        self._lock = threading.Lock()
        self._by_level: dict[int, RadianceScene] = {}
        self._entry_bits: Tensor | None = None
        self._counting: threading.Thread | None = None
        self.num_levels = packed.num_coded_levels
        self.at_level(self.num_levels)

    def camera_space(
        self, distance_ahead: Callable[[PinholeCamera], float] | None = None
    ) -> CameraSpace:
        """The browser's space around this scene.

        Args:
            distance_ahead: By default :meth:`distance_ahead`.
        """
        from shacira_nerfstudio.compression.pack import stored_cameras
        from shacira_nerfstudio.viewer.live.camera_space import CameraSpace

        assert self._packed.rendering is not None
        cameras, box = stored_cameras(self._packed.cameras), self._packed.rendering.box
        return CameraSpace(cameras, box, distance_ahead or self.distance_ahead)

    def distance_ahead(self, camera: PinholeCamera) -> float:
        """How far away is what a camera sees, see :func:`typical_depth`."""
        from shacira_nerfstudio.viewer.frames import typical_depth

        return typical_depth(self.at_level(self.num_levels), camera)

    def at_level(self, num_levels: int) -> RadianceScene:
        """The scene of its first levels, as many as there are at the most."""
        from shacira_nerfstudio.backends import get_backend
        from shacira_nerfstudio.compression.pack import unpack_scene

        num_levels = min(max(num_levels, 1), self.num_levels)
        with self._lock:
            if num_levels not in self._by_level:
                # Backends keep what they made of the latest table and occupancy: one for each.
                backend = get_backend("auto", self._device)
                scene = unpack_scene(self._packed, backend, device=self._device)
                scene.encoding.max_level = num_levels
                for other in self._by_level.values():
                    scene.encoding.symbols = other.encoding.symbols
                    scene.occupancy.occupied = other.occupancy.occupied
                self._by_level[num_levels] = scene
            return self._by_level[num_levels]

    @property
    def has_bits(self) -> bool:
        """Whether the bits of its entries have been counted."""
        return self._entry_bits is not None

    def entry_bits(self) -> Tensor | None:
        """Bits of each entry; None while they are counted, which begins with the first call."""
        with self._lock:
            if self._entry_bits is None and self._counting is None:
                self._counting = threading.Thread(target=self._count_bits, daemon=True)
                self._counting.start()
            return self._entry_bits

    def _count_bits(self) -> None:
        from shacira_nerfstudio.compression.code_lengths import entry_bits_of

        self._entry_bits = entry_bits_of(self._packed)
        self._when_counted()

    def read(
        self,
        output: Output,
        num_levels: int,
        origins: Tensor,
        directions: Tensor,
        *,
        is_rough: bool = False,
    ) -> np.ndarray:
        """What rays give, float32 [R, channels] as :func:`tones.pixels` takes them.

        Bits are 0 as long as they are being counted.

        Args:
            is_rough: Whether colours may be rough, as in a frame that another one follows at once.
        """
        import torch

        from shacira_nerfstudio.model.bits import ray_bits
        from shacira_nerfstudio.model.volrend import MIN_WEIGHT

        scene = self.at_level(num_levels)
        origins, directions = origins.to(scene.device), directions.to(scene.device)
        if output == "colour":
            min_weight = _ROUGH_WEIGHT if is_rough else MIN_WEIGHT
            colors = scene.render_colors(origins, directions, min_weight=min_weight)
            return colors.cpu().numpy()
        if output == "bits":
            bits = self.entry_bits()
            if bits is None:
                return np.zeros((len(origins), 1), np.float32)
            return (
                ray_bits(scene, origins, directions, bits.to(scene.device))[:, None].cpu().numpy()
            )
        rays = scene.render_rays(origins, directions)
        if output == "accumulation":
            return rays.accumulation[:, None].cpu().numpy()
        return torch.stack([rays.depth, rays.accumulation], 1).cpu().numpy()
