"""The hot operations one by one, on inputs of their own: no scene needed.

Each function checks, then times, then returns a row. Rivals are Nerfstudio's torch modules where it
has the operation on a CPU, else `reference`, our own plain torch.

Notation as in :mod:`shacira_nerfstudio.backends.base`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shacira_nerfstudio.backends import Backend, MarchSettings, get_backend
from shacira_nerfstudio.bench.throughput.timing import (
    Row,
    Side,
    check_close,
    check_relative,
    num_cpus,
    rate_row,
)
from shacira_nerfstudio.grid import GridSpec

OURS_TORCH_THREADS = 1
"""As in training: kernels bring threads of their own, torch's would wait by spinning."""
PLAIN_TORCH = "`reference`, plain torch"
"""Where Nerfstudio has nothing of the kind on a CPU."""


@dataclass(frozen=True)
class OpSizes:
    """How large the inputs are."""

    num_samples: int = 1 << 18
    samples_per_ray: int = 32
    num_levels: int = 16
    max_res: int = 2048
    log2_hashmap_size: int = 19
    num_channels: int = 2
    num_march_rays: int = 1 << 13
    occupancy_resolution: int = 128
    steps_across_box: int = 768
    rate_stride: int = 8
    """One row in so many is rated, as in a training step."""

    @property
    def num_rays(self) -> int:
        return self.num_samples // self.samples_per_ray

    def grid(self) -> GridSpec:
        return GridSpec.create(
            num_levels=self.num_levels,
            max_res=self.max_res,
            log2_hashmap_size=self.log2_hashmap_size,
        )


@dataclass(frozen=True)
class Setting:
    """What all operations are measured with."""

    backend: Backend
    repeats: int
    sizes: OpSizes
    num_threads: int
    """Threads of ours and of the rival."""

    @classmethod
    def create(
        cls, repeats: int, sizes: OpSizes | None = None, num_threads: int | None = None
    ) -> Setting:
        """With as many threads as there are cores."""
        num_threads = num_threads or num_cpus()
        torch.set_num_threads(num_threads)  # which the backend asks for
        return cls(get_backend("auto", "cpu"), repeats, sizes or OpSizes(), num_threads)

    def ours(self, run: Any, what: str, work: Any = 1.0) -> Side:
        return Side(run, what, OURS_TORCH_THREADS, self.num_threads, work)

    def rival(self, run: Any, what: str, work: Any = 1.0) -> Side:
        return Side(run, what, self.num_threads, self.num_threads, work)


def coherent_positions(sizes: OpSizes) -> Tensor:
    """Samples as rays give them: neighbours along a ray are sqrt(3) / 1024 apart."""
    random = torch.Generator().manual_seed(0)
    start = torch.rand(sizes.num_rays, 1, 3, generator=random) * 0.8 + 0.1
    direction = F.normalize(torch.randn(sizes.num_rays, 1, 3, generator=random), dim=-1)
    steps = torch.arange(sizes.samples_per_ray)[:, None] * (math.sqrt(3) / 1024)
    return (start + direction * steps).clamp(0, 1).reshape(-1, 3)


def reference_by_level(
    x: Tensor, table: Tensor, grid: GridSpec, upstream: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Values and gradient of `reference` in double precision, one level at a time: less memory."""
    reference = get_backend("reference", "cpu")
    values, grads = [], []
    for level, begin in enumerate(grid.offsets[:-1]):
        size = grid.table_sizes[level]
        part = GridSpec(grid.num_dims, (grid.resolutions[level],), (size,))
        rows = table[begin : begin + size].detach().double()
        rows.requires_grad_(upstream is not None)
        out = reference.interpolate(x.double(), rows, part)
        if upstream is not None:
            (grad,) = torch.autograd.grad(out, rows, upstream[:, level : level + 1].double())
            grads.append(grad)
        values.append(out.detach())
    return torch.cat(values, 1), torch.cat(grads) if upstream is not None else None


def _table_sizes(setting: Setting, grid: GridSpec) -> dict[str, Any]:
    return {**asdict(setting.sizes), "num_entries": grid.num_entries}


def interpolate(setting: Setting) -> Row:
    """Forward and backward over float latents, against Nerfstudio's HashEncoding."""
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import hash_encoding

    sizes, backend = setting.sizes, setting.backend
    grid, x = sizes.grid(), coherent_positions(sizes)
    table = torch.randn(grid.num_entries, sizes.num_channels).requires_grad_()
    out = backend.interpolate(x, table, grid)
    upstream = torch.randn_like(out)  # laid out as the backend's own result
    check = _check_interpolation(x, table, grid, out, upstream)
    encoding = hash_encoding(
        sizes.num_levels, 16, sizes.max_res, sizes.log2_hashmap_size, sizes.num_channels
    )
    upstream_rival = upstream.reshape(len(x), -1).contiguous()

    def ours() -> None:
        table.grad = None
        backend.interpolate(x, table, grid).backward(upstream)

    def rival() -> None:
        encoding.zero_grad(set_to_none=True)
        encoding(x).backward(upstream_rival)

    return rate_row(
        "interpolate",
        "samples/s",
        setting.ours(ours, "Backend.interpolate, forward and backward", len(x)),
        setting.rival(rival, 'HashEncoding(implementation="torch")', len(x)),
        repeats=setting.repeats,
        check=check,
        sizes=_table_sizes(setting, grid)
        | {"rival_num_entries": grid.num_levels << sizes.log2_hashmap_size},
        backend=backend.name,
    )


def _check_interpolation(
    x: Tensor, table: Tensor, grid: GridSpec, out: Tensor, upstream: Tensor
) -> dict[str, Any]:
    (grad,) = torch.autograd.grad(out, table, upstream, retain_graph=True)
    values, expected_grad = reference_by_level(x, table, grid, upstream)
    assert expected_grad is not None
    # Cell coordinates go up to the resolution N in single precision: a fraction keeps an error of
    # N 2^-24, and the difference of two table rows multiplies it.
    spread = (table.max() - table.min()).item()
    atol = 4 * spread * grid.resolutions[-1] * 2**-24
    because = "single precision of cell coordinates, times the spread of the table"
    found = check_close("values", out, values, atol=atol, because=because)
    # An entry sums the weights of all samples around it, each off by as much.
    limit = 16 * grid.resolutions[-1] * 2**-24
    because = "single precision of cell coordinates and of the sum over samples"
    return found | check_relative("grad_table", grad, expected_grad, limit=limit, because=because)


def interpolate_int8(setting: Setting) -> Row:
    """Forward over rounded latents of one byte, as rendering reads them."""
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import hash_encoding

    sizes, backend = setting.sizes, setting.backend
    grid, x = sizes.grid(), coherent_positions(sizes)
    table = torch.randint(-3, 4, (grid.num_entries, sizes.num_channels), dtype=torch.int8)
    out = backend.interpolate(x, table, grid)
    values, _ = reference_by_level(x, table, grid, None)
    because = "single precision of cell coordinates, times the spread of the table"
    atol = 4 * 6 * grid.resolutions[-1] * 2**-24
    encoding = hash_encoding(
        sizes.num_levels, 16, sizes.max_res, sizes.log2_hashmap_size, sizes.num_channels
    )

    def rival() -> None:
        with torch.no_grad():
            encoding(x)

    return rate_row(
        "interpolate_int8",
        "samples/s",
        setting.ours(
            lambda: backend.interpolate(x, table, grid), "Backend.interpolate of int8", len(x)
        ),
        setting.rival(rival, 'HashEncoding(implementation="torch")', len(x)),
        repeats=setting.repeats,
        check=check_close("values", out, values, atol=atol, because=because),
        sizes=_table_sizes(setting, grid),
        backend=backend.name,
    )


def _shell(resolution: int) -> Tensor:
    """Occupancy of a hollow ball: an object with a surface, about 4 % of the cells."""
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    return ((x * x + y * y + z * z).sqrt() - 0.6).abs() < 0.04


def _orbit_rays(count: int) -> tuple[Tensor, Tensor]:
    """Rays from a sphere around the box, most of which meet the ball."""
    random = torch.Generator().manual_seed(0)
    origins = 4 * F.normalize(torch.randn(count, 3, generator=random), dim=-1)
    target = 0.5 * torch.randn(count, 3, generator=random)
    return origins, F.normalize(target - origins, dim=-1)


def march(setting: Setting) -> Row:
    """Packed samples of rays through a sparse occupancy grid."""
    sizes, backend = setting.sizes, setting.backend
    reference = get_backend("reference", "cpu")
    step = 2 * math.sqrt(3) / sizes.steps_across_box
    settings = MarchSettings("affine", ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), 0.05, 1000.0, step)
    cells = _shell(sizes.occupancy_resolution)
    rays = _orbit_rays(sizes.num_march_rays)
    jitter = torch.rand(len(rays[0]), generator=torch.Generator().manual_seed(1))

    def run(which: Backend) -> Any:
        return which.march(*rays, cells, settings, jitter=jitter)

    found, expected = run(backend), run(reference)
    because = "both compute in double precision; the last bit of single precision may differ"
    check = check_close(
        "packed_info", found.packed_info, expected.packed_info, atol=0, because="integers"
    )
    for name in ("positions", "t_starts", "t_ends"):
        values = getattr(found, name), getattr(expected, name)
        check |= check_close(name, *values, atol=1e-7, rtol=3e-7, because=because)
    return rate_row(
        "march",
        "rays/s",
        setting.ours(lambda: run(backend), "Backend.march", len(jitter)),
        setting.rival(lambda: run(reference), PLAIN_TORCH, len(jitter)),
        repeats=setting.repeats,
        check=check,
        sizes={
            "num_rays": len(jitter),
            "num_samples": len(expected.t_starts),
            "occupied_fraction": cells.float().mean().item(),
            "occupancy_resolution": sizes.occupancy_resolution,
            "steps_across_box": sizes.steps_across_box,
        },
        backend=backend.name,
    )


def composite(setting: Setting) -> Row:
    """Compositing forward and backward; every ray has as many samples, as the rival demands."""
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import DenseCompositing

    sizes, backend = setting.sizes, setting.backend
    rays, count = sizes.num_rays, sizes.samples_per_ray
    t_starts = torch.rand(rays, 1) + torch.arange(count) * 0.02
    t_ends = t_starts + 0.02
    sigmas = (torch.rand(rays, count) * 8).requires_grad_()
    rgbs = torch.rand(rays, count, 3).requires_grad_()
    info = torch.stack([torch.arange(rays) * count, torch.full((rays,), count)], 1)
    upstream = torch.randn(rays, 3)
    dense = DenseCompositing(t_starts, t_ends)

    def ours(which: Backend = backend) -> tuple[Tensor, ...]:
        flat = sigmas.view(-1), rgbs.view(-1, 3), t_starts.view(-1), t_ends.view(-1), info
        color, accumulation, _ = which.composite(*flat)
        return color, accumulation, *torch.autograd.grad(color, (sigmas, rgbs), upstream)

    def rival() -> tuple[Tensor, ...]:
        color, accumulation = dense(sigmas, rgbs)
        return color, accumulation, *torch.autograd.grad(color, (sigmas, rgbs), upstream)

    expected = ours(get_backend("reference", "cpu"))
    check: dict[str, Any] = {}
    for name, f, e in zip(("color", "accumulation", "sigma", "rgb"), ours(), expected, strict=True):
        because = "sums over a ray in single precision, in `reference` as well"
        check |= check_close(name, f, e, atol=2e-5, rtol=1e-5, because=because)
    return rate_row(
        "composite",
        "samples/s",
        setting.ours(ours, "Backend.composite, forward and backward", sigmas.numel()),
        setting.rival(rival, "RaySamples.get_weights, RGBRenderer", sigmas.numel()),
        repeats=setting.repeats,
        check=check,
        sizes={"num_rays": rays, "samples_per_ray": count},
        backend=backend.name,
    )
