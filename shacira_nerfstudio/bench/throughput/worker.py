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
from shacira_nerfstudio.viewer.scene_files import cameras_in, open_scene

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


def train_steps(
    data: str, dataparser: str | None, warmup_steps: int, num_steps: int
) -> dict[str, Any]:
    """Trains on a GPU, for whoever looks at it from outside."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = nerfstudio_side.our_trainer(
            Path(data), Path(folder), dataparser=dataparser, options={}, device="cuda"
        )
        nerfstudio_side.run_steps(trainer, 0, warmup_steps + num_steps)
    return {"steps": warmup_steps + num_steps}


def profile_steps(
    data: str, dataparser: str | None, warmup_steps: int = 300, num_steps: int = 50
) -> dict[str, Any]:
    """What steps on a GPU cost: by the clock, of the host alone, and by kernels."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with tempfile.TemporaryDirectory() as folder:
        # So few samples that the card is done before the host is: what is left is Python.
        small = {"sampling.target_num_samples": 4096}
        host_s, _ = _timed_steps(Path(data), Path(folder) / "small", dataparser, small, num_steps)
        seconds, trainer = _timed_steps(
            Path(data), Path(folder) / "full", dataparser, {}, num_steps, warmup_steps=warmup_steps
        )
        with torch.profiler.profile(activities=kinds) as found:
            nerfstudio_side.run_steps(trainer, warmup_steps + num_steps, num_steps)
            torch.cuda.synchronize()
    sampling: Any = trainer.pipeline.model
    kernels = [
        {"name": event.key, "count": event.count, "us_per_step": _device_us(event) / num_steps}
        for event in found.key_averages()
        if _device_us(event) > 0
    ]
    kernels.sort(key=lambda kernel: -kernel["us_per_step"])
    return {
        "step_s": seconds,
        "host_step_s": host_s,
        "device_step_s": sum(kernel["us_per_step"] for kernel in kernels) * 1e-6,
        "sampling": sampling.sampling.metrics(),
        "kernels": kernels[:20],
    }


def _timed_steps(
    data: Path,
    folder: Path,
    dataparser: str | None,
    options: dict[str, Any],
    num_steps: int,
    *,
    warmup_steps: int = 100,
) -> tuple[float, Any]:
    """Seconds of a step by the clock, and the trainer."""
    trainer = nerfstudio_side.our_trainer(
        data, folder, dataparser=dataparser, options=options, device="cuda"
    )
    nerfstudio_side.run_steps(trainer, 0, warmup_steps)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    nerfstudio_side.run_steps(trainer, warmup_steps, num_steps)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / num_steps, trainer


def _device_us(event: Any) -> float:
    """Microseconds of a kernel; operators of the host, which contain kernels, have none."""
    is_kernel = event.device_type == torch.autograd.DeviceType.CUDA
    return event.self_device_time_total if is_kernel else 0.0


def frames_per_second(file: str, side: int, num_frames: int) -> dict[str, Any]:
    """Pictures of a file from its own cameras, on a GPU."""
    packed, scene = open_scene(Path(file), "cuda")
    cameras = cameras_in(packed, Path(file))
    views = [cameras[i % len(cameras)].resized(width=side, height=side) for i in range(num_frames)]
    scene.render_view(views[0])
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for view in views:
        scene.render_view(view)
    seconds = time.perf_counter() - begin
    backend = scene.encoding.backend.name
    return {"frames_per_s": num_frames / seconds, "size": [side, side], "backend": backend}


TASKS = {
    "compile_time": compile_time,
    "train_memory": train_memory,
    "train_steps": train_steps,
    "profile_steps": profile_steps,
    "frames_per_second": frames_per_second,
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
