"""Sub-commands of `shacira` that need nothing but a .shacira file: no data set, no Nerfstudio.

Each is its options as a dataclass and ``main``, which returns the exit status. Everything heavy is
imported there: `shacira --help` must stay light.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from shacira_nerfstudio.cli.file_lists import (
    Files,
    find_files,
    form_of,
    is_list,
    list_text,
    num_failed,
    printable,
    rows_of,
)
from shacira_nerfstudio.output_files import check_output_file

File = Annotated[Path, Positional, arg(metavar="FILE")]
Output = Annotated[Path, Positional, arg(metavar="OUT")]


@dataclass
class Info:
    """Show what a file holds and where its bytes go; or of several files and all in folders, one
    row each, which tells less and decodes no latents. The exit status is 1 if some could not be
    read."""

    files: Files
    """.shacira files, and folders of such files."""
    json: bool = False
    """Print JSON instead of a table; of several files, one object a line."""
    csv: bool = False
    """Print rows as CSV."""
    plot: Path | None = None
    """PNG file to draw: bytes by part and by level, of one file."""
    strip: Path | None = None
    """PNG file to draw: what each level adds to the view of a stored camera, and its bytes."""
    camera: int = 0
    """Which of the stored cameras --strip looks through, from 0."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        if self.csv or is_list(self.files):
            return self._print_list()
        from shacira_nerfstudio.codec import describe

        for path in (self.plot, self.strip):
            if path is not None:
                check_output_file(path)
        (file,) = self.files
        data = file.read_bytes()
        description = describe(data, allow_truncated=self.allow_truncated)
        if self.plot is not None:
            from shacira_nerfstudio.viewer.pictures.byte_plot import write_byte_plot

            write_byte_plot(self.plot, description, printable(file.name))
        if self.strip is not None:
            self._write_strip(self.strip, file, data, description)
        print(as_json(description) if self.json else _info_text(description))
        return 0

    def _print_list(self) -> int:
        from shacira_nerfstudio.codec.file_summary import summarize

        if self.plot is not None or self.strip is not None:
            raise ValueError("expected one file to draw, got a list of files")

        def measure(path: Path) -> dict[str, Any]:
            return summarize(path.read_bytes(), allow_truncated=self.allow_truncated)

        rows = rows_of(find_files(self.files), measure, "reading")
        print(list_text(rows, form_of(json=self.json, csv=self.csv)))
        return 1 if num_failed(rows) else 0

    def _write_strip(
        self, path: Path, file: Path, data: bytes, description: dict[str, Any]
    ) -> None:
        from shacira_nerfstudio.backends import get_backend
        from shacira_nerfstudio.codec import decode_scene
        from shacira_nerfstudio.compression.pack import stored_cameras, unpack_scene
        from shacira_nerfstudio.viewer.pictures.level_strip import write_level_strip

        packed = decode_scene(data, allow_truncated=self.allow_truncated)
        cameras = stored_cameras(packed.cameras)
        if not 0 <= self.camera < len(cameras):
            found = f"--camera {self.camera}" if cameras else "no camera in it"
            raise ValueError(f"expected one of {len(cameras)} cameras of {file}, got {found}")
        scene = unpack_scene(packed, get_backend("auto", "cpu"))
        title = printable(file.name)
        write_level_strip(path, scene, cameras[self.camera], description, title=title)


@dataclass
class Verify:
    """Check a file: checksums, digest of the symbols, and that our encoder writes the same bytes;
    or several files and all in folders, one row each.

    The exit status is 0 if it holds for all and 1 if not.
    """

    files: Files
    """.shacira files, and folders of such files."""
    json: bool = False
    """Print JSON; of several files, one object a line."""
    csv: bool = False
    """Print rows as CSV."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        if self.csv or is_list(self.files):
            rows = rows_of(find_files(self.files), self._measure, "checking")
            print(list_text(rows, form_of(json=self.json, csv=self.csv)))
            return 0 if all(row.get("valid") for row in rows) else 1
        (file,) = self.files
        row = self._measure(file)
        if self.json:
            print(as_json(row))
        else:
            print(f"{file}: {'valid' if row['valid'] else 'not valid: ' + row['reason']}")
        return 0 if row["valid"] else 1

    def _measure(self, path: Path) -> dict[str, Any]:
        from shacira_nerfstudio.codec import SceneFormatError, verify

        data, reason = path.read_bytes(), None
        try:
            verify(data, allow_truncated=self.allow_truncated)
        except SceneFormatError as error:
            reason = str(error)
        return {"valid": reason is None, "bytes": len(data), "reason": reason}


@dataclass
class Truncate:
    """Cut off the finest levels: a smaller, coarser file that is itself valid."""

    file: File
    """The .shacira file; its end may be missing."""
    output: Output
    """The file to write."""
    max_level: int | None = None
    """Finest level to keep, from 0."""
    max_bytes: int | None = None
    """Keep as many levels as fit."""
    json: bool = False
    """Print JSON."""

    def main(self) -> int:
        from shacira_nerfstudio.codec import decode_scene, save_scene, truncate

        if self.max_level is None and self.max_bytes is None:
            raise ValueError("expected --max-level or --max-bytes, got neither")
        check_output_file(self.output, self.file.stat().st_size)
        data = self.file.read_bytes()
        shorter = truncate(data, max_level=self.max_level, max_bytes=self.max_bytes)
        scene = decode_scene(shorter)
        save_scene(self.output, shorter)
        content = {
            "file": str(self.output),
            "num_levels_present": scene.num_coded_levels,
            "num_levels": scene.grid.num_levels,
            "bytes": len(shorter),
            "bytes_before": len(data),
        }
        levels = f"{scene.num_coded_levels} of {scene.grid.num_levels} levels"
        text = f"{self.output}: {levels}, {len(shorter):,} of {len(data):,} bytes"
        print(as_json(content) if self.json else text)
        return 0


@dataclass
class Diff:
    """Compare two files by what they hold. The exit status is 0 if both hold the same, else 1."""

    first: File
    """A .shacira file."""
    second: File
    """Another one."""
    json: bool = False
    """Print JSON."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        from shacira_nerfstudio.codec import decode_scene, diff

        data = [path.read_bytes() for path in (self.first, self.second)]
        scenes = [decode_scene(part, allow_truncated=self.allow_truncated) for part in data]
        differences = diff(*scenes)
        has_same_bytes = data[0] == data[1]
        if self.json:
            content = {
                "same_scene": not differences,
                "same_bytes": has_same_bytes,
                "bytes": [len(part) for part in data],
                "differences": differences,
            }
            print(as_json(content))
        else:
            print(f"bytes: {len(data[0]):,} and {len(data[1]):,}")
            for name, difference in differences.items():
                print(printable(f"{name}: {difference}"))
            if not differences:
                print("same scene" + (", same bytes" if has_same_bytes else ", other bytes"))
        return 1 if differences else 0


@dataclass
class Decompress:
    """Write what a file holds as plain arrays: symbols as integers, weights as floats."""

    file: File
    """The .shacira file."""
    output: Output
    """The file to write: NAME.npz for numpy.load, or NAME.safetensors."""
    json: bool = False
    """Print JSON."""
    allow_truncated: bool = False
    """Accept a file whose end is missing, as far as its last whole level."""

    def main(self) -> int:
        from shacira_nerfstudio.codec import load_scene
        from shacira_nerfstudio.codec.array_export import save_arrays

        check_output_file(self.output, 4 * self.file.stat().st_size)
        scene = load_scene(self.file, allow_truncated=self.allow_truncated)
        arrays = save_arrays(self.output, scene)
        if self.json:
            shapes = {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()}
            print(as_json({"file": str(self.output), "arrays": shapes}))
        else:
            for name, array in arrays.items():
                print(f"{name}: {array.dtype} {list(array.shape)}")
        return 0


def as_json(content: Any) -> str:
    """For people and programs: indented, with sorted keys."""
    return json.dumps(content, indent=2, sort_keys=True)


def _resolution(axes: list[int]) -> str:
    """One number where all axes have it, as those of a radiance field."""
    return f"{axes[0]:,}" if len(set(axes)) == 1 else "x".join(map(str, axes))


def _info_text(info: dict[str, Any]) -> str:
    total = info["bytes"]
    lines = [f"{'total':<12}{total:>12,} bytes"]
    for part, count in info["bytes_by_part"].items():
        lines.append(f"{part:<12}{count:>12,} bytes {100 * count / total:5.1f} %")
    lines.append(f"format version {info['version']}, {info['kind']}")
    lines.append(
        f"{info['bits_per_latent']:.3f} bits per latent, "
        f"{info['bits_per_reached_latent']:.3f} per reached one; {info['num_latents']:,} latents,"
        f" {info['num_reached_latents']:,} reached, {info['num_nonzero_latents']:,} not 0"
    )
    lines.append(
        "level    resolution    entries reached    bytes  bits/latent up to here        PSNR"
    )
    for level, size in enumerate(info["bytes_by_level"]):
        psnr = f"{info['prefix_psnr'][level]:>9.2f} dB" if info["prefix_psnr"] else "not measured"
        lines.append(
            f"{level:>5}{_resolution(info['resolutions'][level]):>14}"
            f"{info['table_sizes'][level]:>11,}"
            f"{info['reached_entries_by_level'][level] / info['table_sizes'][level]:>8.0%}"
            f"{size:>9,}{info['bits_per_latent_by_level'][level]:>13.3f}"
            f"{info['prefix_bytes'][level]:>11,} {psnr}"
        )
    missing = info["num_levels"] - info["num_levels_present"]
    if missing:
        reason = "the end is missing" if info["is_truncated"] else "a shortened file"
        lines.append(f"{missing} of {info['num_levels']} levels are missing: {reason}")
    cameras = info["num_cameras"] or "no"
    lines.append(f"{cameras} cameras, digest {info['digest']}")
    if info["kind"] != "radiance_field":
        lines[-1] = f"{_pixel_text(info)}, digest {info['digest']}"
    elif not info["num_cameras"]:
        lines.append("without cameras `shacira render` and an import without --data have no view")
    lines += [printable(f"{key}: {value}") for key, value in sorted(info["meta"].items())]
    return "\n".join(lines)


def _pixel_text(info: dict[str, Any]) -> str:
    """What a picture or a video has of pixels, as far as its head says so."""
    sizes = {name: info["architecture"].get(name) for name in ("width", "height", "channels")}
    width, height, channels = sizes.values()
    if not all(isinstance(size, int) and size > 0 for size in sizes.values()):
        return "pixels of no known size"
    frames = info["architecture"].get("frames", 1)
    rate = 8 * info["bytes"] / (width * height * max(frames, 1))
    of_frames = f"{frames} frames of " if info["kind"] == "video" else ""
    return f"{of_frames}{width}x{height} pixels, {channels} channels, {rate:.4f} bits per pixel"
