"""The hot operations one by one, on inputs of their own: no scene needed.

Each function checks, then times, then returns a row. Interpolation is compared with Nerfstudio's
torch module; for the other operations the rival is `reference`, our own plain torch.

Notation as in :mod:`shacira_nerfstudio.backends.base`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shacira_nerfstudio.backends import Backend, MarchSettings, NetworkWeights, get_backend
from shacira_nerfstudio.bench.environment import num_cores
from shacira_nerfstudio.bench.throughput.timing import (
    Row,
    Side,
    check_close,
    check_relative,
    rate_row,
)
from shacira_nerfstudio.grid import GridSpec

OURS_TORCH_THREADS = 1
"""As in training: kernels bring threads of their own, torch's would wait by spinning."""
HIDDEN_DIM, GEO_FEAT_DIM, RAY_FEATURES = 64, 15, 16
"""The method's defaults; spherical harmonics of degree 4 have 16 values."""


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
    device: str = "cpu"

    @classmethod
    def create(
        cls,
        repeats: int,
        sizes: OpSizes | None = None,
        num_threads: int | None = None,
        device: str = "cpu",
    ) -> Setting:
        """With as many threads as there are cores."""
        num_threads = num_threads or num_cores()
        torch.set_num_threads(num_threads)  # which the backend asks for
        backend = get_backend("auto", device)
        return cls(backend, repeats, sizes or OpSizes(), num_threads, device)


@dataclass(frozen=True)
class Operation:
    """An operation with its inputs, to be run by any backend."""

    name: str
    what: str
    unit: str
    num_items: int
    """Units of work of one run."""
    run: Callable[[Backend], dict[str, Tensor]]
    """Results and gradients by name; integers have to be equal."""
    limit: float
    """Error that is allowed, in parts of a result's length."""
    because: str
    """Where an error of that size comes from."""
    sizes: dict[str, Any]
    rival: tuple[Callable[[], Any], str] | None = None
    """What it is compared with, and its name; `reference` by default."""

    def row(self, setting: Setting) -> Row:
        """Holds the results against those of `reference`, and times both."""
        reference, backend = get_backend("reference", setting.device), setting.backend
        found, expected = self.run(backend), self.run(reference)
        check: dict[str, Any] = {}
        for name, result in found.items():
            if result.is_floating_point():
                limit = {"limit": self.limit, "because": self.because}
                check |= check_relative(name, result, expected[name], **limit)
            else:
                check |= check_close(name, result, expected[name], atol=0, because="integers")
        rival = self.rival or (lambda: self.run(reference), "`reference`, plain torch")
        return rate_row(
            self.name,
            self.unit,
            Side(
                lambda: self.run(backend),
                self.what,
                OURS_TORCH_THREADS,
                setting.num_threads,
                self.num_items,
            ),
            Side(*rival, setting.num_threads, setting.num_threads, self.num_items),
            repeats=setting.repeats,
            check=check,
            sizes=self.sizes,
            backend=backend.name,
        )


def coherent_positions(sizes: OpSizes) -> Tensor:
    """Samples as rays give them: neighbours along a ray are sqrt(3) / 1024 apart."""
    random = torch.Generator().manual_seed(0)
    start = torch.rand(sizes.num_rays, 1, 3, generator=random) * 0.8 + 0.1
    direction = F.normalize(torch.randn(sizes.num_rays, 1, 3, generator=random), dim=-1)
    steps = torch.arange(sizes.samples_per_ray)[:, None] * (math.sqrt(3) / 1024)
    return (start + direction * steps).clamp(0, 1).reshape(-1, 3)


def interpolate(setting: Setting) -> Row:
    """Forward and backward over float latents, against Nerfstudio's HashEncoding."""
    from shacira_nerfstudio.bench.throughput.nerfstudio_side import hash_encoding

    sizes = setting.sizes
    grid, x = sizes.grid(), coherent_positions(sizes).to(setting.device)
    table = torch.randn(grid.num_entries, sizes.num_channels, device=setting.device)
    table.requires_grad_()
    upstream = torch.randn_like(setting.backend.interpolate(x, table, grid))  # laid out alike
    encoding = hash_encoding(
        sizes.num_levels, 16, sizes.max_res, sizes.log2_hashmap_size, sizes.num_channels
    ).to(setting.device)
    upstream_rival = upstream.reshape(len(x), -1).contiguous()

    def run(backend: Backend) -> dict[str, Tensor]:
        table.grad = None
        values = backend.interpolate(x, table, grid)
        values.backward(upstream)
        assert table.grad is not None
        return {"values": values.detach(), "grad table": table.grad}

    def rival() -> None:
        encoding.zero_grad(set_to_none=True)
        encoding(x).backward(upstream_rival)

    return Operation(
        name="interpolate",
        what="Backend.interpolate, forward and backward",
        unit="samples/s",
        num_items=len(x),
        run=run,
        # Coordinates go up to N: a fraction keeps an error of N 2^-24, on either side.
        limit=4 * max(grid.resolutions[-1]) * 2**-24,
        because="single precision of cell coordinates",
        sizes={
            **asdict(sizes),
            "num_entries": grid.num_entries,
            "rival_num_entries": grid.num_levels << sizes.log2_hashmap_size,
        },
        rival=(rival, 'HashEncoding(implementation="torch")'),
    ).row(setting)


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
    sizes = setting.sizes
    step = 2 * math.sqrt(3) / sizes.steps_across_box
    settings = MarchSettings("affine", ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), 0.05, 1000.0, step)
    cells = _shell(sizes.occupancy_resolution).to(setting.device)
    origins, directions = (r.to(setting.device) for r in _orbit_rays(sizes.num_march_rays))
    jitter = torch.rand(len(origins), generator=torch.Generator().manual_seed(1)).to(origins)

    def run(backend: Backend) -> dict[str, Tensor]:
        samples = backend.march(origins, directions, cells, settings, jitter=jitter)
        names = ("packed_info", "positions", "t_starts", "t_ends")
        return {name: getattr(samples, name) for name in names}

    return Operation(
        name="march",
        what="Backend.march",
        unit="rays/s",
        num_items=len(jitter),
        run=run,
        limit=3e-7,
        because="both compute in double precision; the last bit of single precision may differ",
        sizes={
            "num_rays": len(jitter),
            "occupied_fraction": cells.float().mean().item(),
            "occupancy_resolution": sizes.occupancy_resolution,
            "steps_across_box": sizes.steps_across_box,
        },
    ).row(setting)


def composite(setting: Setting) -> Row:
    """Compositing forward and backward."""
    rays, count, device = setting.sizes.num_rays, setting.sizes.samples_per_ray, setting.device
    t_starts = (torch.rand(rays, 1) + torch.arange(count) * 0.02).view(-1).to(device)
    sigmas = (torch.rand(rays * count) * 8).to(device).requires_grad_()
    rgbs = torch.rand(rays * count, 3).to(device).requires_grad_()
    packed_info = torch.stack([torch.arange(rays) * count, torch.full((rays,), count)], 1)
    packed_info, upstream = packed_info.to(device), torch.randn(rays, 3).to(device)

    def run(backend: Backend) -> dict[str, Tensor]:
        rendered = backend.composite(sigmas, rgbs, t_starts, t_starts + 0.02, packed_info)
        grads = torch.autograd.grad(rendered[0], (sigmas, rgbs), upstream)
        names = ("color", "accumulation", "distance", "grad sigma", "grad rgb")
        return dict(zip(names, (*rendered, *grads), strict=True))

    return Operation(
        name="composite",
        what="Backend.composite, forward and backward",
        unit="samples/s",
        num_items=len(sigmas),
        run=run,
        limit=2e-5,
        because="sums over a ray in single precision, in `reference` as well",
        sizes={"num_rays": rays, "samples_per_ray": count},
    ).row(setting)


def _layers(widths: list[int], device: str) -> tuple[tuple[Tensor, Tensor], ...]:
    sizes = itertools.pairwise(widths)
    random = [(torch.randn(out, num) / num**0.5, torch.randn(out) * 0.1) for num, out in sizes]
    return tuple(
        (weight.to(device).requires_grad_(), bias.to(device).requires_grad_())
        for weight, bias in random
    )


def networks(setting: Setting) -> Row:
    """Both networks over packed samples, forward and backward."""
    return networks_operation(setting).row(setting)


def networks_operation(setting: Setting) -> Operation:
    """See :func:`networks`."""
    sizes, count = setting.sizes, setting.sizes.num_samples
    num_inputs = sizes.num_levels * sizes.num_channels
    device = setting.device
    density = _layers([num_inputs, HIDDEN_DIM, 1 + GEO_FEAT_DIM], device)
    color = _layers([RAY_FEATURES + GEO_FEAT_DIM, HIDDEN_DIM, 3], device)
    weights = NetworkWeights(density, color)
    # In the layout of the kernels [L, d, S], as interpolation hands them over.
    latents = torch.randn(sizes.num_levels, sizes.num_channels, count).to(device).permute(2, 0, 1)
    latents.requires_grad_()
    ray_features = torch.randn(sizes.num_rays, RAY_FEATURES).to(device)
    ray_indices = torch.arange(sizes.num_rays).repeat_interleave(sizes.samples_per_ray).to(device)
    upstream = torch.randn(count).to(device), torch.randn(count, 3).to(device)
    inputs = {"latents": latents, **weights.named()}

    def run(backend: Backend) -> dict[str, Tensor]:
        outputs = backend.density_outputs(latents, weights)
        shaded = backend.shade(latents, outputs, ray_features, ray_indices, weights)
        grads = torch.autograd.grad(shaded, tuple(inputs.values()), upstream)
        names = ("sigma", "rgb", *(f"grad {name}" for name in inputs))
        return dict(zip(names, (*shaded, *grads), strict=True))

    return Operation(
        name="networks",
        what="Backend.density_outputs and shade, forward and backward",
        unit="samples/s",
        num_items=count,
        run=run,
        limit=1e-2,
        because="networks may compute in half floats, of 8 significant bits",
        sizes={"num_samples": count, "num_inputs": num_inputs, "hidden_dim": HIDDEN_DIM},
    )


def rate(setting: Setting) -> Row:
    """The rate term with its gradient, on one row in ``rate_stride``."""
    sizes, grid, stride = setting.sizes, setting.sizes.grid(), setting.sizes.rate_stride
    shape, num_tables, num_bins = (grid.num_entries, sizes.num_channels), 16, 127
    device = setting.device
    latents = (torch.randn(shape) + 0.3).to(device).requires_grad_()
    lengths = torch.rand(num_tables * grid.num_levels, num_bins).to(device) * 16
    classes = torch.randint(num_tables, shape, dtype=torch.int16).to(device)
    first_table = torch.arange(grid.num_levels, dtype=torch.int32).to(device) * num_tables

    def run(backend: Backend) -> dict[str, Tensor]:
        bits = backend.coded_bits(
            latents, lengths, classes, first_table, grid, first=stride // 2, stride=stride
        )
        return {"bits": bits.detach(), "grad": torch.autograd.grad(bits, latents)[0]}

    return Operation(
        name="rate",
        what="Backend.coded_bits, forward and backward",
        unit="entries/s",
        num_items=grid.num_entries,
        run=run,
        limit=1e-3,
        because="`reference` adds up thousands of numbers a level in single precision",
        sizes={"num_entries": grid.num_entries, "stride": stride},
    ).row(setting)
