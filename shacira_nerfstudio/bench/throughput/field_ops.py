"""The networks and the rate term on their own, as :mod:`ops` does for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shacira_nerfstudio.backends import Backend, get_backend
from shacira_nerfstudio.bench.throughput.ops import PLAIN_TORCH, Setting
from shacira_nerfstudio.bench.throughput.timing import Row, check_relative, rate_row
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.build import build_field
from shacira_nerfstudio.model.radiance_field import FieldShape
from shacira_nerfstudio.compression.code_lengths import LARGEST_LETTER

HIDDEN_DIM, GEO_FEAT_DIM, NUM_COLOR_LAYERS, SH_DEGREE = 64, 15, 1, 4
"""The method's defaults."""
CHECKED_SAMPLES = 1 << 14
_HALF = "networks may compute in half floats, of 8 significant bits"


class _Networks:
    """Inputs of both networks, and what each side makes of them."""

    def __init__(self, setting: Setting) -> None:
        from shacira_nerfstudio.bench.throughput.nerfstudio_side import networks

        sizes = setting.sizes
        grid = GridSpec.create(num_levels=sizes.num_levels, max_res=64, log2_hashmap_size=8)
        shape = FieldShape(HIDDEN_DIM, GEO_FEAT_DIM, NUM_COLOR_LAYERS, SH_DEGREE)
        self.backend = setting.backend
        self.field = build_field(
            grid, shape, self.backend, latent_dim=sizes.num_channels, features_per_level=4
        )
        self.weights = {
            name: weight.detach().requires_grad_() for name, weight in self.field.layers().items()
        }
        count = sizes.num_samples
        # In the layout of the kernels [L, d, S], as interpolation hands them over.
        latents = torch.randn(sizes.num_levels, sizes.num_channels, count)
        self.latents = latents.permute(2, 0, 1).requires_grad_()
        directions = torch.nn.functional.normalize(torch.randn(sizes.num_rays, 3), dim=-1)
        self.ray_features = self.field.ray_features(directions)
        self.rays = torch.arange(sizes.num_rays).repeat_interleave(sizes.samples_per_ray)
        self.upstream = torch.randn(count), torch.randn(count, 3)
        in_dim, ray_dim = sizes.num_levels * sizes.num_channels, self.ray_features.shape[1]
        self.rival_networks = networks(in_dim, HIDDEN_DIM, GEO_FEAT_DIM, ray_dim, NUM_COLOR_LAYERS)
        self.rival_latents = self.latents.detach().reshape(count, in_dim).requires_grad_()

    def ours(self, count: int | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Density and colour, then gradients in latents and weights, of the first samples."""
        return self._shade(self.backend, self.latents[:count], self.weights, count)

    def truth(self, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """The same by `reference`, in double precision."""
        weights = {
            name: weight.detach().double().requires_grad_() for name, weight in self.weights.items()
        }
        latents = self.latents[:count].detach().double().requires_grad_()
        return self._shade(get_backend("reference", "cpu"), latents, weights, count)

    def _shade(
        self, backend: Backend, latents: Tensor, weights: dict[str, Tensor], count: int | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        features = self.ray_features.to(latents.dtype)
        raw = backend.raw_density(latents, weights)
        out = backend.shade(latents, raw, features, self.rays[:count], weights)
        upstream = [u[:count].to(o.dtype) for u, o in zip(self.upstream, out, strict=True)]
        grads = torch.autograd.grad(out, (latents, *weights.values()), upstream)
        return list(out), list(grads)

    def rival(self) -> None:
        """The host's two networks, of the same sizes, on the same inputs."""
        density, color = self.rival_networks
        raw = density(self.rival_latents)
        rgb = color(torch.cat([self.ray_features[self.rays], raw[:, 1:]], 1))
        inputs = (self.rival_latents, *density.parameters(), *color.parameters())
        torch.autograd.grad((raw[:, 0].exp(), rgb), inputs, self.upstream)

    def check(self) -> dict[str, Any]:
        count = min(CHECKED_SAMPLES, len(self.rays))
        (values, grads), (expected, expected_grads) = self.ours(count), self.truth(count)
        check: dict[str, Any] = {}
        for name, f, e in zip(("sigma", "rgb"), values, expected, strict=True):
            check |= check_relative(name, f, e, limit=1e-2, because=_HALF)
        for name, f, e in zip(("latents", *self.weights), grads, expected_grads, strict=True):
            check |= check_relative(f"grad {name}", f, e, limit=2e-2, because=_HALF)
        return check


def networks(setting: Setting) -> Row:
    """Both networks over packed samples, forward and backward."""
    both = _Networks(setting)
    count = len(both.rays)
    return rate_row(
        "networks",
        "samples/s",
        setting.ours(both.ours, "Backend.raw_density and shade", count),
        setting.rival(both.rival, 'MLP(implementation="torch") twice', count),
        repeats=setting.repeats,
        check=both.check(),
        sizes={
            "num_samples": count,
            "num_inputs": both.rival_latents.shape[1],
            "hidden_dim": HIDDEN_DIM,
            "geo_feat_dim": GEO_FEAT_DIM,
            "num_color_layers": NUM_COLOR_LAYERS,
        },
        backend=both.backend.name,
    )


def rate(setting: Setting) -> Row:
    """The rate term with its gradient, on one row in ``rate_stride``."""
    sizes, backend = setting.sizes, setting.backend
    grid, stride = sizes.grid(), sizes.rate_stride
    shape, num_tables = (grid.num_entries, sizes.num_channels), 16
    latents = (torch.randn(shape) + 0.3).requires_grad_()
    lengths = torch.rand(num_tables * grid.num_levels, 2 * LARGEST_LETTER + 1) * 16
    classes = torch.randint(num_tables, shape, dtype=torch.int16)
    first_table = range(0, len(lengths), num_tables)

    def run(which: Backend) -> tuple[Tensor, ...]:
        bits = which.coded_bits(
            latents, lengths, classes, first_table, grid, first=stride // 2, stride=stride
        )
        return bits.detach()[None], *torch.autograd.grad(bits, latents)

    found, expected = run(backend), run(get_backend("reference", "cpu"))
    num_rated = -(-grid.num_entries // stride) * sizes.num_channels
    # `reference` adds up in single precision, thousands of numbers a level.
    because = "single precision, in sums"
    check: dict[str, Any] = {}
    for name, f, e in zip(("bits", "latents"), found, expected, strict=True):
        check |= check_relative(name, f, e, limit=1e-3, because=because)
    return rate_row(
        "rate",
        "entries/s",
        setting.ours(lambda: run(backend), "Backend.coded_bits", grid.num_entries),
        setting.rival(lambda: run(get_backend("reference", "cpu")), PLAIN_TORCH, grid.num_entries),
        repeats=setting.repeats,
        check=check,
        sizes={"num_entries": grid.num_entries, "stride": stride, "num_rated": num_rated},
        backend=backend.name,
    )
