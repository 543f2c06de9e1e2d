"""Pictures of what a client asks for, band by band, so that none is finished that nobody wants."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from shacira_nerfstudio.viewer.live.camera_space import CameraSpace, ViewPose
from shacira_nerfstudio.viewer.live.compare import divided, mark_divider
from shacira_nerfstudio.viewer.live.resolution import AdaptiveResolution, Size
from shacira_nerfstudio.viewer.live.scene_files import SceneFile
from shacira_nerfstudio.viewer.live.tones import Output, Scale, pixels

_PART_SECONDS = 1.0
"""Between two looks at a picture that takes longer."""
_BANDS_AT_A_TIME = 2
"""What is to be done before and after the rays of a band keeps one core busy; those of another band
keep the others."""
_CHANNELS: dict[Output, int] = {"colour": 3, "depth": 2, "accumulation": 1, "bits": 1}


@dataclass(frozen=True)
class Request:
    """What a client wants to see."""

    pose: ViewPose
    output: Output = "colour"
    num_levels: int = 1 << 16
    max_side: int = 512
    """Pixels of the longer side while the camera rests."""
    files: tuple[int, ...] = (0,)
    """Which file is shown; or two, left and right of the divider."""
    divider: float = 0.5
    """Share of the width that is the left one's."""


@dataclass(frozen=True)
class Picture:
    """A finished one."""

    image: np.ndarray
    """uint8 [H, W, 3]."""
    columns: list[slice]
    """Of each file."""
    scale: Scale
    seconds: float


class Painter:
    """Draws for one client.

    Args:
        resolution: Says how much can be drawn in how long, and is told what it took.
    """

    def __init__(
        self, files: Sequence[SceneFile], space: CameraSpace, resolution: AdaptiveResolution
    ) -> None:
        self._files, self._space, self._resolution = files, space, resolution

    def paint(
        self,
        request: Request,
        size: Size,
        *,
        is_wanted: Callable[[], bool],
        scale: Scale | None = None,
        before: np.ndarray | None = None,
        show_part: Callable[[np.ndarray], None] | None = None,
        is_rough: bool = False,
    ) -> Picture | None:
        """A picture; None once it is not wanted any more.

        Args:
            scale: Of brightness; by default the picture's own.
            is_rough: Whether it is one of a moving camera.
            before: A picture of the same view with fewer pixels.
            show_part: Gets what is there after some time, the rest being that of ``before``.
        """
        start = shown = time.perf_counter()
        width, height = size
        columns = divided(width, request.divider, len(request.files))
        camera = self._space.camera(request.pose, width, height)
        values = [
            np.zeros((height, part.stop - part.start, _CHANNELS[request.output]), np.float32)
            for part in columns
        ]

        def fill(begin: int, end: int) -> None:
            band = [rows[begin:end] for rows in values]
            self._fill(request, camera.rays(begin, end), columns, band, is_rough=is_rough)

        num_rows = 0
        for num_rows in self._finished(fill, size, is_wanted):
            now = time.perf_counter()
            if show_part and before is not None and scale and num_rows < height:
                if now - shown > _PART_SECONDS:
                    shown, image, done = now, _resized(before, size), [v[:num_rows] for v in values]
                    image[:num_rows] = self._image(request, done, scale, columns)
                    show_part(image)
        self._resolution.note(num_rows * width, time.perf_counter() - start)
        if num_rows < height:
            return None
        scale = scale or Scale.of(request.output, values)
        image = self._image(request, values, scale, columns)
        return Picture(image, columns, scale, time.perf_counter() - start)

    def _finished(
        self, fill: Callable[[int, int], None], size: Size, is_wanted: Callable[[], bool]
    ) -> Iterator[int]:
        """Fills bands of rows and yields how many rows are there after each, until a picture is
        whole or not wanted any more."""
        waiting = deque(self._resolution.bands(size))
        begun = deque[tuple[int, Future]]()
        while waiting or begun:
            while waiting and len(begun) < _BANDS_AT_A_TIME:
                if is_wanted():
                    begin, end = waiting.popleft()
                    begun.append((end, _bands().submit(fill, begin, end)))
                else:
                    waiting.clear()
            if begun:
                end, band = begun.popleft()
                band.result()
                yield end

    def _fill(
        self,
        request: Request,
        rays: tuple,
        columns: list[slice],
        values: list[np.ndarray],
        *,
        is_rough: bool,
    ) -> None:
        """Reads the rays of some rows, each file's in its columns."""
        width = columns[-1].stop
        origins, directions = (part.view(-1, width, 3) for part in rays)
        for number, part, found in zip(request.files, columns, values, strict=True):
            scene = self._files[number].scene
            if scene is None or part.start == part.stop:
                continue  # still to come: black
            some = [r[:, part].reshape(-1, 3).contiguous() for r in (origins, directions)]
            read = scene.read(request.output, request.num_levels, *some, is_rough=is_rough)
            found[:] = read.reshape(len(origins), -1, read.shape[1])

    def _image(
        self, request: Request, values: list[np.ndarray], scale: Scale, columns: list[slice]
    ) -> np.ndarray:
        parts = [pixels(request.output, part, scale) for part in values]
        return mark_divider(np.concatenate(parts, axis=1), columns)


@lru_cache(maxsize=1)
def _bands() -> ThreadPoolExecutor:
    """Threads for bands of all clients. Torch must not split its operations there as well: the
    kernels bring threads of their own."""
    return ThreadPoolExecutor(
        _BANDS_AT_A_TIME, "bands", initializer=torch.set_num_threads, initargs=(1,)
    )


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
