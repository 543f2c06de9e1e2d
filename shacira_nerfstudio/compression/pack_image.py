"""Pictures and videos: a float field to integers, the counterpart of ``pack.py``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from shacira_nerfstudio.codec import PackedScene, QuantizedTensor
from shacira_nerfstudio.compression.pack import MAX_SYMBOL, quantize_weight
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.image_field import FIRST_LAYER, ImageField


@torch.no_grad()
def pack_image(
    field: ImageField,
    *,
    architecture: Mapping[str, int | str],
    kind: str = "image",
    meta: Mapping[str, str | int] | None = None,
    weights: Mapping[str, QuantizedTensor] | None = None,
) -> PackedScene:
    """Float field to integers. Every entry is reached: no pixel is empty.

    Args:
        architecture: What the file says about its pixels.
        kind: ``image`` or ``video``.
        weights: Of the network, where they have been chosen.

    Raises:
        ValueError: the field's latents are not quantised, or too large.
    """
    encoding = field.encoding
    if not encoding.is_quantized:
        raise ValueError(
            "expected a field with quantised latents, got one trained with quantizer none: "
            "rounding it now would destroy it"
        )
    symbols = encoding.rounded().detach().cpu().numpy().astype(np.int16)
    largest = int(np.abs(symbols.astype(np.int32)).max(initial=0))
    if largest > MAX_SYMBOL:
        raise ValueError(f"expected latents of at most {MAX_SYMBOL} in magnitude, got {largest}")
    if weights is None:
        named = field.named_weights()
        weights = {name: quantize_weight(w, field.bits_of(name)) for name, w in named.items()}
    return PackedScene(
        kind=kind,
        architecture=dict(architecture),
        grid=encoding.grid,
        symbols=symbols,
        weights=dict(weights),
        meta=dict(meta or {}),
    )


def without_empty_levels(scene: PackedScene) -> PackedScene:
    """The same pixels without the finest levels that hold nothing but 0, nor the weights that read
    them: a small file may not have a large table."""
    grid, dim = scene.grid, scene.latent_dim
    held = [level for level in range(grid.num_levels) if scene.level_symbols(level).any()]
    count = held[-1] + 1 if held else 1
    first = scene.weights[FIRST_LAYER]
    weights = {
        **scene.weights,
        FIRST_LAYER: QuantizedTensor(first.values[:, : count * dim].copy(), first.steps),
    }
    return dataclasses.replace(
        scene,
        grid=GridSpec(grid.num_dims, grid.resolutions[:count], grid.table_sizes[:count]),
        symbols=scene.symbols[: grid.offsets[count]],
        weights=weights,
        prefix_psnr=scene.prefix_psnr and scene.prefix_psnr[:count],
    )
