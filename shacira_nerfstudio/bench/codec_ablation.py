"""The same integers coded in other ways: what parts of the codec are worth, without training again.

Each figure is the length of real bytes that were made and decoded again, but for networks at 32
bits, which are counted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shacira_nerfstudio.codec import PackedScene, decode_scene, encode_scene
from shacira_nerfstudio.codec.container import pack_sections, unpack_sections
from shacira_nerfstudio.codec.sections.table import KNOWN

NO_CONTEXTS = "contexts off"
NO_SKIPPING = "skipping off"
NEITHER = "contexts and skipping off"
FLOAT_WEIGHTS = "weights at 32 bits"


def codec_ablation_bytes(scene: PackedScene, data: bytes, latents: np.ndarray) -> dict[str, int]:
    """Lengths of a file that was made in other ways.

    Args:
        data: The scene's file.
        latents: Integers [E, d] of the whole table as training left them: those that nothing
            reaches are not 0.
    """
    sections = unpack_sections(data, known=KNOWN)
    others = [(s.tag, bytes(s.payload)) for s in sections if s.tag != "OCCU"]
    size_of = {section.tag: len(section.payload) for section in sections}
    # Without occupancy all entries are reached. Rendering needs it all the same: it is added.
    everything = replace(scene, symbols=latents.astype(np.int16), occupancy=None)
    occupancy = len(data) - len(pack_sections(others))
    num_weights = sum(tensor.values.size for tensor in scene.weights.values())
    return {
        NO_CONTEXTS: _size(scene, use_contexts=False),
        NO_SKIPPING: _size(everything) + occupancy,
        NEITHER: _size(everything, use_contexts=False) + occupancy,
        FLOAT_WEIGHTS: len(data) - size_of["WGTS"] + 4 * num_weights,
    }


def _size(scene: PackedScene, *, use_contexts: bool = True) -> int:
    data = encode_scene(scene, use_contexts=use_contexts)
    if decode_scene(data) != scene:
        raise ValueError("expected the bytes to decode to their scene, found another one")
    return len(data)
