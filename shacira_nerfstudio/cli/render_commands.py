"""Sub-commands of `shacira` that make pictures, videos and points of a lone file.

As in :mod:`file_commands`, everything heavy is imported in ``main``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from shacira_nerfstudio.cli.file_commands import File, as_json

if TYPE_CHECKING:
    from shacira_nerfstudio.codec import PackedScene
    from shacira_nerfstudio.model.scene import RadianceScene
    from shacira_nerfstudio.viewer.camera_paths import CameraPath

TOUR_FRAMES = 120
"""Pictures of an orbit or a spiral where nobody says."""
ORBIT_VIEWS = 60
"""Places of an orbit that points are looked at from."""


@dataclass
class Render:
    """Render a file: from the cameras stored in it, around it, or along a path of cameras."""

    file: File
    """The .shacira file."""
    output: Annotated[Path, arg(aliases=("-o", "--output-dir"))]
    """A video NAME.mp4, or a folder for 00000.png, 00001.png, ..."""
    camera_path: Path | None = None
    """Camera path saved by Nerfstudio's viewer (JSON): perspective or equirectangular, crop box
    included."""
    orbit: bool = False
    """Once around what the stored cameras look at."""
    spiral: bool = False
    """Small turns about the stored camera in the middle."""
    transforms: Path | None = None
    """Cameras of a transforms.json, in the coordinates of the scene; those of a capture that a data
    parser has moved need --dataparser-transforms, too."""
    dataparser_transforms: Path | None = None
    """The dataparser_transforms.json that training wrote beside its config.yml."""
    frames: Annotated[int, arg(aliases=("--views",))] = 0
    """Number of pictures: of an orbit or a spiral 120 by default; of other cameras so many of
    them, evenly spread, all by default."""
    width: int | None = None
    """Pixels per row; the camera's own by default, or as --height demands."""
    height: int | None = None
    """Rows; the camera's own by default, or as --width demands."""
    fps: float | None = None
    """Pictures per second of a video; the camera path's own, else 30."""
    outputs: tuple[Literal["rgb", "depth", "accumulation"], ...] = ("rgb",)
    """What pictures show; several are put side by side. Depth is bright where near, in one range
    for all pictures, and black where nothing is."""
    device: str = "auto"
    """Where to render: cpu, cuda or cuda:N; auto takes a GPU if there is one."""
    json: bool = False
    """Print JSON."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        from shacira_nerfstudio.viewer.render_video import check_output, is_video, render_path
        from shacira_nerfstudio.viewer.scene_files import open_scene

        self._check()
        check_output(self.output)
        packed, scene = open_scene(self.file, self.device, allow_truncated=self.allow_truncated)
        path = self._path(packed, scene)
        for note in path.notes:
            print(f"shacira: note: {note}", file=sys.stderr)
        done = render_path(scene, path, self.output, outputs=self.outputs)
        files = [str(file) for file in done.files]
        if self.json:
            content = {
                **({"video": files[0]} if is_video(self.output) else {"images": files}),
                "num_frames": done.num_frames,
                "size": done.size,
                "depth_range": done.depths,
                "num_levels_present": packed.num_coded_levels,
            }
            print(as_json(content))
            return 0
        size = f"{done.num_frames} pictures of {done.size[0]}x{done.size[1]}"
        depths = done.depths
        between = "" if depths is None else f", depths {depths[0]:.4g} to {depths[1]:.4g}"
        print(f"{self.output}: {size}{between}")
        return 0

    def _check(self) -> None:
        """Refuses options that contradict each other."""
        chosen = {
            "--camera-path": self.camera_path is not None,
            "--orbit": self.orbit,
            "--spiral": self.spiral,
            "--transforms": self.transforms is not None,
        }
        names = [name for name, is_chosen in chosen.items() if is_chosen]
        if len(names) > 1:
            raise ValueError(f"expected one of {', '.join(chosen)}, got {' and '.join(names)}")
        if self.frames < 0:
            raise ValueError(f"expected --frames of 0 or more, got {self.frames}")
        if self.dataparser_transforms is not None and self.transforms is None:
            raise ValueError("expected --transforms beside --dataparser-transforms, got none")
        for name, side in (("--width", self.width), ("--height", self.height)):
            if side is not None and side < 1:
                raise ValueError(f"expected {name} of 1 or more, got {side}")

    def _path(self, packed: PackedScene, scene: RadianceScene) -> CameraPath:
        """What to render."""
        from dataclasses import replace

        from shacira_nerfstudio.viewer import camera_files
        from shacira_nerfstudio.viewer.camera_paths import CameraPath, orbit, spiral
        from shacira_nerfstudio.viewer.frames import typical_depth
        from shacira_nerfstudio.viewer.scene_files import cameras_in

        sides = {"width": self.width, "height": self.height}
        if self.camera_path is not None:
            path = camera_files.camera_path_of(self.camera_path, **sides)
        elif self.transforms is not None:
            file = self.dataparser_transforms
            world = None if file is None else camera_files.WorldTransform.read(file)
            path = camera_files.transforms_cameras(self.transforms, world, **sides)
        else:
            cameras = cameras_in(packed, self.file)
            if self.orbit or self.spiral:
                tour = orbit if self.orbit else spiral
                count = self.frames or TOUR_FRAMES
                path = tour(cameras, count, lambda camera: typical_depth(scene, camera), **sides)
            else:
                path = CameraPath(cameras).resized(**sides)
        if self.frames and not (self.orbit or self.spiral):
            path = path.thinned(self.frames)
        return path if self.fps is None else replace(path, fps=self.fps)


@dataclass
class PointCloud:
    """Points on the surfaces of a scene, as a PLY file with colours and normals."""

    file: File
    """The .shacira file."""
    output: Annotated[Path, arg(aliases=("-o",))]
    """The file to write, NAME.ply: binary, in the scene's coordinates."""
    num_points: int = 1_000_000
    """Number of points; 27 bytes each, as splats 68."""
    splats: bool = False
    """Write flat Gaussian splats, for SuperSplat and other programs that show no plain points."""
    orbit: bool = False
    """Look from an orbit around the scene instead of from the stored cameras."""
    remove_outliers: bool = True
    """Leave out points that hang between two surfaces, at the edges of things."""
    min_accumulation: float = 0.5
    """Opacity from 0 to 1 that a ray must reach for its point to count; larger leaves out haze."""
    reach: float = 4.0
    """Leave out what is farther from the middle of the scene's box than so many halves of its
    longest side; 0 keeps everything, the sky included."""
    device: str = "auto"
    """Where to render: cpu, cuda or cuda:N; auto takes a GPU if there is one."""
    json: bool = False
    """Print JSON."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        from shacira_nerfstudio.output_files import check_output_file, write_file
        from shacira_nerfstudio.viewer.camera_paths import orbit
        from shacira_nerfstudio.viewer.frames import typical_depth
        from shacira_nerfstudio.viewer.ply import BYTES_PER_POINT, ply_bytes
        from shacira_nerfstudio.viewer.point_cloud import sample_points
        from shacira_nerfstudio.viewer.scene_files import cameras_in, open_scene
        from shacira_nerfstudio.viewer.splats import BYTES_PER_SPLAT, splat_bytes

        if self.output.suffix.lower() != ".ply":
            raise ValueError(f"expected a file NAME.ply to write, got {self.output}")
        each = BYTES_PER_SPLAT if self.splats else BYTES_PER_POINT
        check_output_file(self.output, each * self.num_points)
        packed, scene = open_scene(self.file, self.device, allow_truncated=self.allow_truncated)
        cameras: Any = cameras_in(packed, self.file)
        if self.orbit:
            path = orbit(cameras, ORBIT_VIEWS, lambda camera: typical_depth(scene, camera))
            cameras = path.cameras
        cloud = sample_points(
            scene,
            cameras,
            self.num_points,
            min_accumulation=self.min_accumulation,
            remove_outliers=self.remove_outliers,
            reach=self.reach,
        )
        as_bytes = splat_bytes if self.splats else ply_bytes
        size = write_file(self.output, as_bytes(cloud, "of a .shacira scene"))
        content = {"file": str(self.output), "num_points": len(cloud), "bytes": size}
        text = f"{self.output}: {len(cloud):,} points, {size:,} bytes"
        print(as_json(content) if self.json else text)
        return 0
