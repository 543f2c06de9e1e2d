"""A plaza as an RTMV scene of full size: many objects, textures, soft shadows, mirrors, an HDR
environment, depth and segmentation.

Views are rendered by several processes. A view is done when its JSON is there, which is written
last, so that whoever was interrupted goes on where that was; equal arguments, equal files.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shacira_nerfstudio.output_files import (
    check_output_dir,
    only_writer,
    replacing_file,
    write_file,
)
from shacira_nerfstudio.progress import tracked
from shacira_nerfstudio.scenes.linear_pixels import write_exr
from shacira_nerfstudio.scenes.plaza.layout import (
    CENTER,
    RADIUS,
    Light,
    Plaza,
    make_light,
    make_plaza,
)
from shacira_nerfstudio.scenes.view_description import (
    PlacedObject,
    describe_camera,
    describe_objects,
)

FIELD_OF_VIEW = np.radians(45.0)
MISS = np.finfo(np.float32).min
"""What RTMV writes as depth where a ray leaves the scene."""
_BYTES_PER_PIXEL = 16
"""Of all files of a view, about."""

Array = NDArray[Any]


@dataclass(frozen=True)
class View:
    """One picture of one plaza."""

    folder: Path
    seed: int
    size: int
    number: int

    @property
    def stem(self) -> str:
        """Of its files' names."""
        return f"{self.number:05d}"

    @property
    def focal(self) -> float:
        """In pixels."""
        return 0.5 * self.size / np.tan(FIELD_OF_VIEW / 2)

    def pose(self) -> Array:
        """4x4, on a sphere from which everything is in view, looking at its centre."""
        # Multiples of two irrational numbers that fill the square evenly (Roberts' R2 sequence), so
        # that any run of consecutive views is spread over the upper hemisphere.
        start = np.random.default_rng((self.seed, 1)).random()
        around = 2 * np.pi * (start + 0.5698403 * self.number)
        sine = 0.15 + 0.77 * ((0.5 + 0.7548777 * self.number) % 1)  # elevations 9 to 67 degrees
        back = np.array([np.cos(around), np.sin(around), 0]) * np.sqrt(1 - sine**2) + [0, 0, sine]
        right = np.array([-np.sin(around), np.cos(around), 0])
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(back, right), back, np.zeros(3)], axis=-1)
        pose[:3, 3] = CENTER + back * RADIUS / np.sin(FIELD_OF_VIEW / 2)
        return pose

    def camera(self) -> dict[str, Any]:
        """``camera_data`` of its JSON."""
        box = _plaza(self.seed).box
        return describe_camera(self.pose(), self.size, self.focal, CENTER, box)


def write_plaza(
    folder: Path,
    *,
    num_views: int = 150,
    size: int = 1600,
    seed: int = 0,
    num_processes: int | None = None,
) -> int:
    """Writes ``NNNNN.json``, ``.exr``, ``.depth.exr`` and ``.seg.exr`` of each view that is not
    there yet.

    Args:
        seed: Of the objects and the first camera.
        num_processes: As many as cores by default.

    Returns:
        The number of views that were rendered.

    Raises:
        ValueError: the folder holds views of another scene.
    """
    if num_views < 1 or size < 2:
        raise ValueError(f"expected num_views >= 1 and size >= 2, got {num_views} and {size}")
    check_output_dir(folder)
    with only_writer(folder):
        for left in folder.glob(".*.part"):  # of whoever was killed
            left.unlink()
        views = [View(folder, seed, size, number) for number in range(num_views)]
        missing = [view for view in views if not _is_done(view)]
        _check_others(folder, num_views)
        check_output_dir(folder, len(missing) * size * size * _BYTES_PER_PIXEL)
        for _ in tracked(_rendered(missing, num_processes), "rendering", total=len(missing)):
            pass
    return len(missing)


def _is_done(view: View) -> bool:
    """Raises ValueError where there is another view of that number."""
    path = view.folder / f"{view.stem}.json"
    try:
        found = json.loads(path.read_text("utf8")).get("camera_data")
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError) as error:
        raise ValueError(f"expected a view in {path}, found: {error}") from error
    if found != json.loads(json.dumps(view.camera())):
        raise ValueError(
            f"expected views of {view.size}x{view.size} pixels by seed {view.seed}, found another "
            f"scene in {path}: take an empty folder"
        )
    return True


def _check_others(folder: Path, num_views: int) -> None:
    numbers = [path.stem for path in folder.glob("[0-9]" * 5 + ".json")]
    extra = sorted(stem for stem in numbers if int(stem) >= num_views)
    if extra:  # they would join ours
        raise ValueError(f"expected at most {num_views} views in {folder}, found {extra[-1]}.json")


def _rendered(views: list[View], num_processes: int | None) -> Iterable[None]:
    count = min(num_processes or _num_cores(), len(views))
    if count <= 1:
        yield from map(render_view, views)
        return
    context = multiprocessing.get_context("spawn")
    render_view(views[0])  # compiles once, for all
    yield None
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool:
        jobs = [pool.submit(render_view, view) for view in views[1:]]
        try:
            for job in jobs:
                yield job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A process that renders ends when the one that asked for it was killed; it would wait for ever
    for the next view."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def render_view(view: View) -> None:
    """Renders and writes one view; its JSON last."""
    from shacira_nerfstudio.scenes.plaza.tracer_numba import render

    plaza, light, pose = _plaza(view.seed), _light(), view.pose()
    rgba, depth, labels = render(
        pose,
        view.focal,
        view.size,
        plaza.solids,
        plaza.looks,
        light.suns,
        light.sun_color,
        light.harmonics,
        light.lamps,
    )
    opaque = np.array([1, 1, 1, 0]), np.array([0, 0, 0, 1])
    depth = np.where(labels >= 0, depth, 0).astype(np.float32)
    depth = np.where(labels >= 0, _rounded(depth, 8), MISS)
    names = _plaza(view.seed).names
    things = [
        PlacedObject(name, turn, center)
        for name, turn, center in zip(names, plaza.turns, plaza.centers, strict=True)
    ]
    content = {"camera_data": view.camera(), "objects": describe_objects(things, pose, labels)}
    for suffix, pixels in (
        ("exr", _rounded(rgba, 12)),
        ("depth.exr", depth[..., None] * opaque[0] + opaque[1]),
        ("seg.exr", (labels + 1.0)[..., None] * opaque[0] + opaque[1]),
    ):
        with replacing_file(view.folder / f"{view.stem}.{suffix}") as path:
            write_exr(path, pixels)
    write_file(view.folder / f"{view.stem}.json", json.dumps(content, sort_keys=True))


def _rounded(values: Array, num_bits: int) -> Array:
    """Floats whose last bits are 0: they take half the room, and say nothing that can be seen."""
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((whole + np.uint32(1 << (num_bits - 1))) & np.uint32(-(1 << num_bits) % 2**32)).view(
        np.float32
    )


@lru_cache(maxsize=1)
def _plaza(seed: int) -> Plaza:
    return make_plaza(seed)


@lru_cache(maxsize=1)
def _light() -> Light:
    return make_light()
