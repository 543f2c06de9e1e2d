"""The same for videos: beside a plain grid and x264 and x265, on the same frames.

Notation: T frames of H x W pixels.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shacira_nerfstudio.bench.pictures.metrics import figures
from shacira_nerfstudio.bench.pictures.plain_grid import trained_plain_grid
from shacira_nerfstudio.bench.pictures.run import Row, append_row, done_rows
from shacira_nerfstudio.bench.pictures.summary import PLAIN
from shacira_nerfstudio.codec import decode_scene
from shacira_nerfstudio.pictures.compress import compress_pixels
from shacira_nerfstudio.pictures.decoder import PixelDecoder
from shacira_nerfstudio.pictures.layout import PixelLayout
from shacira_nerfstudio.pictures.options import PictureOptions

ENCODERS = {"x264": "libx264", "x265": "libx265"}
RATE_FACTORS = (20, 26, 32, 38, 44)
"""Constant rate factors of both, one point of their curves each."""
PRESET = "medium"
_STRUCTURE_EVERY = 12
"""SSIM is measured on every so many-th frame, PSNR on all."""

Measured = tuple[Row, Iterable[np.ndarray]]
"""Bytes, seconds and the like; and the decoded frames [H, W, 3], one after another."""
Measure = Callable[[np.ndarray, PixelLayout], Measured]


def run_video(
    name: str,
    frames: np.ndarray,
    layout: PixelLayout,
    output: Path,
    *,
    methods: Sequence[tuple[str, str, Measure]],
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measures what is not in ``output`` yet, and writes after every row.

    Args:
        name: What rows call the video.
        frames: uint8 [T, H, W, 3].
        methods: Name, setting and function of each.

    Returns:
        All rows of the file.
    """
    rows = done_rows(output)
    for method, setting, measure in methods:
        key = f"{name}/{method}/{setting}"
        if key in {row["key"] for row in rows}:
            continue
        progress(key)
        found, shown = measure(frames, layout)
        begin = time.perf_counter()
        decoded = np.stack(list(shown))
        seconds = found.pop("open_seconds", 0.0) + time.perf_counter() - begin
        row = {"key": key, "image": name, "method": method, "setting": setting}
        row |= {"frames": layout.frames, "bpp": 8 * found["bytes"] / layout.num_pixels}
        row |= {"decode_seconds": seconds, "frames_per_second": layout.frames / seconds}
        append_row(rows, {**row, **found, **video_figures(frames, decoded)}, output)
    return rows


def video_figures(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """PSNR of all pixels of uint8 [T, H, W, 3] together, and means of SSIM over some frames."""
    error = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in _pairs(truth, found))
    some = [figures(a, b) for a, b in _pairs(truth[::_STRUCTURE_EVERY], found[::_STRUCTURE_EVERY])]
    means = {name: float(np.mean([f[name] for f in some])) for name in ("ssim", "ms_ssim")}
    return {"psnr": float(10 * np.log10(255**2 / max(error / truth.size, 1e-10))), **means}


def _pairs(truth: np.ndarray, found: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield from zip(truth, found, strict=True)


def ours(name: str, setting: str, options: PictureOptions) -> tuple[str, str, Measure]:
    """Files of this package."""

    def measure(frames: np.ndarray, layout: PixelLayout) -> Measured:
        done = compress_pixels(frames, layout, options)
        begin = time.perf_counter()
        decoder = PixelDecoder(decode_scene(done.data))
        row = {
            "bytes": len(done.data),
            "train_seconds": done.train_seconds,
            "open_seconds": time.perf_counter() - begin,
            "steps": options.effort.num_steps,
        }
        return row, (decoder.pixels(frame=frame) for frame in range(layout.frames))

    return name, setting, measure


def plain_grid(setting: str, options: PictureOptions) -> tuple[str, str, Measure]:
    """A plain Instant-NGP, whose file would be its parameters in half floats and nothing else."""

    def measure(frames: np.ndarray, layout: PixelLayout) -> Measured:
        begin = time.perf_counter()
        grid = trained_plain_grid(frames, layout, options)
        row = {
            "bytes": grid.num_bytes,
            "train_seconds": time.perf_counter() - begin,
            "steps": options.effort.num_steps,
        }
        return row, (grid.pixels(frame) for frame in range(layout.frames))

    return PLAIN, setting, measure


def rivals() -> Iterator[tuple[str, str, Measure]]:
    """Ordinary codecs, as ffmpeg brings them."""
    for name, codec in ENCODERS.items():
        for factor in RATE_FACTORS:

            def measure(
                frames: np.ndarray, layout: PixelLayout, codec: str = codec, factor: int = factor
            ) -> Measured:
                return _encoded(frames, layout, codec, factor)

            yield name, str(factor), measure


def _encoded(frames: np.ndarray, layout: PixelLayout, codec: str, factor: int) -> Measured:
    """A Matroska file, all of it counted. Colours have half the resolution, as such files have."""
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        path, begin = Path(folder) / "video.mkv", time.perf_counter()
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (layout.width, layout.height),
            fps=layout.frames_per_second,  # pyright: ignore[reportArgumentType]
            codec=codec,
            quality=None,  # pyright: ignore[reportArgumentType]
            macro_block_size=1,
            output_params=["-crf", str(factor), "-preset", PRESET],
        )
        writer.send(None)
        try:
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
        finally:
            writer.close()
        seconds, data = time.perf_counter() - begin, path.read_bytes()
    if not data:
        raise RuntimeError(f"expected ffmpeg to write a video with {codec}, got nothing")
    return {"bytes": len(data), "train_seconds": seconds}, _decoded(data, layout)


def _decoded(data: bytes, layout: PixelLayout) -> Iterator[np.ndarray]:
    import imageio_ffmpeg

    with tempfile.NamedTemporaryFile(suffix=".mkv") as file:
        file.write(data)
        file.flush()
        reader: Any = imageio_ffmpeg.read_frames(
            file.name, pix_fmt="rgb24", output_params=["-fps_mode", "passthrough"]
        )
        next(reader)
        for raw in reader:
            yield np.frombuffer(raw, np.uint8).reshape(layout.height, layout.width, 3)
