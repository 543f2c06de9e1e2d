"""Rate-distortion optimisation inside a run: latents that are not worth their bits move towards 0.

The curvature of the loss in each latent is measured on some batches, the encoder says what each
costs, and those move that save a bit for less loss than a Lagrangian multiplier allows, see
``rdo.py``. With a target the multiplier is whatever meets it. When all this happens is the business
of ``compressor.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from shacira_nerfstudio.codec import PackedScene, encode_scene
from shacira_nerfstudio.codec.latents.symbol_costs import symbol_costs
from shacira_nerfstudio.compression.rdo import Bits, best_moves, find_lagrangian, probe_curvature
from shacira_nerfstudio.model.encoding import LatentHashEncoding
from shacira_nerfstudio.model.quantize import get_quantizer

NUM_BATCHES = 32
"""Batches on which the curvature is measured: each entry's is the mean of so many squares, whose
standard error is a quarter."""
_LAGRANGIAN_RANGE = 1e-6, 1e5
"""Multipliers that are tried for a target, over what a bit was worth in training. A percent of a
file goes at about 1e-3."""
_SPARE_BYTES = 8
"""Below a target: at export the number of steps may have a digit more."""


class RdoStage:
    """One optimisation of an encoding in training.

    Args:
        scene: What the file would hold now.
        batches: Gives the colours of a training batch, with a graph down to the latents.
        fair_lagrangian: Loss that one bit was worth in training.
    """

    def __init__(
        self,
        encoding: LatentHashEncoding,
        scene: PackedScene,
        batches: Callable[[], Tensor],
        *,
        fair_lagrangian: float,
    ) -> None:
        self._encoding, self._scene, self._batches = encoding, scene, batches
        self.fair_lagrangian = fair_lagrangian
        self._start = torch.from_numpy(scene.symbols).float()
        self._bits_at_start = self._bits(self._start)

    @cached_property
    def _curvature(self) -> Tensor:
        return measure_curvature(self._encoding, self._batches)

    def at_lagrangian(self, lagrangian: float) -> Tensor:
        """Symbols [E, d] after all moves that cost less than this per bit."""
        symbols, bits = self._start, self._bits_at_start
        for last in (False, True):
            goals, costs = best_moves(self._start, symbols, self._curvature, bits)
            symbols = torch.where(costs < lagrangian, goals, symbols)
            if not last:
                # Moves change the tables, and so what is worth moving.
                bits = self._bits(symbols)
        return symbols

    def _bits(self, symbols: Tensor) -> Bits:
        grid, occupancy = self._scene.grid, self._scene.occupancy
        costs = symbol_costs(grid, symbols.short().numpy(), occupancy)
        return Bits(*(torch.from_numpy(getattr(costs, f.name)) for f in dataclasses.fields(Bits)))

    def size(self, symbols: Tensor) -> int:
        """Length of the file with these symbols."""
        scene = dataclasses.replace(self._scene, symbols=symbols.short().numpy())
        return len(encode_scene(scene))

    def to_size(self, target: float) -> Tensor:
        """Symbols of a file of at most so many bytes, or of the smallest there is."""
        target -= _SPARE_BYTES
        if self.size(self._start) <= target:
            return self._start
        lagrangian = find_lagrangian(
            lambda value: self.size(self.at_lagrangian(value)), target, *self._range
        )
        symbols = self.at_lagrangian(lagrangian)
        if self.size(symbols) > target:
            symbols = torch.zeros_like(symbols)
        return symbols

    def to_quality(self, target: float, psnr: Callable[[], float]) -> Tensor:
        """Symbols without those that a quality in dB can do without; all, if it is not reached.

        Args:
            psnr: Measures the encoding as it is; it is left with other latents.
        """
        if psnr() <= target:
            return self._start
        low, high = self._range

        def psnr_at(lagrangian: float) -> float:
            self.install(self.at_lagrangian(lagrangian))
            return psnr()

        # Downwards, so that it falls with what is searched for: the highest multiplier that still
        # does.
        inverse = find_lagrangian(lambda p: -psnr_at(1 / p), -target, 1 / high, 1 / low)
        return self.at_lagrangian(1 / inverse)

    @property
    def _range(self) -> tuple[float, float]:
        low, high = (factor * self.fair_lagrangian for factor in _LAGRANGIAN_RANGE)
        return low, high

    @torch.no_grad()
    def move(self, symbols: Tensor) -> None:
        """Gives the encoding these latents where they differ; the others keep their fractions."""
        latents = self._encoding.latents
        stays = (symbols == self._start).to(latents.device)
        latents.copy_(torch.where(stays, latents, symbols.to(latents)))

    @torch.no_grad()
    def install(self, symbols: Tensor) -> None:
        """Gives the encoding these latents."""
        latents = self._encoding.latents
        latents.copy_(symbols.to(latents))


def measure_curvature(encoding: LatentHashEncoding, batches: Callable[[], Tensor]) -> Tensor:
    """The curvature of the loss in each rounded latent, over batches of training, [E, d]."""
    latents = encoding.latents
    before = encoding.quantizer, encoding.temperature, latents.requires_grad
    encoding.set_quantizer(get_quantizer("straight_through"), encoding.temperature)
    latents.requires_grad_(True)
    encoding.uses_sparse_gradient = False  # the probe asks autograd for them
    total = torch.zeros_like(latents)
    for _ in range(NUM_BATCHES):
        total += probe_curvature(batches(), latents)
    encoding.set_quantizer(*before[:2])
    encoding.uses_sparse_gradient = True
    latents.requires_grad_(before[2])
    return (total / NUM_BATCHES).cpu()
