"""Pictures of a camera path: a folder of PNG files, or one MP4 file.

A video is encoded beside its place and moved there when it is whole, so that a run that is killed
leaves what was there before. Its sides are even numbers of pixels, as its colours are stored for
2x2 pixels at a time.
"""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.output_files import (
    check_output_dir,
    check_output_file,
    only_writer,
    replacing_file,
    write_file,
)
from shacira_nerfstudio.progress import tracked
from shacira_nerfstudio.viewer.camera_paths import CameraPath
from shacira_nerfstudio.viewer.frames import Output, depth_range, picture, render_frame

DEFAULT_FPS = 30.0
VIDEO_SUFFIX = ".mp4"
_OTHER_FILES = {".avi", ".gif", ".jpeg", ".jpg", ".mkv", ".mov", ".png", ".webm", ".webp"}
_CONSTANT_QUALITY = 18
"""Of x264: below what an eye sees."""
Pixels = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Rendered:
    """What has been written."""

    files: tuple[Path, ...]
    """The pictures, or the one video."""
    num_frames: int
    size: tuple[int, int]
    """Width and height of the first picture, in pixels."""
    depths: tuple[float, float] | None
    """Distances of the nearest and the farthest colour of a depth; None if there is none."""


def is_video(output: Path) -> bool:
    """Whether a name asks for a video; of files nothing else can be asked for."""
    suffix = output.suffix.lower()
    if suffix in _OTHER_FILES:
        raise ValueError(f"expected a video NAME{VIDEO_SUFFIX} or a folder, got {output}")
    return suffix == VIDEO_SUFFIX


def check_output(output: Path) -> None:
    """Raises OSError or ValueError where a video or pictures cannot be written."""
    if not is_video(output):
        check_output_dir(output)
    else:
        check_output_file(output)
        if output.exists() and not output.is_file():
            raise ValueError(f"expected a file for a video, got {output}, which is none")


def render_path(
    scene: RadianceScene, path: CameraPath, output: Path, *, outputs: Sequence[Output] = ("rgb",)
) -> Rendered:
    """Renders all cameras of a path.

    Args:
        output: ``NAME.mp4``, or a folder for ``00000.png`` and so on, made if it is not there.
        outputs: What pictures show; several are put side by side.
    """
    if not outputs:
        raise ValueError("expected an output of rgb, depth, accumulation, got none")
    path = with_even_sides(path, len(outputs)) if is_video(output) else path
    if not is_video(output):
        _check_frames_in(output, len(path.cameras))
    depths = depth_range(scene, path.cameras, path.crop) if "depth" in outputs else None

    def pictures() -> Iterator[Pixels]:
        for camera in path.cameras:
            frame = render_frame(scene, camera, path.crop)
            parts = [picture(frame, name, depths or (0.0, 1.0)) for name in outputs]
            yield np.concatenate(parts, axis=1)

    frames = tracked(pictures(), "rendering", total=len(path.cameras), unit="pictures")
    if is_video(output):
        write_video(output, frames, fps=path.fps or DEFAULT_FPS)
        files = (output,)
    else:
        files = write_pictures(output, frames)
    first = path.cameras[0]
    size = first.width * len(outputs), first.height
    return Rendered(files, len(path.cameras), size, depths)


def with_even_sides(path: CameraPath, num_parts: int) -> CameraPath:
    """The path in a size that a video can have, at most a pixel larger per side.

    Raises:
        ValueError: its cameras are of several sizes.
    """
    sizes = {(camera.width, camera.height) for camera in path.cameras}
    if len(sizes) > 1:
        raise ValueError(
            f"expected cameras of one size for a video, got {len(sizes)} sizes: state --width and "
            "--height"
        )
    ((width, height),) = sizes
    even = width + (width * num_parts) % 2, height + height % 2
    return path if even == (width, height) else path.resized(width=even[0], height=even[1])


def write_pictures(folder: Path, frames: Iterator[Pixels]) -> tuple[Path, ...]:
    """Writes ``00000.png`` and so on, each whole or not at all."""
    files = []
    with only_writer(folder):
        for number, pixels in enumerate(frames):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, format="png")
            files.append(folder / f"{number:05d}.png")
            write_file(files[-1], png.getvalue())
    return tuple(files)


def write_video(path: Path, frames: Iterator[Pixels], *, fps: float) -> None:
    """Encodes pictures of one size as H.264 in MP4.

    Raises:
        ValueError: ``fps`` is no number of pictures per second.
        RuntimeError: the encoder failed; the message has its last words.
    """
    if not 0.1 <= fps <= 1000:
        raise ValueError(f"expected 0.1 to 1000 pictures per second (--fps), got {fps:.6g}")
    first = next(frames)
    with replacing_file(path) as part:
        encoder = _start_encoder(part, first.shape[1], first.shape[0], fps)
        try:
            assert encoder.stdin is not None and encoder.stderr is not None
            try:
                encoder.stdin.write(first.tobytes())
                for pixels in frames:
                    encoder.stdin.write(pixels.tobytes())
                encoder.stdin.close()
            except BrokenPipeError:
                pass  # it has ended before its time: its status and its words say why
            words = encoder.stderr.read().decode(errors="replace").strip()
            if encoder.wait() != 0:
                raise RuntimeError(f"expected ffmpeg to write {path}, got: {words[-400:]}")
        finally:
            encoder.kill()
            encoder.wait()


def _start_encoder(path: Path, width: int, height: int, fps: float) -> subprocess.Popen[bytes]:
    import imageio_ffmpeg

    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:.6f}"]
    # Tagged as what they are, or players guess by the size of the picture.
    colors = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709"]
    colors += ["-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    coding = ["-c:v", "libx264", "-crf", str(_CONSTANT_QUALITY), "-pix_fmt", "yuv420p", "-an"]
    ending = ["-movflags", "+faststart", "-f", "mp4", "-y", str(path)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *given, "-i", "-"]
    return subprocess.Popen(
        [*command, *colors, *coding, *ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _check_frames_in(folder: Path, count: int) -> None:
    """Raises ValueError for pictures of a longer sequence, which would mix with these."""
    if not folder.is_dir():
        return
    numbers = [p.stem for p in folder.iterdir() if re.fullmatch(r"\d{5,}\.png", p.name)]
    beyond = sorted(number for number in numbers if int(number) >= count)
    if beyond:
        raise ValueError(
            f"expected no pictures beyond {count - 1:05d}.png in {folder}, found {len(beyond)} of "
            f"another sequence, such as {beyond[0]}.png: remove them or take another folder"
        )
