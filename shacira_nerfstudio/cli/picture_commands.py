"""`shacira image` and `shacira video`: pictures and videos to files and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from shacira_nerfstudio.cli.command_union import command_union
from shacira_nerfstudio.cli.file_commands import as_json

Inputs = Annotated[tuple[Path, ...], Positional, arg(metavar="IN")]
Output = Annotated[Path, arg(aliases=["-o"])]
Box = tuple[int, int, int, int]


@dataclass
class _Compress:
    """What pictures and videos have in common."""

    input: Inputs
    output: Output
    quality: Literal["draft", "normal", "max"] = "normal"
    """How long training takes."""
    rate_lambda: float = 1.0e-3
    """Weight of the rate: larger gives smaller files; where steering starts, if there is a
    target."""
    target_size_kb: float = 0.0
    """Size of the file to end at, in kB of 1000 bytes."""
    target_bpp: float = 0.0
    """The same in bits per pixel."""
    target_psnr: float = 0.0
    """Quality to end at, in dB."""
    num_steps: int = 0
    """Steps of training; 0 means what the quality takes."""
    seed: int = 0
    """Of the random numbers of training."""
    backend: str = "auto"
    """Of training: auto, cpu_numba or reference."""
    overwrite: bool = False
    """Compress again what has a valid file in the output folder; by default that is kept."""
    json: bool = False
    """Print a JSON object per file."""

    def options(self) -> Any:
        from shacira_nerfstudio.pictures.options import PictureOptions

        names = ("quality", "rate_lambda", "target_size_kb", "target_bpp", "target_psnr")
        names += ("num_steps", "seed", "backend")
        return PictureOptions(**{name: getattr(self, name) for name in names})


@dataclass
class CompressImage(_Compress):
    """Compress pictures: one file, or all pictures of a folder into another folder.

    8 and 16 bits, grey or RGB, with or without alpha. What is in the output folder already is not
    done again, so that a run that was interrupted goes on where it was.
    """

    def main(self) -> int:
        from shacira_nerfstudio.output_files import write_file
        from shacira_nerfstudio.pictures.compress import compress_pixels
        from shacira_nerfstudio.pictures.files.image_files import READABLE, read_image
        from shacira_nerfstudio.pictures.files.many_files import is_done, plan_jobs
        from shacira_nerfstudio.progress import Progress

        options = self.options()
        jobs = plan_jobs(self.input, self.output, endings=READABLE, to=".shacira")
        if len(jobs) > 1:
            self.output.mkdir(parents=True, exist_ok=True)
            kept = [] if self.overwrite else [job for job in jobs if is_done(job)]
            jobs = [job for job in jobs if job not in kept]
            if kept and not self.json:
                print(f"{len(kept)} files are there already")
        total = len(jobs) * options.effort.num_steps
        with Progress("compressing", total, unit="steps") as progress:
            for job in jobs:
                pixels, layout = read_image(job.source)
                done = compress_pixels(
                    pixels, layout, options, report=lambda *_: progress.advance()
                )
                write_file(job.target, done.data)
                text = (
                    f"{job.target}: {len(done.data):,} bytes, {done.bits_per_pixel:.3f} bits per "
                    f"pixel, {done.psnr:.2f} dB, {done.train_seconds:.0f} s"
                )
                _print({"file": str(job.target), **done.as_dict()}, text, as_lines=self.json)
        return 0


@dataclass
class DecompressImage:
    """Write pictures of .shacira files, whole or a part, in any size: one file, or all of a folder
    into another folder, of which a run that was interrupted goes on where it was."""

    input: Inputs
    output: Output
    """A picture to write, its format by its ending; or a folder, for PNG files."""
    box: Box | None = None
    """Left, top, right and bottom of a part of the picture, in pixels."""
    scale: float = 0.0
    """Pixels to write per pixel of the picture; 0 means width and height, or 1."""
    width: int = 0
    """Pixels to write; 0 follows the height."""
    height: int = 0
    """Likewise."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""
    overwrite: bool = False
    """Write again what is in the output folder and newer than its file; by default that is kept."""
    json: bool = False
    """Print a JSON object per file."""

    def main(self) -> int:
        from shacira_nerfstudio.pictures.files.many_files import is_newer, plan_jobs
        from shacira_nerfstudio.progress import tracked

        jobs = plan_jobs(self.input, self.output, endings=(".shacira",), to=".png")
        if len(jobs) > 1:
            self.output.mkdir(parents=True, exist_ok=True)
            kept = [] if self.overwrite else [job for job in jobs if is_newer(job)]
            jobs = [job for job in jobs if job not in kept]
            if kept and not self.json:
                print(f"{len(kept)} pictures are there already")
        for job in tracked(jobs, "decoding", total=len(jobs), unit="pictures"):
            self._write(job.source, job.target)
        return 0

    def _write(self, source: Path, target: Path) -> None:
        from shacira_nerfstudio.codec import load_scene
        from shacira_nerfstudio.pictures.decoder import PixelDecoder, Region
        from shacira_nerfstudio.pictures.files import image_files

        decoder = PixelDecoder(load_scene(source, allow_truncated=self.allow_truncated))
        if decoder.layout.is_video:
            raise ValueError(f"expected a picture, got the video {source}")
        image_files.check_writable_format(target, decoder.layout)
        region = Region.of(decoder.layout, self.box, self._size(decoder.layout))
        width, height, channels = region.width, region.height, decoder.layout.channels
        if image_files.is_mapped(target) and width * height > image_files.LARGE_PIXELS:
            layout = dataclasses.replace(decoder.layout, width=width, height=height)
            image_files.write_bands(target, decoder.bands(region), layout)
        else:
            image_files.write_image(target, decoder.pixels(self.box, (width, height)))
        content = {"file": str(target), "width": width, "height": height, "channels": channels}
        text = f"{target}: {width}x{height} pixels, {channels} channels"
        _print(content, text, as_lines=self.json)

    def _size(self, layout: Any) -> tuple[int, int] | None:
        left, top, right, bottom = self.box or (0, 0, layout.width, layout.height)
        sides = right - left, bottom - top
        if min(sides) < 1:
            raise ValueError(f"expected a box of left,top,right,bottom, got {self.box}")
        if self.scale and (self.width or self.height):
            raise ValueError("expected --scale or --width and --height, got both")
        if not (self.scale >= 0 and self.width >= 0 and self.height >= 0):
            raise ValueError("expected --scale, --width and --height of 0 or more")
        if self.scale:
            return max(1, round(sides[0] * self.scale)), max(1, round(sides[1] * self.scale))
        if not (self.width or self.height):
            return None
        width = self.width or max(1, round(sides[0] * self.height / sides[1]))
        return width, self.height or max(1, round(sides[1] * self.width / sides[0]))


@dataclass
class SyntheticImage:
    """Write a picture of any size from a formula, to try what no memory holds."""

    output: Output
    """The file: NAME.npy or NAME.tif."""
    width: int = 16384
    """Pixels."""
    height: int = 16384
    """Pixels."""
    seed: int = 0
    """Of the picture."""

    def main(self) -> int:
        from shacira_nerfstudio.output_files import check_output_file
        from shacira_nerfstudio.pictures.files.image_files import is_mapped, write_bands
        from shacira_nerfstudio.pictures.files.synthetic import synthetic_bands
        from shacira_nerfstudio.pictures.layout import PixelLayout

        if not is_mapped(self.output):
            raise ValueError(f"expected a file ending in .npy or .tif, got {self.output}")
        layout = PixelLayout(self.width, self.height)
        check_output_file(self.output, 3 * layout.num_pixels)
        bands = synthetic_bands(self.width, self.height, seed=self.seed)
        write_bands(self.output, bands, layout)
        print(f"{self.output}: {self.width}x{self.height} pixels")
        return 0


@dataclass
class ViewImage:
    """Look at a picture or a video in a browser: move, zoom, level by level. Only what is on the
    screen is decoded, so that a picture may have any size."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """The .shacira file."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other machines in."""
    port: int = 8080
    """Port to listen at; 0 takes any that is free."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        from shacira_nerfstudio.pictures.view_server import PictureServer

        if not 0 <= self.port <= 65535:
            raise ValueError(f"expected a port from 0 to 65535, got {self.port}")
        with PictureServer(
            self.file, host=self.host, port=self.port, allow_truncated=self.allow_truncated
        ) as server:
            print(f"{self.file} at {server.url} (Ctrl-C ends)", flush=True)
            server.serve_forever()
        return 0


def _print(content: dict[str, Any], text: str, *, as_lines: bool) -> None:
    print(" ".join(as_json(content).split()) if as_lines else text, flush=True)


_ImageCommand: Any = command_union(
    {
        "compress": CompressImage,
        "decompress": DecompressImage,
        "view": ViewImage,
        "synthetic": SyntheticImage,
    }
)


@dataclass
class Image:
    """Pictures: compress them into .shacira files and back."""

    command: Annotated[_ImageCommand, tyro.conf.arg(name="")]  # pyright: ignore

    def main(self) -> int:
        return self.command.main() or 0


@dataclass
class CompressVideo(_Compress):
    """Compress videos: MP4, Y4M and the like, or folders of frames."""

    rate: float = 0.0
    """Frames per second; 0 takes the file's own, 24 for a folder."""

    def main(self) -> int:
        from shacira_nerfstudio.output_files import check_output_file, write_file
        from shacira_nerfstudio.pictures.compress import compress_pixels
        from shacira_nerfstudio.pictures.files.video_files import read_video
        from shacira_nerfstudio.progress import Progress

        options = self.options()
        if len(self.input) != 1:
            raise ValueError(f"expected one video or folder of frames, got {len(self.input)}")
        check_output_file(self.output)
        frames, layout = read_video(self.input[0], rate=self.rate)
        with Progress("compressing", options.effort.num_steps, unit="steps") as progress:
            done = compress_pixels(frames, layout, options, report=lambda *_: progress.advance())
        write_file(self.output, done.data)
        text = (
            f"{self.output}: {len(done.data):,} bytes for {layout.frames} frames, "
            f"{done.bits_per_pixel:.4f} bits per pixel, {done.psnr:.2f} dB, "
            f"{done.train_seconds:.0f} s"
        )
        _print({"file": str(self.output), **done.as_dict()}, text, as_lines=self.json)
        return 0


@dataclass
class DecompressVideo:
    """Write the frames of a .shacira file, all of them or a range."""

    input: Annotated[Path, Positional, arg(metavar="FILE")]
    """The .shacira file."""
    output: Output
    """A folder for PNG files, or a video: NAME.mp4, .mov, .mkv or .y4m."""
    frames: tuple[int, int] | None = None
    """First frame, and the one after the last; others are not decoded."""
    box: Box | None = None
    """Left, top, right and bottom of a part of each frame, in pixels."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""
    json: bool = False
    """Print JSON."""

    def main(self) -> int:
        from shacira_nerfstudio.codec import load_scene
        from shacira_nerfstudio.output_files import check_output_dir, check_output_file
        from shacira_nerfstudio.pictures.decoder import PixelDecoder, Region
        from shacira_nerfstudio.pictures.files import video_files
        from shacira_nerfstudio.progress import tracked

        decoder = PixelDecoder(load_scene(self.input, allow_truncated=self.allow_truncated))
        layout = decoder.layout
        if not layout.is_video:
            raise ValueError(f"expected a video, got the picture {self.input}")
        begin, end = self.frames or (0, layout.frames)
        if not 0 <= begin < end <= layout.frames:
            raise ValueError(f"expected frames within 0 to {layout.frames}, got {begin} {end}")
        region = Region.of(layout, self.box)
        pixels = (decoder.pixels(self.box, frame=frame) for frame in range(begin, end))
        frames = tracked(pixels, "decoding", total=end - begin, unit="frames")
        if self.output.suffix.lower() in video_files.ENDINGS:
            check_output_file(self.output)
            size, rate = (region.width, region.height), layout.frames_per_second
            count = video_files.write_video(self.output, frames, size=size, rate=rate)
        else:
            check_output_dir(self.output)
            video_files.check_frames_in(self.output, range(begin, end))
            count = video_files.write_frames(self.output, frames, first=begin)
        content = {"file": str(self.output), "frames": count}
        text = f"{self.output}: {count} frames of {region.width}x{region.height} pixels"
        _print(
            {**content, "width": region.width, "height": region.height}, text, as_lines=self.json
        )
        return 0


_VideoCommand: Any = command_union({"compress": CompressVideo, "decompress": DecompressVideo})


@dataclass
class Video:
    """Videos: compress them into .shacira files and back."""

    command: Annotated[_VideoCommand, tyro.conf.arg(name="")]  # pyright: ignore

    def main(self) -> int:
        return self.command.main() or 0
