"""What a picture costs: the bits of the entries that its rays read.

A picture of it shows where a file spends its bytes: on edges and textures, and on what nobody sees.

Notation: R rays, S packed samples, E entries, L levels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from shacira_nerfstudio.backends.composed import sample_weights
from shacira_nerfstudio.backends.geometry import check_rays
from shacira_nerfstudio.backends.networks import density_of
from shacira_nerfstudio.model.scene import RadianceScene

_CHUNK_RAYS = 4096
"""Rays whose samples are in memory at a time."""


@torch.no_grad()
def ray_bits(
    scene: RadianceScene,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    entry_bits: Float[Tensor, " E"],
    *,
    limits: Float[Tensor, "R 2"] | None = None,
) -> Float[Tensor, " R"]:
    """Bits of the entries that each ray reads, weighted by what they weigh in its colour.

    ``sum_s w_s sum_l sum_c t_slc b_slc``: of the ray's samples s their weight w in its colour, of
    each level l that is shown and each corner c of the sample's cell there the trilinear weight t
    and the bits b of its entry. Where every entry costs b, an opaque ray costs b times the number
    of levels; one that meets nothing costs 0.

    Args:
        directions: Unit vectors.
        entry_bits: What each entry costs in the file, all of its channels together.
        limits: Where each ray begins and ends at the most.

    Raises:
        ValueError: some ray is not finite, or there is not one number per entry.
    """
    check_rays(origins, directions)
    if entry_bits.shape != (scene.encoding.grid.num_entries,):
        raise ValueError(
            f"expected bits of {scene.encoding.grid.num_entries} entries, got "
            f"{tuple(entry_bits.shape)}"
        )
    table = entry_bits.to(device=origins.device, dtype=torch.float32)[:, None].contiguous()
    bits = torch.zeros(len(origins), device=origins.device)
    for begin in range(0, len(origins), _CHUNK_RAYS):
        part = slice(begin, begin + _CHUNK_RAYS)
        bits[part] = _bits_of_chunk(
            scene, origins[part], directions[part], table, None if limits is None else limits[part]
        )
    return bits


def _bits_of_chunk(
    scene: RadianceScene,
    origins: Tensor,
    directions: Tensor,
    table: Float[Tensor, "E 1"],
    limits: Tensor | None,
) -> Float[Tensor, " R"]:
    backend, grid, field = scene.encoding.backend, scene.encoding.grid, scene.field.arrays()
    visible = backend.march_visible(
        origins,
        directions,
        scene.occupancy.occupied,
        scene.settings.render_march,
        field,
        early_stop=scene.settings.early_stop,
        limits=limits,
    )
    info = visible.packed_info
    sigmas = density_of(visible.density_outputs)
    weights = sample_weights(sigmas, visible.t_starts, visible.t_ends, info)
    of_levels = backend.interpolate(visible.positions, table, grid)[:, : field.num_levels_read, 0]
    rays = torch.repeat_interleave(info[:, 1], output_size=len(weights))
    return torch.zeros_like(origins[:, 0]).index_add(0, rays, weights * of_levels.sum(1))
