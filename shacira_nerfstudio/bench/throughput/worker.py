"""What has to run in a process of its own: first uses, and peaks of memory.

``python -m shacira_nerfstudio.bench.throughput.worker TASK JSON`` prints one line of JSON last.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from shacira_nerfstudio.bench.throughput import nerfstudio_side
from shacira_nerfstudio.bench.throughput.ops import OURS_TORCH_THREADS
from shacira_nerfstudio.bench.throughput.timing import peak_rss_bytes
from shacira_nerfstudio.scenes.demo_scene import write_demo_scene

TINY = {
    "grid.max_res": 128,
    "grid.log2_hashmap_size": 12,
    "sampling.occupancy_resolution": 32,
    "sampling.occupancy_every": 1,
    "sampling.occupancy_warmup": 1,
    "sampling.target_num_samples": 4096,
}
"""A grid that takes no time, so that what is left of a first use is compiling."""
OTHER_SIZES = {
    "grid.max_res": 96,
    "grid.log2_hashmap_size": 11,
    "sampling.target_num_samples": 3000,
}


def compile_time() -> dict[str, Any]:
    """Seconds of everything's first use, and of the same with other sizes: train, code, render."""

    def everything(folder: Path, options: dict[str, Any]) -> float:
        trainer = nerfstudio_side.our_trainer(
            folder / "scene", folder / "run", dataparser="rtmv-data", options={**TINY, **options}
        )
        begin = time.perf_counter()
        nerfstudio_side.run_steps(trainer, 0, 3)
        nerfstudio_side.render_own_file(trainer)
        return time.perf_counter() - begin

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_scene(folder / "scene", num_views=4, size=16)
        first = everything(folder, {})
        again = everything(folder, {})
        other = everything(folder, OTHER_SIZES)
    return {"first_s": first, "again_s": again, "other_sizes_s": other, "backend": "auto on cpu"}


def train_memory(
    data: str, dataparser: str | None, warmup_steps: int, num_steps: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Seconds of each step and the peak of memory of training with some options."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = nerfstudio_side.our_trainer(
            Path(data), Path(folder), dataparser=dataparser, options=options
        )
        setup_peak = peak_rss_bytes()  # the host reads all images, then joins them in a copy
        torch.set_num_threads(OURS_TORCH_THREADS)
        nerfstudio_side.run_steps(trainer, 0, warmup_steps)
        records = nerfstudio_side.run_steps(trainer, warmup_steps, num_steps)
    seconds = [record.seconds for record in records]
    model: Any = trainer.pipeline.model
    encoding = model.scene.encoding
    return {
        "seconds": seconds,
        "setup_peak_rss_bytes": setup_peak,
        "mean_step_s": statistics.mean(seconds),
        "samples_per_step": statistics.mean(record.num_samples for record in records),
        "num_entries": encoding.grid.num_entries,
        "peak_rss_bytes": peak_rss_bytes(),
        "backend": encoding.backend.name,
    }


TASKS = {"compile_time": compile_time, "train_memory": train_memory}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
