"""What refreshes the rate of latents while training goes on: a copy of them, and a thread.

A GPU computes steps in milliseconds, and what the file would charge for latents takes a host longer
than many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from shacira_nerfstudio.codec.latents.symbol_costs import code_classes
from shacira_nerfstudio.compression.code_lengths import code_lengths
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.encoding import LatentHashEncoding

T = TypeVar("T")


class BackgroundWork:
    """Runs a function in a thread, and hands its result over in the thread that asks for it."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._running: tuple[Future[Any], Callable[[Any], None]] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, and no result waits."""
        return self._running is None

    def begin(self, work: Callable[[], T], install: Callable[[T], None]) -> None:
        """Begins to work.

        Args:
            install: Called with the result by the first :meth:`install` after it is there.
        """
        if self._running is not None:
            raise RuntimeError("expected earlier work to be done by now")
        self._pool = self._pool or ThreadPoolExecutor(1, "shacira_background")
        self._running = self._pool.submit(work), install

    def install(self, *, waits: bool = False) -> None:
        """Installs a result, if there is one by now; raises what the work raised.

        Args:
            waits: For work that is not done.
        """
        if self._running is None or not (waits or self._running[0].done()):
            return
        (future, install), self._running = self._running, None
        install(future.result())

    def drop(self) -> None:
        """Forgets what is not installed: something newer is."""
        if self._running is not None:
            self._running[0].cancel()
            self._running = None


@dataclass(frozen=True)
class FieldCopy:
    """Latents and occupied cells of one moment, in memory of the host."""

    grid: GridSpec
    latents: Tensor
    """float32 [E, d]."""
    symbols: Tensor
    """The same as integers."""
    occupied: Tensor | None
    """bool [G, G, G]."""
    is_soft: bool
    """Whether latents train with noise."""
    arrived: Any
    """Event of a GPU after which the copy is there; None if it is."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        encoding: LatentHashEncoding,
        occupied: Callable[[], Tensor] | None,
        *,
        is_for_later: bool,
    ) -> FieldCopy:
        """Begins to copy, which a GPU is not waited for; or takes the very tensors, to be used at
        once."""
        cells = None if occupied is None else occupied()
        tensors, event = (encoding.latents.detach(), encoding.rounded(), cells), None
        if is_for_later:
            tensors = tuple(tensor if tensor is None else _copy(tensor) for tensor in tensors)
            if encoding.latents.device.type == "cuda":
                event = torch.cuda.Event()
                event.record()
        return cls(encoding.grid, *tensors, encoding.quantizer.is_soft, event)  # pyright: ignore

    def code_lengths(self) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`CodeLengths.install` takes."""
        if self.arrived is not None:
            self.arrived.synchronize()
        occupied = None if self.occupied is None else self.occupied.cpu().numpy()
        symbols, latents = self.symbols.cpu().numpy(), self.latents.cpu().numpy()
        classes = code_classes(self.grid, symbols, occupied, is_estimate=True)
        lengths = code_lengths(latents, classes, self.grid, is_soft=self.is_soft)
        found = lengths, classes.index, classes.first[:-1]
        first, second, third = map(torch.from_numpy, found)
        if self.arrived is not None:  # what is installed from pinned memory is not waited for
            first, second, third = first.pin_memory(), second.pin_memory(), third.pin_memory()
        return first, second, third


def _copy(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.clone()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)
