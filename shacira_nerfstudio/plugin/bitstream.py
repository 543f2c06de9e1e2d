"""A model that renders a decoded file: what stands in a checkpoint that holds one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.model_components import renderers

from shacira_nerfstudio.codec import decode_scene
from shacira_nerfstudio.codec.container import unpack_sections
from shacira_nerfstudio.codec.scene_file import KNOWN
from shacira_nerfstudio.model.occupancy import OccupancyGrid
from shacira_nerfstudio.model.pinhole import background_fill
from shacira_nerfstudio.compression.pack import UnpackedScene, unpack_scene
from shacira_nerfstudio.plugin.scene_settings import SceneSettings

if TYPE_CHECKING:
    from shacira_nerfstudio.plugin.model import ShaciraModel

KEY = "bitstream"
"""Name of the file's bytes in a model's state dict."""
_PARTS = {"OCCU": "occupancy", "WGTS": "weights", "LATN": "latents"}


def bytes_by_part(data: bytes) -> dict[str, int]:
    """Bytes of a file by what they are for, without decoding it; they sum up to its length."""
    parts = dict.fromkeys((*_PARTS.values(), "other"), 0)
    for section in unpack_sections(data, known=KNOWN):
        parts[_PARTS.get(section.tag, "other")] += len(section.payload)
    parts["other"] += len(data) - sum(parts.values())
    return parts


def load_bitstream(model: ShaciraModel, state_dict: Mapping[str, Any]) -> None:
    """Decodes ``state_dict["bitstream"]``, uint8 [N], and lets the model render it.

    Raises:
        ValueError: there are other keys beside it, or the file is broken. Never a RuntimeError:
            the host would then try once more with missing keys allowed.
    """
    others = sorted(set(state_dict) - {KEY})
    if others:
        raise ValueError(f"expected nothing beside {KEY!r} in the state dict, got {others[:4]}")
    bits = state_dict[KEY]
    if not isinstance(bits, torch.Tensor) or bits.dtype != torch.uint8 or bits.ndim != 1:
        found = (bits.dtype, tuple(bits.shape)) if isinstance(bits, torch.Tensor) else type(bits)
        raise ValueError(f"expected {KEY!r} as a uint8 tensor [N], got {found}")
    data = bits.cpu().numpy().tobytes()
    scene = decode_scene(data)
    install(model, unpack_scene(scene, model.backend, device=str(model.device)), data)


def install(model: ShaciraModel, unpacked: UnpackedScene, data: bytes) -> None:
    """Replaces all that rendering reads by what the file says; shapes come from the file too.

    The model can then render but not train: it has no float latents.
    """
    fill = background_fill(unpacked.background, unpacked.background_color)
    color = (0.0, 0.0, 0.0) if isinstance(fill, str) else tuple(fill.tolist())
    model.field = unpacked.field
    model.occupancy = OccupancyGrid(len(unpacked.occupied)).to(model.device)
    model.occupancy.occupied = unpacked.occupied
    model.settings = SceneSettings(
        march=unpacked.march,
        render=unpacked.march,
        train_background=fill,
        background=unpacked.background,  # pyright: ignore[reportArgumentType]
        background_color=color,  # pyright: ignore[reportArgumentType]
    )
    # Images with alpha are compared on the file's background, which is what lies behind its rays.
    model.renderer_rgb = renderers.RGBRenderer(background_color=fill)
    # A copy: the run's own configuration is not the model's to change.
    model.config = dataclasses.replace(
        model.config, early_stop=unpacked.early_stop, appearance_dim=0
    )
    model.appearance = torch.nn.Parameter(model.appearance.new_zeros(model.num_train_data, 0))
    model.file_scene, model.file_bytes = unpacked.scene, bytes_by_part(data)
