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


_SHORT = {"networks.precision": "auto"}
_PROFILED: dict[str, dict[str, Any]] = {
    "float32": {},
    "fused": {**_SHORT, "networks.fused": True},
    "without_refreshes": {**_SHORT, "rate.refresh_steps": 1_000_000},
    # So few samples that the card is done before the host is: what is left is Python.
    "host": {**_SHORT, "sampling.target_num_samples": 4096},
    "default": _SHORT,
}
"""Settings of training that a profile compares, by name; kernels are those of the last."""
_KERNEL_STEPS = 50


def profile_steps(
    data: str, dataparser: str | None, warmup_steps: int = 300, num_steps: int = 500
) -> dict[str, Any]:
    """What steps on a GPU cost: by the clock, of the host alone, and by kernels.

    Args:
        num_steps: That are timed; two refreshes of code lengths begin in them.
    """
    figures: dict[str, Any] = {}
    trainer: Any = None
    with tempfile.TemporaryDirectory() as folder:
        for name, options in _PROFILED.items():
            where = Path(data), Path(folder) / name
            trainer = nerfstudio_side.our_trainer(
                *where, dataparser=dataparser, options=options, device="cuda"
            )
            nerfstudio_side.run_steps(trainer, 0, warmup_steps)
            figures |= _timed_steps(trainer, name, warmup_steps, num_steps)
        kernels = _kernels(trainer, warmup_steps + num_steps)
    share = 1 - figures["without_refreshes_step_s"] / figures["default_step_s"]
    return {
        **figures,
        "refresh_share": share,
        "device_step_s": sum(kernel["us_per_step"] for kernel in kernels) * 1e-6,
        "sampling": trainer.pipeline.model.sampling.metrics(),
        "kernels": kernels[:20],
    }


def _timed_steps(trainer: Any, name: str, begin: int, count: int) -> dict[str, float]:
    """Seconds of a step by the clock, and samples with gradients a second."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    records = nerfstudio_side.run_steps(trainer, begin, count)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    samples = sum(record.num_samples for record in records)
    return {f"{name}_step_s": seconds / count, f"{name}_samples_per_s": samples / seconds}


def _kernels(trainer: Any, begin: int) -> list[dict[str, Any]]:
    """Those of a step, slowest first."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as found:
        nerfstudio_side.run_steps(trainer, begin, _KERNEL_STEPS)
        torch.cuda.synchronize()
    kernels = [
        {
            "name": event.key,
            "per_step": event.count / _KERNEL_STEPS,
            "us_per_step": _device_us(event) / _KERNEL_STEPS,
        }
        for event in found.key_averages()
        if _device_us(event) > 0
    ]
    return sorted(kernels, key=lambda kernel: -kernel["us_per_step"])


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
