"""Numbers that a device knows first, read by the host without waiting for them.

A host that asks a GPU for a number waits until all that was asked of it before is done, and the GPU
then idles until the host has thought of something new. A host that can do with the number of the
step before last asks for a copy and goes on.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

LAG = 2
"""Steps after which numbers are read. The copy of the step before last is there, unless the device
is more than a step behind; then the host had better wait, for there is no use in running ahead
without end."""


class LateNumbers:
    """Small tensors that come back as numbers :data:`LAG` calls later.

    Which numbers a step sees follows from the step, not from how fast a device is.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Tensor, Any, Any]] = deque()

    def put(self, numbers: Tensor, note: Any = None) -> None:
        """Begins to copy numbers to the host; once a step.

        Args:
            numbers: One-dimensional.
            note: Comes back beside them.
        """
        numbers = numbers.detach()
        if numbers.device.type != "cuda":
            self._pending.append((numbers.clone(), None, note))
            return
        # Only into pinned memory is a copy not waited for.
        copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        copy.copy_(numbers, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending.append((copy, event, note))

    def take(self) -> tuple[list, Any] | None:
        """Numbers and note of the call of :meth:`put` that was :data:`LAG` ago, once; None if there
        is none. To be called before :meth:`put`."""
        if len(self._pending) < LAG:
            return None
        copy, event, note = self._pending.popleft()
        if event is not None:
            event.synchronize()
        return copy.tolist(), note
