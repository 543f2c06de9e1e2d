"""Whole training steps: our method and nerfacto, each through the host's own trainer.

The occupancy grid settles first: steps of a grid that is still full are not what a run is made of.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from shacira_nerfstudio.bench.throughput.ops import OURS_TORCH_THREADS
from shacira_nerfstudio.bench.throughput.timing import (
    Row,
    Side,
    Timed,
    check_close,
    check_relative,
    num_cpus,
    rate_row,
)

BLOCK = 16
"""Steps of ours that are timed together: one of them looks at the occupancy again."""
CHECK_RAYS = 256
"""Rays of a step, or of a view, that `reference` computes as well."""
COLOR_ATOL = 4e-3
"""One step of an 8-bit image: half floats in the networks are within it."""
GRAD_LIMIT = 2e-2
"""Of a gradient's length: what half floats, of 8 significant bits, leave after three layers."""
HALF_FLOATS = "networks may compute in half floats; samples at the early stop may fall either way"


class Steps:
    """Consecutive steps of a run, and what the last block of them did."""

    def __init__(self, trainer: Any, begin: int, block: int) -> None:
        self.trainer, self.next, self.block = trainer, begin, block
        self.records: list[list[Any]] = []

    def run(self) -> None:
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import run_steps

        self.records.append(run_steps(self.trainer, self.next, self.block))
        self.next += self.block

    def total(self, name: str) -> int:
        """Of the last block."""
        return sum(getattr(record, name) for record in self.records[-1])

    def per_second(self, name: str, timed: Timed) -> float:
        """Median over the blocks that counted: the first was the warm-up."""
        totals = [sum(getattr(r, name) for r in block) for block in self.records[1:]]
        rates = [n / s for n, s in zip(totals, timed.times.seconds, strict=True)]
        return float(torch.tensor(rates, dtype=torch.float64).median())

    def per_step(self, name: str) -> float:
        records = list(itertools.chain.from_iterable(self.records[1:]))
        return sum(getattr(record, name) for record in records) / len(records)


@dataclass
class SceneRuns:
    """Our method and nerfacto on one scene, set up and warmed up when first asked for."""

    data: Path
    folder: Path
    """For what the host writes: logs."""
    dataparser: str | None = None
    warmup_steps: int = 300
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of our model's configuration that differ from the defaults."""
    rival_options: dict[str, Any] = field(default_factory=dict)
    """The same for nerfacto."""
    scene_file: Path | None = None
    """A file to render; by default what the model has learned by then is packed and decoded."""
    num_threads: int = field(default_factory=num_cpus)
    """Threads of ours and of the rival."""

    @cached_property
    def ours(self) -> Any:
        """Our trainer, after the warm-up. Types of the host are known in plugin/ only."""
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import our_trainer, run_steps

        torch.set_num_threads(self.num_threads)
        trainer = our_trainer(
            self.data, self.folder / "ours", dataparser=self.dataparser, **self.options
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
            self.data, self.folder / "nerfacto", dataparser=self.dataparser, **self.rival_options
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
        from shacira_nerfstudio.bench.throughput import nerfstudio_side as bench_host

        model = self.model
        bundle, batch = bench_host.training_batch(self.ours, CHECK_RAYS)
        results = [
            bench_host.loss_and_grads(bench_host.twin(model, name), bundle, batch)
            for name in (model.backend.name, "reference")
        ]
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


def train_step(runs: SceneRuns, repeats: int) -> Row:
    """Whole training steps: data, forward, backward, optimisers, callbacks."""
    from shacira_nerfstudio.bench.throughput import nerfstudio_side as bench_host

    model = runs.model
    check = runs.check_step()
    mine = runs.our_steps
    mine.records.clear()
    last, limit = mine.next + BLOCK * (repeats + 1), runs.ours.config.max_num_iterations
    if last > limit:
        raise ValueError(f"expected at most {limit} steps with those that are timed, got {last}")
    first = bench_host.steady_step(runs.rival)
    theirs = Steps(runs.rival, first, bench_host.steps_per_proposal_update(runs.rival))

    ours = Side(
        mine.run,
        f"{BLOCK} steps of shacira from step {mine.next} on",
        OURS_TORCH_THREADS,
        runs.num_threads,
        lambda: mine.total("num_rays"),
    )
    rival = Side(
        theirs.run,
        "nerfacto, torch, its defaults",
        runs.num_threads,
        runs.num_threads,
        lambda: theirs.total("num_rays"),
    )
    return rate_row(
        "train_step",
        "rays/s",
        ours,
        rival,
        repeats=repeats,
        check=check,
        sizes=model_sizes(model),
        backend=model.backend.name,
        more=lambda timed: _step_figures(timed, {"ours": mine, "rival": theirs}, first),
    )


def _step_figures(
    timed: dict[str, Timed], sides: dict[str, Steps], rival_from_step: int
) -> dict[str, Any]:
    """Samples per second and sizes of a step of either side."""
    # As many steps as nerfacto takes from one update of its proposal networks to the next, once
    # those are warm: from then on it is fastest.
    figures: dict[str, Any] = {
        "rival_steps": sides["rival"].block,
        "rival_from_step": rival_from_step,
    }
    for side, run in sides.items():
        for what, name in (("num_samples", "samples"), ("num_marched", "marched_samples")):
            figures[f"{side}_{name}_per_s"] = run.per_second(what, timed[side])
        figures[f"{side}_rays_per_step"] = run.per_step("num_rays")
        figures[f"{side}_samples_per_step"] = run.per_step("num_samples")
        figures[f"{side}_step_s"] = timed[side].times.median / run.block
    return figures


def model_sizes(model: Any) -> dict[str, Any]:
    """What of a configuration costs time."""
    names = ("num_levels", "max_res", "log2_hashmap_size", "latent_dim", "hidden_dim")
    names += ("num_color_layers", "target_num_samples", "steps_across_box", "occupancy_resolution")
    sizes = {name: getattr(model.config, name) for name in names}
    sizes["num_entries"] = model.field.encoding.grid.num_entries
    return sizes | {"occupied_fraction": model.occupancy.occupied_fraction}


def latent_optimizer(runs: SceneRuns, repeats: int) -> Row:
    """One step of the optimiser of the latents on its own, with the gradient of a real step."""
    from shacira_nerfstudio.bench.throughput import nerfstudio_side as bench_host

    model = runs.model
    bundle, batch = bench_host.training_batch(runs.ours, CHECK_RAYS)
    stand_in = bench_host.twin(model, model.backend.name)
    _, grads = bench_host.loss_and_grads(stand_in, bundle, batch)
    grad = grads["field.encoding.latents"]
    start = model.field.encoding.latents.detach()
    config = runs.ours.config.optimizers["latents"]["optimizer"]
    ours, rival, truth = (torch.nn.Parameter(start.clone()) for _ in range(3))
    for parameter in (ours, rival):
        parameter.grad = grad.clone()
    truth.grad = grad.clone()
    mine = config.setup(params=[ours])
    theirs = torch.optim.Adam([rival], lr=config.lr, eps=config.eps)
    exact = torch.optim.Adam([truth], lr=config.lr, eps=config.eps, foreach=False)
    for optimizer in (mine, exact):
        optimizer.step()
    because = "the first step of Adam, in single precision"
    check = check_close("latents after a step", ours, truth, atol=1e-6, rtol=1e-6, because=because)
    threads = runs.num_threads
    return rate_row(
        "latent_optimizer",
        "entries/s",
        Side(mine.step, type(mine).__name__, OURS_TORCH_THREADS, threads, len(start)),
        Side(theirs.step, "torch.optim.Adam", threads, threads, len(start)),
        repeats=repeats,
        check=check,
        sizes={
            "num_entries": len(start),
            "latent_dim": start.shape[1],
            "touched_fraction": (grad != 0).any(1).float().mean().item(),
        },
        backend=model.backend.name,
    )
