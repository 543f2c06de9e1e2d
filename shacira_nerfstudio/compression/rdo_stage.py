"""Rate-distortion optimisation inside a run: latents that are not worth their bits move towards 0.

At ``rdo_start`` of the steps the curvature of the loss in each latent is measured on some batches,
the encoder says what each costs, and those move whose bits are too dear, see ``compression/rdo.py``. From
there on latents stay as they are, and the networks, with the latent decoder, adapt to them. With a
target the price of a bit is whatever meets it; without such a stage, a file that is much too large
for its target is cut a first time while latents still learn. In any case the last step of a run
takes away what is still too much.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shacira_nerfstudio.codec import encode_scene
from shacira_nerfstudio.codec.latents.symbol_costs import symbol_costs
from shacira_nerfstudio.compression.rdo import Bits, best_moves, find_price, probe_curvature
from shacira_nerfstudio.compression.rate_steering import packed_run

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer

    from shacira_nerfstudio.plugin.model import ShaciraModel

logger = logging.getLogger(__name__)

NUM_BATCHES = 32
"""Batches on which the curvature is measured: each entry's is the mean of so many squares, whose
standard error is a quarter."""
AIM = 1.02
"""What latents are cut to at ``rdo_start``, over a target size: occupancy usually shrinks until the
end, and what is too much by then costs little quality."""
_PRICE_RANGE = 1e-6, 1e5
"""Prices that are tried for a target, over what a bit was worth in training. A percent of a file
goes at about 1e-3."""
_SPARE_BYTES = 8
"""Below a target: at export the number of steps may have a digit more."""


class RdoStage:
    """One optimisation of a model in training."""

    def __init__(self, model: ShaciraModel, trainer: Trainer) -> None:
        self._model, self._trainer = model, trainer
        self._scene = packed_run(model, trainer, trainer.step)
        self._start = torch.from_numpy(self._scene.symbols).float()
        self._bits_at_start = self._bits(self._start)

    @cached_property
    def _curvature(self) -> Tensor:
        return _measure_curvature(self._model, self._trainer)

    @property
    def fair_price(self) -> float:
        """Loss that one bit was worth in training."""
        return self._model.rate_steering.rate_lambda / self._model.field.encoding.grid.num_entries

    def at_price(self, price: float) -> Tensor:
        """Symbols [E, d] after all moves that cost less than this per bit."""
        symbols, bits = self._start, self._bits_at_start
        for last in (False, True):
            goals, prices = best_moves(self._start, symbols, self._curvature, bits)
            symbols = torch.where(prices < price, goals, symbols)
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
        low, high = (factor * self.fair_price for factor in _PRICE_RANGE)
        target -= _SPARE_BYTES
        if self.size(self._start) <= target:
            return self._start
        price = find_price(lambda p: self.size(self.at_price(p)), target, low, high)
        symbols = self.at_price(price)
        if self.size(symbols) > target:
            symbols = torch.zeros_like(symbols)
        return symbols

    def to_quality(self, target: float) -> Tensor:
        """Symbols without those that a quality in dB can do without; all, if it is not reached."""
        steering = self._model.rate_steering
        if steering.psnr(self._model, self._trainer) <= target:
            return self._start
        low, high = (factor * self.fair_price for factor in _PRICE_RANGE)

        def psnr_at(price: float) -> float:
            self.install(self.at_price(price))
            return steering.psnr(self._model, self._trainer)

        # Downwards, so that it falls with what is searched for: the highest price that still does.
        inverse = find_price(lambda p: -psnr_at(1 / p), -target, 1 / high, 1 / low)
        return self.at_price(1 / inverse)

    @torch.no_grad()
    def move(self, symbols: Tensor) -> None:
        """Gives the model these latents where they differ; the others keep their fractions."""
        latents = self._model.field.encoding.latents
        stays = (symbols == self._start).to(latents.device)
        latents.copy_(torch.where(stays, latents, symbols.to(latents)))

    @torch.no_grad()
    def install(self, symbols: Tensor) -> None:
        """Gives the model these latents."""
        latents = self._model.field.encoding.latents
        latents.copy_(symbols.to(latents))


def _measure_curvature(model: ShaciraModel, trainer: Trainer) -> Tensor:
    """The curvature of the loss in each rounded latent, over batches of training."""
    encoding = model.field.encoding
    before = encoding.mode, encoding.temperature, encoding.latents.requires_grad
    encoding.set_quantizer("straight_through", encoding.temperature)
    encoding.latents.requires_grad_(True)
    encoding.by_rows = False  # the probe asks autograd for them
    total = torch.zeros_like(encoding.latents)
    for _ in range(NUM_BATCHES):
        bundle, _ = trainer.pipeline.datamanager.next_train(trainer.step)
        outputs = model(bundle)
        total += probe_curvature(outputs["rgb"] * (1 - outputs["cut"])[:, None], encoding.latents)
    encoding.set_quantizer(*before[:2])
    encoding.by_rows = True
    encoding.latents.requires_grad_(before[2])
    return (total / NUM_BATCHES).cpu()


def optimise(model: ShaciraModel, trainer: Trainer) -> None:
    """The stage at ``rdo_start``: latents are final afterwards, but for :func:`trim`."""
    stage, steering = RdoStage(model, trainer), model.rate_steering
    before = stage.size(stage.at_price(0.0))
    if steering.target_bytes:
        symbols = stage.to_size(AIM * steering.target_bytes)
    elif model.config.target_psnr:
        symbols = stage.to_quality(model.config.target_psnr)
    else:
        symbols = stage.at_price(model.config.rdo_strength * stage.fair_price)
    stage.install(symbols)
    logger.info(
        "Latents optimised: the file went from %d to %d bytes.", before, stage.size(symbols)
    )


def trim_first(model: ShaciraModel, trainer: Trainer) -> None:
    """Cuts a file that is too large for its target while there is training left: latents that go
    may come back, and others make up for them."""
    stage, aim = RdoStage(model, trainer), model.rate_steering.aim(lr_factor=0.0)
    symbols = stage.to_size(aim)
    if stage.size(symbols) <= aim:  # else the target is out of reach, of which `trim` will tell
        stage.move(symbols)


def trim(model: ShaciraModel, trainer: Trainer) -> None:
    """The last word on a target: what is above it is taken away."""
    stage, target = RdoStage(model, trainer), model.rate_steering.target_bytes
    if not target:
        stage.install(stage.to_quality(model.config.target_psnr))
        return
    symbols = stage.to_size(target)
    stage.install(symbols)
    if stage.size(symbols) > target:
        logger.warning(
            "expected a target_size_kb that networks and occupancy alone fit in, got %g: the file "
            "has %d bytes",
            target / 1000,
            stage.size(symbols),
        )
