"""What a card decides: how Adam moves the table, and whether networks are one kernel each."""

from __future__ import annotations

from dataclasses import replace

import torch

from shacira_nerfstudio.backends import AdamState, SparseRowGradient, get_backend
from shacira_nerfstudio.bench.throughput import ops
from shacira_nerfstudio.bench.throughput.timing import Row, Side, check_close, rate_row

_ADAM = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-15}
_SHORT_LIMIT = 6e-2
"""Of a gradient's length: factors of 8 significant bits, through five layers that turn units on and
off."""


def adam(setting: ops.Setting) -> Row:
    """A step over the table by touched rows, beside torch's fused Adam over all of it."""
    backend, device = setting.backend, setting.device
    grid, channels = setting.sizes.grid(), setting.sizes.num_channels
    x = ops.coherent_positions(setting.sizes).to(device)
    table = torch.randn(grid.num_entries, channels, device=device, requires_grad=True)
    upstream = torch.randn_like(backend.interpolate(x, table, grid))
    (grad,) = torch.autograd.grad(backend.interpolate(x, table, grid), table, upstream)
    dense = SparseRowGradient.of(grad)
    gradient = SparseRowGradient(grad.clone(), dense.touched.clone())
    state = AdamState(
        torch.zeros(len(table), 2, channels, device=device),
        torch.zeros(len(table), dtype=torch.int16, device=device),
    )
    ours, theirs = table.detach().clone(), table.detach().clone().requires_grad_()
    theirs.grad = grad
    rival = torch.optim.Adam([theirs], fused=torch.device(device).type == "cuda", **_ADAM)

    def step() -> None:
        gradient.touched.copy_(dense.touched)
        backend.update_rows(ours, gradient, state, weight_decay=0.0, **_ADAM)

    step()
    rival.step()
    # The first step from moments of 0 is that of Adam itself.
    check = check_close(
        "parameter", ours, theirs, atol=1e-5, because="single precision of a step of 0.01"
    )
    threads, touched = setting.num_threads, int(dense.touched_rows().sum())
    return rate_row(
        "adam",
        "entries/s",
        Side(step, "Backend.update_rows", ops.OURS_TORCH_THREADS, threads, len(table)),
        Side(rival.step, "torch.optim.Adam, fused on CUDA", threads, threads, len(table)),
        repeats=setting.repeats,
        check=check,
        sizes={"num_entries": len(table), "num_channels": channels, "num_touched": touched},
        backend=backend.name,
    )


def fused_networks(setting: ops.Setting) -> Row:
    """Both networks as one kernel each, beside torch's products in the same number format."""
    short = get_backend("auto", setting.device).with_precision("auto")
    operation = replace(
        ops.networks_operation(setting),
        name="fused_networks",
        what=f"the same in one kernel each, {short.precision}",
        limit=_SHORT_LIMIT,
        because="factors of 8 significant bits",
    )
    operation = replace(
        operation, rival=(lambda: operation.run(short), f"torch's products, {short.precision}")
    )
    return operation.row(replace(setting, backend=short.with_fused_networks()))
