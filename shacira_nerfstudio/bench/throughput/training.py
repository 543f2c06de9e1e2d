"""Whole training steps and whole views: our method beside nerfacto, each through the host's own
trainer.

The occupancy grid settles first: steps of a grid that is still full are not what a run is made of.
Types of the host are known in :mod:`nerfstudio_side` only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from shacira_nerfstudio.bench.environment import num_cores
from shacira_nerfstudio.bench.throughput.ops import OURS_TORCH_THREADS
from shacira_nerfstudio.bench.throughput.timing import (
    Row,
    Side,
    Timed,
    check_close,
    check_relative,
    rate_row,
)

BLOCK = 16
"""Steps of ours that are timed together: one of them updates the occupancy."""
STEP_CHECK_RAYS, VIEW_CHECK_RAYS = 256, 1024
"""Rays of a step and of a view that `reference` computes as well."""
RIVAL_RAYS = 1 << 14
"""Rays of a view that nerfacto renders in a repeat. Its rate does not depend on the resolution; a
whole view of 800x800 would take minutes."""
COLOR_ATOL = 4e-3
"""One step of an 8-bit image: half floats in the networks are within it."""
GRAD_LIMIT = 2e-2
"""Of a gradient's length: what half floats, of 8 significant bits, leave after three layers."""
HALF_FLOATS = "networks may compute in half floats; samples at the early stop may fall either way"


class Steps:
    """Consecutive steps of a run, and what each block of them did."""

    def __init__(self, trainer: Any, begin: int, block: int) -> None:
        self.trainer, self.next, self.block = trainer, begin, block
        self.records: list[list[Any]] = []

    def run(self) -> int:
        """The next block; returns its rays."""
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import run_steps

        self.records.append(run_steps(self.trainer, self.next, self.block))
        self.next += self.block
        return self.totals("num_rays")[-1]

    def totals(self, name: str) -> list[int]:
        """Of each block."""
        return [sum(getattr(record, name) for record in block) for block in self.records]

    def figures(self, timed: Timed) -> dict[str, float]:
        """Of the blocks that counted: the first was the warm-up."""
        per_second = {}
        for name, count in (("samples", "num_samples"), ("marched_samples", "num_marched")):
            blocks = zip(self.totals(count)[1:], timed.seconds, strict=True)
            per_second[f"{name}_per_s"] = median(total / seconds for total, seconds in blocks)
        return {
            **per_second,
            "rays_per_step": mean(self.totals("num_rays")[1:]) / self.block,
            "samples_per_step": mean(self.totals("num_samples")[1:]) / self.block,
            "step_s": timed.median / self.block,
        }


@dataclass
class SceneRuns:
    """Our method and nerfacto on one scene, set up and warmed up when first asked for."""

    data: Path
    folder: Path
    """For what the host writes: logs."""
    dataparser: str | None = None
    warmup_steps: int = 300
    options: dict[str, Any] = field(default_factory=dict)
    """Dotted options of our model's configuration that differ from the defaults."""
    rival_options: dict[str, Any] = field(default_factory=dict)
    """The same for nerfacto."""
    scene_file: Path | None = None
    """A file to render; by default what the model has learned by then is packed and decoded."""
    num_threads: int = field(default_factory=num_cores)
    """Threads of ours and of the rival."""
    device: str = "cpu"

    @cached_property
    def ours(self) -> Any:
        """Our trainer, after the warm-up."""
        torch.set_num_threads(self.num_threads)
        return self._trained("ours", {})

    @cached_property
    def plain(self) -> Any:
        """The same with `reference`, plain torch."""
        return self._trained("plain", {"backend": "reference"})

    def _trained(self, name: str, options: dict[str, Any]) -> Any:
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import our_trainer, run_steps

        trainer = our_trainer(
            self.data,
            self.folder / name,
            dataparser=self.dataparser,
            options={**self.options, **options},
            device=self.device,
        )
        run_steps(trainer, 0, self.warmup_steps)
        return trainer

    @property
    def model(self) -> Any:
        """Our model in training."""
        return self.ours.pipeline.model

    @cached_property
    def our_steps(self) -> Steps:
        """Where our run goes on."""
        return Steps(self.ours, self.warmup_steps, BLOCK)

    @cached_property
    def rival(self) -> Any:
        """nerfacto's trainer, as set up."""
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import nerfacto_trainer

        return nerfacto_trainer(
            self.data,
            self.folder / "nerfacto",
            dataparser=self.dataparser,
            options=self.rival_options,
            device=self.device,
        )

    @cached_property
    def file_bytes(self) -> bytes:
        """The scene's file."""
        if self.scene_file is not None:
            return self.scene_file.read_bytes()
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import own_file

        return own_file(self.model)

    def check_step(self) -> dict[str, Any]:
        """Holds colours and gradients of a step against `reference`."""
        from shacira_nerfstudio.bench.throughput import nerfstudio_side as host

        batch = host.training_batch(self.ours, STEP_CHECK_RAYS)
        names = (self.model.scene.encoding.backend.name, "reference")
        results = [host.loss_and_grads(host.twin(self.model, name), *batch) for name in names]
        (color, grads), (expected, expected_grads) = results
        if set(grads) != set(expected_grads):
            raise RuntimeError(
                f"expected gradients of {sorted(expected_grads)}, got those of {sorted(grads)}"
            )
        check = check_close("colors", color, expected, atol=COLOR_ATOL, because=HALF_FLOATS)
        for name, grad in grads.items():
            limit = {"limit": GRAD_LIMIT, "because": HALF_FLOATS}
            check |= check_relative(f"grad {name}", grad, expected_grads[name], **limit)
        return check

    def check_view(self, model: Any, truth: Any, camera: Any) -> dict[str, Any]:
        """Holds some rays of a view against `reference`."""
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import camera_rays

        bundle = camera_rays(camera)
        rays = bundle[torch.linspace(0, len(bundle) - 1, VIEW_CHECK_RAYS).long()].to(model.device)
        found, expected = (which(rays) for which in (model, truth))
        check: dict[str, Any] = {}
        for name in ("rgb", "accumulation"):
            values = found[name], expected[name]
            check |= check_close(name, *values, atol=COLOR_ATOL, because=HALF_FLOATS)
        return check


def train_step(runs: SceneRuns, repeats: int) -> Row:
    """Whole training steps: data, forward, backward, optimisers, callbacks."""
    from shacira_nerfstudio.bench.throughput import nerfstudio_side as host

    check, config, mine = runs.check_step(), runs.model.config, runs.our_steps
    mine.records.clear()
    last, limit = mine.next + BLOCK * (repeats + 1), runs.ours.config.max_num_iterations
    if last > limit:
        raise ValueError(f"expected at most {limit} steps with those that are timed, got {last}")
    first, block = host.fastest_steps(runs.rival)
    theirs = Steps(runs.rival, first, block)
    what = f"{BLOCK} steps of shacira from step {mine.next} on"
    threads, kind = runs.num_threads, host.nerfacto_implementation(runs.device)
    return rate_row(
        "train_step",
        "rays/s",
        Side(mine.run, what, OURS_TORCH_THREADS, threads, None),
        Side(theirs.run, f"nerfacto, {kind}, its defaults", threads, threads, None),
        repeats=repeats,
        check=check,
        sizes={
            **asdict(config.grid),
            **asdict(config.networks),
            **asdict(config.sampling),
            "rival_steps": block,
            "rival_from_step": first,
        },
        backend=runs.model.scene.encoding.backend.name,
        more=lambda timed: {
            f"{side}_{name}": value
            for side, steps in (("ours", mine), ("rival", theirs))
            for name, value in steps.figures(timed[side]).items()
        },
    )


def plain_step(runs: SceneRuns, repeats: int) -> Row:
    """Whole training steps beside those of the same method in plain torch on the same device."""
    mine = Steps(runs.ours, runs.ours.step + 1, BLOCK)
    theirs = Steps(runs.plain, runs.warmup_steps, BLOCK)
    check, threads = runs.check_step(), runs.num_threads
    what = f"{BLOCK} steps of shacira from step {mine.next} on"
    return rate_row(
        "plain_step",
        "rays/s",
        Side(mine.run, what, OURS_TORCH_THREADS, threads, None),
        Side(theirs.run, "the same with `reference`, plain torch", threads, threads, None),
        repeats=repeats,
        check=check,
        sizes=asdict(runs.model.config.sampling),
        backend=runs.model.scene.encoding.backend.name,
        more=lambda timed: {
            f"{side}_{name}": value
            for side, steps in (("ours", mine), ("rival", theirs))
            for name, value in steps.figures(timed[side]).items()
        },
    )


def _render_views(model: Any, cameras: Any, max_rays: int | None) -> Callable[[], int]:
    """Renders one view after the other; each call returns its rays."""
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import view

    numbers = itertools.cycle(range(len(cameras)))

    def run() -> int:
        camera = view(cameras, next(numbers), max_rays).to(model.device)
        color = model.get_outputs_for_camera(camera)["rgb"]
        return color.shape[0] * color.shape[1]

    return run


def render(runs: SceneRuns, repeats: int) -> Row:
    """Held-out views from the decoded file, a different one in each repeat."""
    from shacira_nerfstudio.bench.throughput import nerfstudio_side as host

    # How well nerfacto has learned the scene makes no difference to it: it has no early stop.
    rival_model = runs.rival.pipeline.model.eval()
    model, truth = (host.twin(runs.model, name, runs.file_bytes) for name in ("auto", "reference"))
    cameras = host.eval_cameras(runs.ours)
    check = runs.check_view(model, truth, host.view(cameras, 0))
    symbols: Any = model.scene.encoding.symbols
    mine = _render_views(model, cameras, None)
    theirs = _render_views(rival_model, cameras, RIVAL_RAYS)
    threads, kind = runs.num_threads, host.nerfacto_implementation(runs.device)
    return rate_row(
        "render",
        "rays/s",
        Side(mine, "ShaciraModel on the decoded file", threads, threads, None),
        Side(theirs, f"nerfacto, {kind}", threads, threads, None),
        repeats=repeats,
        check=check,
        sizes={
            "file_bytes": len(runs.file_bytes),
            "file_from": "a file given" if runs.scene_file else f"{runs.ours.step + 1} steps",
            "num_views": min(repeats, len(cameras)),
            "num_latents": symbols.numel(),
            "table_bytes_per_latent": symbols.element_size(),
        },
        backend=model.scene.encoding.backend.name,
        more=lambda timed: {"ours_view_s": timed["ours"].median},
    )
