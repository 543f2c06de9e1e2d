"""What has to run in a process of its own: first uses, and peaks of memory.

``python -m shacira_nerfstudio.bench.throughput.worker TASK JSON`` prints one line of JSON last.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shacira_nerfstudio.bench.throughput.timing import peak_rss_bytes

TINY = {
    "max_res": 128,
    "log2_hashmap_size": 12,
    "occupancy_resolution": 32,
    "occupancy_every": 1,
    "occupancy_warmup": 1,
    "target_num_samples": 4096,
}
"""A grid that takes no time, so that what is left of a first use is compiling."""


def first_frame(file: str) -> dict[str, Any]:
    """Seconds from the path of a file to its first view, at the size it was taken."""
    import numpy as np  # noqa: F401  imports do not count
    import torch  # noqa: F401

    from shacira_nerfstudio.backends import get_backend
    from shacira_nerfstudio.codec import decode_scene
    from shacira_nerfstudio.model.pinhole import background_fill, render_view
    from shacira_nerfstudio.compression.pack import unpack_scene

    backend = get_backend("auto", "cpu")
    begin = time.perf_counter()
    data = Path(file).read_bytes()
    scene = decode_scene(data)
    decoded = time.perf_counter()
    unpacked = unpack_scene(scene, backend)
    cameras = scene.cameras
    if cameras is None:
        raise ValueError(f"expected stored cameras in {file}, found none")
    size = tuple(int(side) for side in cameras.sizes[0])
    image = render_view(
        unpacked.field,
        unpacked.occupied,
        unpacked.march,
        cameras.camera_to_worlds[0],
        cameras.intrinsics[0],
        (size[0], size[1]),
        background=background_fill(unpacked.background, unpacked.background_color),
        early_stop=unpacked.early_stop,
    )
    end = time.perf_counter()
    return {
        "first_frame_s": end - begin,
        "decode_s": decoded - begin,
        "num_rays": size[0] * size[1],
        "file_bytes": len(data),
        "mean_color": float(image.mean()),
        "peak_rss_bytes": peak_rss_bytes(),
        "backend": backend.name,
    }


def compile_time() -> dict[str, Any]:
    """Seconds of everything's first use, and of the same with other sizes: train, code, render."""
    from shacira_nerfstudio.scenes.demo_scene import write_demo_scene
    from shacira_nerfstudio.bench.throughput import nerfstudio_side as bench_host

    def everything(folder: Path, **options: Any) -> float:
        trainer = bench_host.our_trainer(
            folder / "scene", folder / "run", dataparser="rtmv-data", **{**TINY, **options}
        )
        begin = time.perf_counter()
        bench_host.run_steps(trainer, 0, 3)
        bench_host.render_own_file(trainer)
        return time.perf_counter() - begin

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_scene(folder / "scene", num_views=4, size=16)
        first = everything(folder)
        again = everything(folder)
        other = everything(folder, max_res=96, log2_hashmap_size=11, target_num_samples=3000)
    return {"first_s": first, "again_s": again, "other_sizes_s": other}


def train_memory(
    data: str, dataparser: str | None, warmup_steps: int, num_steps: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Seconds of each step and the peak of memory of training with some options."""
    import statistics

    import torch

    from shacira_nerfstudio.bench.throughput.ops import OURS_TORCH_THREADS
    from shacira_nerfstudio.bench.throughput import nerfstudio_side as bench_host

    with tempfile.TemporaryDirectory() as folder:
        trainer = bench_host.our_trainer(Path(data), Path(folder), dataparser=dataparser, **options)
        setup_peak = peak_rss_bytes()  # the host reads all images, then joins them in a copy
        torch.set_num_threads(OURS_TORCH_THREADS)
        bench_host.run_steps(trainer, 0, warmup_steps)
        records = bench_host.run_steps(trainer, warmup_steps, num_steps)
    seconds = [record.seconds for record in records]
    model: Any = trainer.pipeline.model
    return {
        "seconds": seconds,
        "setup_peak_rss_bytes": setup_peak,
        "mean_step_s": statistics.mean(seconds),
        "samples_per_step": statistics.mean(record.num_samples for record in records),
        "num_entries": model.field.encoding.grid.num_entries,
        "peak_rss_bytes": peak_rss_bytes(),
        "backend": model.backend.name,
    }


TASKS = {"first_frame": first_frame, "compile_time": compile_time, "train_memory": train_memory}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
