"""Sub-commands of `shacira` that need nothing but a .shacira file: no data set, no Nerfstudio.

Each is its options as a dataclass and ``main``, which returns the exit status. Everything heavy is
imported there: `shacira --help` must stay light.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from shacira_nerfstudio.codec import CameraSet, PackedScene

File = Annotated[Path, Positional, arg(metavar="FILE")]
Output = Annotated[Path, Positional, arg(metavar="OUT")]


@dataclass
class Info:
    """Show what a file holds and where its bytes go."""

    file: File
    """The .shacira file."""
    json: bool = False
    """Print JSON instead of a table."""

    def main(self) -> int:
        from shacira_nerfstudio.codec import describe

        facts = describe(self.file.read_bytes())
        print(_as_json(facts) if self.json else _info_text(facts))
        return 0


@dataclass
class Verify:
    """Check a file: checksums, digest of the symbols, and that our encoder writes the same bytes.

    The exit status is 0 if it holds and 1 if not.
    """

    file: File
    """The .shacira file."""
    json: bool = False
    """Print JSON."""

    def main(self) -> int:
        from shacira_nerfstudio.codec import SceneFormatError, verify

        data, reason = self.file.read_bytes(), None
        try:
            verify(data)
        except SceneFormatError as error:
            reason = str(error)
        if self.json:
            print(_as_json({"valid": reason is None, "reason": reason, "bytes": len(data)}))
        else:
            print(f"{self.file}: {'valid' if reason is None else 'not valid: ' + reason}")
        return 0 if reason is None else 1


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

    def main(self) -> int:
        from shacira_nerfstudio.codec import decode_scene, save_scene, truncate

        if self.max_level is None and self.max_bytes is None:
            raise ValueError("expected --max-level or --max-bytes, got neither")
        data = self.file.read_bytes()
        shorter = truncate(data, max_level=self.max_level, max_bytes=self.max_bytes)
        scene = decode_scene(shorter)
        save_scene(self.output, shorter)
        kept = f"{scene.num_coded_levels} of {scene.grid.num_levels} levels"
        print(f"{self.output}: {kept}, {len(shorter):,} of {len(data):,} bytes")
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

    def main(self) -> int:
        from shacira_nerfstudio.codec import decode_scene

        data = [path.read_bytes() for path in (self.first, self.second)]
        scenes = [decode_scene(part) for part in data]
        found = compare_scenes(*scenes)
        facts = {
            "same_scene": not found,
            "same_bytes": data[0] == data[1],
            "bytes": [len(part) for part in data],
            "differences": found,
        }
        if self.json:
            print(_as_json(facts))
        else:
            print(f"bytes: {len(data[0]):,} and {len(data[1]):,}")
            for name, difference in found.items():
                print(f"{name}: {difference}")
            if not found:
                print("same scene" + (", same bytes" if facts["same_bytes"] else ", other bytes"))
        return 1 if found else 0


@dataclass
class Decompress:
    """Write what a file holds as plain arrays, for numpy.load."""

    file: File
    """The .shacira file."""
    output: Output
    """The .npz file to write."""

    def main(self) -> int:
        import numpy as np

        from shacira_nerfstudio.codec import load_scene

        if self.output.suffix != ".npz":
            raise ValueError(f"expected a name that ends in .npz, got {self.output}")
        arrays = scene_arrays(load_scene(self.file))
        np.savez_compressed(self.output, **arrays)
        for name, array in arrays.items():
            print(f"{name}: {array.dtype} {list(array.shape)}")
        return 0


@dataclass
class Render:
    """Render the cameras that are stored in a file, as PNG images."""

    file: File
    """The .shacira file."""
    output_dir: Path
    """Folder for 00000.png, 00001.png, ..."""
    views: int = 0
    """Number of cameras, evenly spread; 0 means all."""
    width: int | None = None
    """Pixels per row; the camera's own by default, or as --height demands."""
    height: int | None = None
    """Rows; the camera's own by default, or as --width demands."""

    def main(self) -> int:
        import numpy as np
        from PIL import Image

        from shacira_nerfstudio.backends import get_backend
        from shacira_nerfstudio.codec import load_scene
        from shacira_nerfstudio.model.pinhole import background_fill, render_view
        from shacira_nerfstudio.pack import unpack_scene

        scene = unpack_scene(load_scene(self.file), get_backend("auto", "cpu"))
        cameras = scene.scene.cameras
        if cameras is None:
            raise ValueError(f"expected stored cameras in {self.file}, found none")
        if self.views < 0:
            raise ValueError(f"expected --views of 0 or more, got {self.views}")
        total = len(cameras.sizes)
        count = min(self.views or total, total)
        chosen = np.linspace(0, total - 1, count).round().astype(int)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for number, index in enumerate(chosen):
            intrinsics, size = scaled_optics(cameras, int(index), self.width, self.height)
            image = render_view(
                scene.field,
                scene.occupied,
                scene.march,
                cameras.camera_to_worlds[index],
                intrinsics,
                size,
                background=background_fill(scene.background, scene.background_color),
                early_stop=scene.early_stop,
            )
            pixels = (image.numpy() * 255 + 0.5).astype(np.uint8)
            path = self.output_dir / f"{number:05d}.png"
            Image.fromarray(pixels).save(path)
            print(path)
        return 0


def scaled_optics(
    cameras: CameraSet, index: int, width: int | None, height: int | None
) -> tuple[Any, tuple[int, int]]:
    """Intrinsics and size of a stored camera at another resolution; one given side keeps the
    shape."""
    own = [int(side) for side in cameras.sizes[index]]
    if width is None and height is None:
        width, height = own
    elif width is None or height is None:
        factor = width / own[0] if width is not None else (height or 0) / own[1]
        width = width if width is not None else max(1, round(own[0] * factor))
        height = height if height is not None else max(1, round(own[1] * factor))
    fx, fy, cx, cy = cameras.intrinsics[index]
    across, down = width / own[0], height / own[1]
    return (fx * across, fy * down, cx * across, cy * down), (width, height)


def scene_arrays(scene: PackedScene) -> dict[str, Any]:
    """A scene as named arrays; weights are floats."""
    import numpy as np

    arrays = {
        "symbols": scene.symbols,
        "resolutions": np.array(scene.grid.resolutions, np.int64),
        "table_sizes": np.array(scene.grid.table_sizes, np.int64),
        "offsets": np.array(scene.grid.offsets, np.int64),
    }
    if scene.occupancy is not None:
        arrays["occupancy"] = scene.occupancy
    if scene.rendering is not None:
        arrays["box"] = scene.rendering.box
    if scene.cameras is not None:
        for name in ("camera_to_worlds", "intrinsics", "sizes"):
            arrays[f"cameras.{name}"] = getattr(scene.cameras, name)
    for name, tensor in scene.weights.items():
        arrays[f"weights.{name}"] = tensor.dequantize()
    return arrays


def compare_scenes(a: PackedScene, b: PackedScene) -> dict[str, Any]:
    """What differs between two scenes, by name; empty if nothing does."""
    found: dict[str, Any] = {}
    for name in ("kind", "architecture", "grid", "num_levels_present", "rendering", "meta"):
        first, second = getattr(a, name), getattr(b, name)
        if first != second:
            found[name] = f"{first} and {second}"
    if (a.cameras is None) != (b.cameras is None) or a.cameras != b.cameras:
        counts = [0 if s.cameras is None else len(s.cameras.sizes) for s in (a, b)]
        found["cameras"] = f"{counts[0]} and {counts[1]} cameras, not the same"
    for name in ("symbols", "occupancy"):
        difference = _compare_arrays(getattr(a, name), getattr(b, name))
        if difference:
            found[name] = difference
    for name in sorted({*a.weights, *b.weights}):
        tensors = [scene.weights.get(name) for scene in (a, b)]
        if tensors[0] != tensors[1]:
            floats = [None if tensor is None else tensor.dequantize() for tensor in tensors]
            found[f"weights.{name}"] = _compare_arrays(*floats) or "other steps, same values"
    return found


def _compare_arrays(a: Any, b: Any) -> str:
    """In words, empty if equal."""
    if a is None or b is None:
        return "" if a is b else f"{'absent' if a is None else 'there'} in the first file only"
    if a.shape != b.shape:
        return f"shapes {list(a.shape)} and {list(b.shape)}"
    count = int((a != b).sum())
    largest = abs(a.astype(float) - b.astype(float)).max(initial=0.0)
    return f"{count:,} of {a.size:,} differ, at most by {largest:.6g}" if count else ""


def _as_json(facts: Any) -> str:
    return json.dumps(facts, indent=2, sort_keys=True)


def _info_text(facts: dict[str, Any]) -> str:
    total = facts["bytes"]
    lines = [f"{'total':<12}{total:>12,} bytes"]
    for part, count in facts["bytes_by_part"].items():
        lines.append(f"{part:<12}{count:>12,} bytes {100 * count / total:5.1f} %")
    lines.append(f"format version {facts['version']}, {facts['head']['kind']}")
    lines.append(
        f"{facts['bits_per_latent']:.3f} bits per latent, "
        f"{facts['bits_per_reached_latent']:.3f} per reached one; {facts['num_latents']:,} latents,"
        f" {facts['num_reached_latents']:,} reached, {facts['num_nonzero_latents']:,} not 0"
    )
    for level, size in enumerate(facts["bytes_by_level"]):
        lines.append(
            f"level {level:<2} resolution {facts['resolutions'][level]:>6} "
            f"entries {facts['table_sizes'][level]:>10,} bytes {size:>10,}"
        )
    lines.append(f"{facts['num_cameras']} cameras, digest {facts['digest']}")
    lines += [f"{key}: {value}" for key, value in sorted(facts["meta"].items())]
    return "\n".join(lines)
