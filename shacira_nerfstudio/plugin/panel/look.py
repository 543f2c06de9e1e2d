"""What the panel asks to see, rendered without touching what is trained.

The host's viewer renders in threads of its own, between two training steps, and may cut a rendering
off at any line with an exception. So nothing that training, steering or evaluation reads is changed
for its sake, not even for a moment: what is shown is a copy of the scene's modules that shares all
tensors, with settings of its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.compression.code_lengths import entry_bits_of
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.scene import RadianceScene

Module = TypeVar("Module", bound=nn.Module)
_REFRESH_SHARE = 0.05
"""Of the time that may go into what entries cost while they change."""


@dataclass(frozen=True)
class Look:
    """How a scene is shown."""

    num_levels: int
    """Finer levels read as 0."""
    is_quantized: bool = True
    """Integers, as the file has them, or the continuous latents and weights of training."""
    shows_bits: bool = False
    """Whether somebody looks at what rays cost."""


def view_of(scene: RadianceScene, look: Look) -> RadianceScene:
    """The scene as a look asks for it; shares tensors and changes none."""
    scene.encoding.rounded()  # made once for all copies
    view = _own(scene)
    view.field = _own(scene.field)
    view.field.encoding = _own(scene.encoding)
    view.encoding.max_level = look.num_levels
    if not look.is_quantized and scene.is_trainable:
        view.encoding.quantizer = get_quantizer("none")
        view.field.quantize_weights = False
    return view


def _own(module: Module) -> Module:
    """A module with the tensors of another, in which modules can be replaced."""
    own = copy.copy(module)
    own._modules = dict(module._modules)
    return own


class EntryCosts:
    """What each entry of the table costs, looked up again while training changes it.

    Args:
        pack: Makes the scene that the file would hold now.
    """

    def __init__(self, pack: Callable[[], PackedScene]) -> None:
        self._pack = pack
        self._costs: Tensor | None = None
        self._version, self._due = -1, 0.0

    def bits(self, scene: RadianceScene) -> Tensor:
        """Bits [E]. A little old at times: making them takes as long as encoding."""
        version = scene.encoding.latents._version
        is_due = version != self._version and time.monotonic() >= self._due
        if self._costs is None or is_due:
            begin = time.monotonic()
            costs = entry_bits_of(self._pack()).to(scene.device)
            end = time.monotonic()
            self._costs, self._version = costs, version
            self._due = end + (end - begin) / _REFRESH_SHARE
        return self._costs
