"""A file in one row: what can be said of it without decoding its latents, for many at once."""

from __future__ import annotations

from typing import Any

from shacira_nerfstudio.codec.container import unpack_sections
from shacira_nerfstudio.codec.scene_file import sort_sections
from shacira_nerfstudio.codec.sections.table import KNOWN, SECTIONS, DecodedFields

_READ = ("HEAD", "GRID", "psnr", "meta")
"""Small sections."""
_META = ("dataparser", "step", "rate_lambda")
"""Of what a run wrote about itself."""


def summarize(data: bytes | memoryview, *, allow_truncated: bool = False) -> dict[str, Any]:
    """Kind, size, levels, and what the run said of itself; every CRC is checked, latents are not
    decoded.

    Args:
        allow_truncated: Accept a file that was cut off, and count its whole levels.

    Raises:
        SceneFormatError: it is no such file.
    """
    data = memoryview(data).cast("B")
    sections = unpack_sections(data, allow_truncated=allow_truncated, known=KNOWN)
    payloads, levels = sort_sections(sections)
    fields = DecodedFields(len(data), None)
    for row in SECTIONS:
        if row.tag in _READ and row.tag in payloads:
            row.read(payloads[row.tag], fields)
    values, grid = fields.values, fields.grid
    psnr = values.get("prefix_psnr")
    latents = sum(map(len, levels))
    count = grid.offsets[len(levels)] * values["latent_dim"]
    meta = values.get("meta") or {}
    return {
        "bytes": len(data),
        "latent_bytes": latents,
        "kind": values["kind"],
        "levels": len(levels),
        "max_res": max(grid.resolutions[-1]),
        "num_latents": count,
        "bits_per_latent": round(8 * latents / max(count, 1), 4),
        "psnr": psnr[len(levels) - 1] / 100 if psnr and levels else None,
        **{name: meta.get(name) for name in _META},
        "digest": values["digest"][:16],
    }
