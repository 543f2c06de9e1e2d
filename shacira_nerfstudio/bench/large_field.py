"""What a large field takes to be exported and opened again: seconds and memory of one process.

    python -m shacira_nerfstudio.bench.large_field --folder OUT [--log2-hashmap-size 22]
        [--num-levels 22] [--max-res 8192] [--occupancy-resolution 256] [--stage export|open]

The field is synthetic, 62 million latents by default. Its integers have the statistics of trained
ones: nearly all of a fine level are 0 and most others ±1, coarse levels are busy; what is occupied
is the surface of some balls. ``export`` packs, encodes, checks (decodes and encodes again) and
writes, as `shacira export` does; ``open`` is what everybody else does with the file: read, decode,
make a scene of it. Each stage is a process of its own, and prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from shacira_nerfstudio.backends import MarchSettings, get_backend
from shacira_nerfstudio.codec import decode_scene, encode_scene, load_scene
from shacira_nerfstudio.compression.pack import pack_scene, unpack_scene
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField
from shacira_nerfstudio.model.scene import Background, RadianceScene, SceneSettings
from shacira_nerfstudio.output_files import write_file

_COARSE_SHARE, _FINE_SHARE = 0.9, 0.04
"""Of latents that are not 0, at the coarsest and at the finest level."""
_NUM_BALLS = 40
NAME = "large.shacira"
Result = TypeVar("Result")


class Stopwatch:
    """Seconds of the steps of a stage."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], Result]) -> Result:
        """Does the work, and notes its seconds by the clock and of all cores."""
        begin, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.figures[f"{name}_s"] = round(time.perf_counter() - begin, 2)
        self.figures[f"{name}_cpu_s"] = round(time.process_time() - cpu, 2)
        return result


def synthetic_occupancy(resolution: int, seed: int = 0) -> np.ndarray:
    """Surfaces of balls, two cells thick; bool [G, G, G]."""
    random = np.random.default_rng(seed)
    axis = (np.arange(resolution) + 0.5) / resolution
    occupied = np.zeros((resolution,) * 3, dtype=bool)
    for _ in range(_NUM_BALLS):
        radius = random.uniform(0.03, 0.2)
        center = random.uniform(radius, 1 - radius, 3)
        spans = [(axis - c) ** 2 for c in center]
        distance = np.sqrt(spans[0][:, None, None] + spans[1][:, None] + spans[2])
        occupied |= np.abs(distance - radius) < 1 / resolution
    return occupied


def synthetic_latents(grid: GridSpec, seed: int = 1) -> torch.Tensor:
    """Whole numbers as floats, [E, 1]: magnitudes are geometric."""
    generator = torch.Generator().manual_seed(seed)
    parts, last = [], max(grid.num_levels - 1, 1)
    for level, size in enumerate(grid.table_sizes):
        share = _COARSE_SHARE * (_FINE_SHARE / _COARSE_SHARE) ** (level / last)
        # P(magnitude >= k) = share^k up to the sign: a busy level has larger ones, too.
        uniform = torch.rand(size, 1, generator=generator).clamp_min(1e-7)
        magnitudes = (uniform.log() / np.log(share)).floor_()
        signs = torch.rand(size, 1, generator=generator).sub_(0.5).sign_()
        parts.append(magnitudes.mul_(signs))
    return torch.cat(parts)


def synthetic_scene(grid: GridSpec, occupancy_resolution: int) -> RadianceScene:
    """A scene with these latents, quantised, and networks as they are initialised."""
    box = (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)
    march = MarchSettings("affine", box, near=0.1, far=9.0, step_size=1e-3)
    field = RadianceField.create(
        grid, FieldShape(), get_backend("auto", "cpu"), latent_dim=1, features_per_level=2
    )
    with torch.no_grad():
        field.encoding.latents.copy_(synthetic_latents(grid))  # pyright: ignore
    occupancy = OccupancyGrid(occupancy_resolution)
    occupancy.occupied = torch.from_numpy(synthetic_occupancy(occupancy_resolution))
    settings = SceneSettings(march, march, Background.named("black"), 1e-4)
    return RadianceScene(field, occupancy, settings).eval()


def export(grid: GridSpec, occupancy_resolution: int, path: Path) -> dict[str, Any]:
    """Makes the scene and its file; figures of all but the making."""
    watch = Stopwatch()
    scene = synthetic_scene(grid, occupancy_resolution)
    packed = watch.time("pack", lambda: pack_scene(scene))
    data = watch.time("encode", lambda: encode_scene(packed))
    decoded = watch.time("decode", lambda: decode_scene(data))
    if decoded != packed or watch.time("check", lambda: encode_scene(decoded)) != data:
        raise ValueError("expected the file to be the scene, found another one")
    write_file(path, data)
    return {
        "num_latents": grid.num_entries,
        "nonzero_fraction": float(np.count_nonzero(packed.symbols) / packed.symbols.size),
        "occupied_fraction": float(scene.occupancy.occupied_fraction),
        "bytes": len(data),
        **watch.figures,
    }


def open_file(path: Path) -> dict[str, Any]:
    """Figures of reading, decoding and unpacking."""
    watch = Stopwatch()
    packed = watch.time("load", lambda: load_scene(path))
    backend = get_backend("auto", "cpu")
    watch.time("unpack", lambda: unpack_scene(packed, backend))
    return {"num_latents": packed.grid.num_entries, **watch.figures}


def peak_rss_bytes() -> int:
    """Of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one stage and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--stage", choices=("export", "open"), default="export")
    parser.add_argument("--log2-hashmap-size", type=int, default=22)
    parser.add_argument("--num-levels", type=int, default=22)
    parser.add_argument("--max-res", type=int, default=8192)
    parser.add_argument("--occupancy-resolution", type=int, default=256)
    options = parser.parse_args(arguments)
    path = options.folder / NAME
    if options.stage == "export":
        options.folder.mkdir(parents=True, exist_ok=True)
        grid = GridSpec.create(
            num_levels=options.num_levels,
            max_res=options.max_res,
            log2_hashmap_size=options.log2_hashmap_size,
        )
        figures = export(grid, options.occupancy_resolution, path)
    else:
        figures = open_file(path)
    total = sum(v for k, v in figures.items() if k.endswith("_s") and not k.endswith("_cpu_s"))
    figures |= {"total_s": round(total, 2), "peak_rss_bytes": peak_rss_bytes()}
    print(json.dumps({"stage": options.stage, **figures}))


if __name__ == "__main__":
    main()
