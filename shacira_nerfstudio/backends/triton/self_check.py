"""Whether this card computes what `reference` computes, asked once before `auto` takes this
backend.

A kernel may compile for a card and be wrong there: a compiler has errors, too, and there are more
cards than anybody tests. A problem of a few hundred samples takes as long as it takes to compile
the kernels, which training does anyway and which is kept on disk.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from shacira_nerfstudio.backends.base import Backend
from shacira_nerfstudio.backends.reference import ReferenceBackend
from shacira_nerfstudio.backends.sparse_rows import TableQuantizer
from shacira_nerfstudio.backends.types import MarchSettings
from shacira_nerfstudio.grid import GridSpec

_GRID = GridSpec(3, ((4, 4, 4), (16, 16, 16)), (64, 512))
_BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
_MARCH = MarchSettings("contracted", _BOX, near=0.05, far=50.0, step_size=0.2, knee=2.0)
_NUM_RAYS, _NUM_POSITIONS, _SAMPLES_PER_RAY = 4, 64, 6
_RTOL, _ATOL = 1e-3, 1e-3
"""Single precision gives 1e-5 and better; what is wrong is wrong by more."""


def check(backend: Backend, device: torch.device) -> None:
    """Holds each kind of kernel against plain torch.

    Raises:
        RuntimeError: one does not compile or run here, or computes something else.
    """
    try:
        differing = _first_difference(backend, device)
    except Exception as error:  # compilers and drivers have errors of many kinds
        kind = type(error).__name__
        raise RuntimeError(f"backend {backend.name} fails on this card: {kind}: {error}") from error
    if differing:
        raise RuntimeError(
            f"backend {backend.name} computes another {differing} on this card than `reference`: "
            "please report it, with the name of the card"
        )


def _first_difference(backend: Backend, device: torch.device) -> str:
    """What differs; empty if nothing does."""
    results = (_results(each, device) for each in (backend, ReferenceBackend()))
    for (name, values), (_, truth) in zip(*results, strict=True):
        if values.shape != truth.shape:
            return name
        if not torch.allclose(values.double(), truth.double(), rtol=_RTOL, atol=_ATOL):
            return name
    return ""


def _results(backend: Backend, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(device)

    quantizer = TableQuantizer("noise", 2**32 - 3)
    table = (draw(_GRID.num_entries, 1) * 3).requires_grad_()
    yield "noise", backend.quantize(table, quantizer)
    x = draw(_NUM_POSITIONS, 3).sigmoid()
    latents = backend.interpolate(x, table, _GRID, quantizer=quantizer)
    yield "interpolation", latents.detach()
    yield "gradient of a table", torch.autograd.grad(latents.square().sum(), table)[0]

    origins, directions = draw(_NUM_RAYS, 3) * 2, F.normalize(draw(_NUM_RAYS, 3), dim=-1)
    cells = draw(8, 8, 8) < 0
    strides = (draw(8, 8, 8).abs() * 2).clamp_max(3).to(torch.uint8)
    jitter = draw(_NUM_RAYS).sigmoid()
    samples = backend.march(origins, directions, cells, _MARCH, jitter=jitter, log2_strides=strides)
    yield "march", samples.packed_info
    yield "march", samples.positions

    count = _NUM_RAYS * _SAMPLES_PER_RAY
    sigmas, rgbs = draw(count).exp().requires_grad_(), draw(count, 3).requires_grad_()
    starts = torch.arange(count, device=device) * 0.05
    begins = torch.arange(_NUM_RAYS, device=device) * _SAMPLES_PER_RAY
    info = torch.stack([begins, torch.full_like(begins, _SAMPLES_PER_RAY)], 1)
    rendered = torch.column_stack(backend.composite(sigmas, rgbs, starts, starts + 0.05, info))
    yield "colour", rendered.detach()
    grads = torch.autograd.grad(rendered.square().sum(), (sigmas, rgbs))
    yield "gradient of densities", grads[0]
    yield "gradient of colours", grads[1]

    lengths = draw(2 * _GRID.num_levels, 9).abs() * 4
    classes = (draw(_GRID.num_entries, 1) > 0).to(torch.int16)
    first = torch.arange(0, 2 * _GRID.num_levels, 2, dtype=torch.int32, device=device)
    bits = backend.coded_bits(table, lengths, classes, first, _GRID)
    yield "rate", bits.detach()
    yield "gradient of the rate", torch.autograd.grad(bits, table)[0]
