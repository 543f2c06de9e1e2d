"""The sections of a file: one row each, in the order in which they stand.

A new section is a module with its two functions, and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shacira_nerfstudio.codec.scene import PackedScene
from shacira_nerfstudio.codec.sections import grid_and_rendering as small
from shacira_nerfstudio.codec.sections.cameras import decode_cameras, encode_cameras
from shacira_nerfstudio.codec.sections.head import (
    MAX_META_BYTES,
    canonical_json,
    decode_head,
    decode_json,
    encode_head,
)
from shacira_nerfstudio.codec.sections.occupancy import (
    decode_occupancy,
    encode_occupancy,
    max_cells,
)
from shacira_nerfstudio.codec.sections.weights import decode_weights, encode_weights
from shacira_nerfstudio.grid import GridSpec


@dataclass
class DecodedFields:
    """What a reader knows of a file while it walks the table."""

    file_bytes: int
    """Length of the file: limits of what it may ask for depend on it."""
    fast: bool | None
    """As in ``decode_scene``."""
    values: dict[str, Any] = field(default_factory=dict)
    """Of the sections before, by field."""

    @property
    def grid(self) -> GridSpec:
        return self.values["grid"]


@dataclass(frozen=True)
class SectionRow:
    """One section and what it holds."""

    tag: str
    """Upper case where a reader must understand it, lower case where it may skip it."""
    field: str | None
    """Of PackedScene; None where the section is made from the whole scene and holds several."""
    part: str
    """What its bytes count as in ``bytes_by_part``."""
    encode: Callable[[Any, bool | None], bytes]
    """From the field's value, or the scene, and ``fast``."""
    decode: Callable[[memoryview, DecodedFields], Any]
    """To the field's value, or to several values by field."""
    is_required: bool = False
    """Whether each file has it; others are left out where their field is None or empty."""

    def payload(self, scene: PackedScene, fast: bool | None) -> bytes | None:
        """The bytes of a scene's section, None if it has none."""
        value = scene if self.field is None else getattr(scene, self.field)
        is_empty = value is None or (isinstance(value, Mapping) and not value)
        return None if is_empty and not self.is_required else self.encode(value, fast)

    def read(self, payload: memoryview, fields: DecodedFields) -> None:
        """Decodes the section and adds what it holds to ``fields``."""
        value = self.decode(payload, fields)
        fields.values.update(value if self.field is None else {self.field: value})


def _decode_grid(payload: memoryview, _: DecodedFields) -> dict[str, Any]:
    return dict(zip(("grid", "latent_dim"), small.decode_grid(payload), strict=True))


SECTIONS = (
    SectionRow(
        "HEAD",
        None,
        "head",
        lambda scene, _: encode_head(scene),
        lambda payload, _: decode_head(payload),
        is_required=True,
    ),
    SectionRow(
        "GRID",
        None,
        "grid",
        lambda scene, _: small.encode_grid(scene.grid, scene.latent_dim),
        _decode_grid,
        is_required=True,
    ),
    SectionRow(
        "RNDR",
        "rendering",
        "head",
        lambda rendering, _: small.encode_rendering(rendering),
        lambda payload, fields: small.decode_rendering(payload, fields.grid.num_dims),
    ),
    SectionRow(
        "OCCU",
        "occupancy",
        "occupancy",
        lambda occupancy, fast: encode_occupancy(occupancy, fast=fast),
        lambda payload, fields: decode_occupancy(
            payload,
            fields.grid.num_dims,
            max_cells=max_cells(fields.file_bytes),
            fast=fields.fast,
        ),
    ),
    SectionRow(
        "WGTS",
        "weights",
        "weights",
        lambda weights, fast: encode_weights(weights, fast=fast),
        lambda payload, fields: decode_weights(payload, fast=fields.fast),
        is_required=True,
    ),
    SectionRow(
        "cams",
        "cameras",
        "other",
        lambda cameras, fast: encode_cameras(cameras, fast=fast),
        lambda payload, fields: decode_cameras(payload, fast=fields.fast),
    ),
    SectionRow(
        "meta",
        "meta",
        "other",
        lambda meta, _: canonical_json(meta),
        lambda payload, _: decode_json(payload, "meta", MAX_META_BYTES),
    ),
    SectionRow(
        "psnr",
        "prefix_psnr",
        "other",
        lambda prefix_psnr, _: small.encode_prefix_psnr(prefix_psnr),
        lambda payload, fields: small.decode_prefix_psnr(payload, fields.grid.num_levels),
    ),
)
"""All but the levels, which follow."""

LEVEL_TAG = "LATN"
"""Of one level's symbols; such sections follow those of the table, coarse to fine."""

PART_OF_TAG = {row.tag: row.part for row in SECTIONS} | {LEVEL_TAG: "latents"}

KNOWN = frozenset(PART_OF_TAG)
