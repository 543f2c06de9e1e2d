"""Whole views from a decoded file, and how soon the first of them is there."""

from __future__ import annotations

from typing import Any

import torch

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.bench.throughput.timing import Row, Side, check_close, rate_row
from shacira_nerfstudio.bench.throughput.training import (
    COLOR_ATOL,
    HALF_FLOATS,
    SceneRuns,
)

CHECK_RAYS = 1024
"""Rays of a view that `reference` renders as well."""
RIVAL_RAYS = 1 << 14
"""Rays of a view that nerfacto renders in a repeat. Its rate does not depend on the resolution; a
whole view of 800x800 would take minutes."""


class _Views:
    """Renders one view after the other."""

    def __init__(self, model: Any, cameras: Any, max_rays: int | None) -> None:
        self.model, self.cameras, self.max_rays = model, cameras, max_rays
        self.count, self.num_rays = 0, 0

    def run(self) -> None:
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import view

        camera = view(self.cameras, self.count % len(self.cameras), self.max_rays)
        self.count += 1
        color = self.model.get_outputs_for_camera(camera)["rgb"]
        self.num_rays = color.shape[0] * color.shape[1]


def render(runs: SceneRuns, repeats: int) -> Row:
    """Held-out views from the decoded file, a different one in each repeat."""
    from shacira_nerfstudio.bench.throughput import nerfstudio_side as bench_host

    # How well nerfacto has learned the scene makes no difference to it: it has no early stop.
    rival_model = runs.rival.pipeline.model.eval()
    name = get_backend("auto", "cpu").name
    base = runs.model
    model = bench_host.twin(base, name, runs.file_bytes)
    truth = bench_host.twin(base, "reference", runs.file_bytes)
    cameras = bench_host.eval_cameras(runs.ours)
    check = check_view(model, truth, bench_host.view(cameras, 0))
    symbols = model.field.encoding.symbols
    assert symbols is not None

    mine, theirs = _Views(model, cameras, None), _Views(rival_model, cameras, RIVAL_RAYS)
    threads = runs.num_threads
    return rate_row(
        "render",
        "rays/s",
        Side(mine.run, "ShaciraModel on the decoded file", threads, threads, lambda: mine.num_rays),
        Side(theirs.run, "nerfacto, torch", threads, threads, lambda: theirs.num_rays),
        repeats=repeats,
        check=check,
        sizes={
            "file_bytes": len(runs.file_bytes),
            "file_from": "a file given" if runs.scene_file else f"{runs.ours.step + 1} steps",
            "num_views": min(repeats, len(cameras)),
            "num_latents": symbols.numel(),
            "table_bytes_per_latent": symbols.element_size(),
        },
        backend=name,
        more=lambda timed: {
            "ours_rays_per_view": mine.num_rays,
            "rival_rays_per_view": theirs.num_rays,
            "ours_view_s": timed["ours"].times.median,
        },
    )


def check_file(runs: SceneRuns) -> dict[str, Any]:
    """Holds some rays of the first view of the decoded file against `reference`."""
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import eval_cameras, twin, view

    models = [twin(runs.model, name, runs.file_bytes) for name in ("auto", "reference")]
    return check_view(models[0], models[1], view(eval_cameras(runs.ours), 0))


def check_view(model: Any, truth: Any, camera: Any) -> dict[str, Any]:
    """Some rays of a view against `reference`."""
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import camera_rays

    bundle = camera_rays(camera)
    chosen = torch.linspace(0, len(bundle) - 1, CHECK_RAYS).long()
    rays = bundle[chosen]
    found, expected = (which(rays) for which in (model, truth))
    check: dict[str, Any] = {}
    for name in ("rgb", "accumulation"):
        values = found[name], expected[name]
        check |= check_close(name, *values, atol=COLOR_ATOL, because=HALF_FLOATS)
    return check
