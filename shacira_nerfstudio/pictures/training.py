"""Trains the field of one picture or video and hands its file out.

All of the method is :class:`shacira_nerfstudio.compression.compressor.Compressor`; this is the loop
that sends it events, as the other host does for scenes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.codec import PackedScene, QuantizedTensor, encode_scene
from shacira_nerfstudio.compression.compressor import Compressor
from shacira_nerfstudio.compression.options import LEARNING_RATES
from shacira_nerfstudio.compression.pack_image import pack_image, without_empty_levels
from shacira_nerfstudio.compression.weight_bits import Weights, choose_weights
from shacira_nerfstudio.model.image_field import ImageField, ImageFieldShape
from shacira_nerfstudio.model.sparse_row_adam import SparseRowAdam
from shacira_nerfstudio.pictures.batches import PixelBatches
from shacira_nerfstudio.pictures.layout import PixelLayout
from shacira_nerfstudio.pictures.options import PictureOptions

PAPER_LEARNING_RATES = {
    **{"latents": 0.02, "latent_decoder": 0.01, "entropy_model": 1e-2},
    "fields": 1e-3,
}
OUR_LEARNING_RATES = {**LEARNING_RATES, "latent_decoder": 1e-2, "fields": 1e-2}
"""Networks learn faster than those of scenes: on a part of kodim23 half a decibel more after 250
steps."""
NGP_LEARNING_RATES = {"latents": 1e-2, "fields": 1e-2}
"""Of Instant-NGP (Müller et al., 2022, Sec. 4); its features are floats of no particular scale."""
PROBE_PIXELS = 1 << 17
"""Pixels on which quality is measured while training, and by which bits of weights are chosen."""
MAX_LOSS_DB = 0.05
"""What fewer bits of network weights may cost."""
_MAX_CUTS = 3
"""Rounds in which a file is brought below a size."""
_FEW = 4
"""Every so many-th of them is enough to compare one tensor's bits."""

Report = Callable[[int, int], None]
"""Gets the number of steps that are done and of all."""


def silent(done: int, total: int) -> None:
    """For whoever does not look."""
    del done, total


class PictureTraining:
    """One run.

    Args:
        pixels: See :class:`PixelBatches`.
    """

    def __init__(self, pixels: Any, layout: PixelLayout, options: PictureOptions) -> None:
        torch.manual_seed(options.seed)
        effort = options.effort
        self.layout, self.options, self.num_steps = layout, options, effort.num_steps
        backend = get_backend(options.backend, "cpu")
        is_paper, is_plain = options.choices == "paper", options.choices == "ngp"
        compression = options.compression(layout)
        self.field = ImageField.create(
            options.grid(layout),
            ImageFieldShape(layout.channels, 16 if is_paper else effort.hidden_dim),
            backend,
            latent_dim=2 if is_plain else 1,
            features_per_level=2 if is_plain else 1 if is_paper else 4,
            identity_decoder=is_plain,
            decoder_per_level=not is_paper,
            quantizer=compression.quantizer.mode,
            rate_model=compression.rate.model,
            entropy_model_layers=compression.rate.entropy_model_layers,
            shared_entropy_model=compression.rate.shared_entropy_model,
        )
        self.batches = PixelBatches(pixels, layout, effort.batch_pixels, seed=options.seed)
        self._probe = self.batches.sample(PROBE_PIXELS)
        with torch.no_grad():  # from the mean of the picture
            self.field.mlp[-1].bias.copy_(self._probe[1].mean(0))  # pyright: ignore
        self._weights: Mapping[str, QuantizedTensor] | None = None
        self._prefixes: tuple[int, ...] | None = None
        self.compressor = Compressor(compression, self.field, self.pack)
        rates = NGP_LEARNING_RATES if is_plain else OUR_LEARNING_RATES
        rates = PAPER_LEARNING_RATES if is_paper else rates
        self._optimizers = {
            name: (SparseRowAdam if name == "latents" else torch.optim.Adam)(
                parameters, lr=rates[name], eps=1e-15
            )
            for name, parameters in self.field.parameter_groups().items()
        }
        self._rates = rates

    def run(self, report: Report = silent) -> PackedScene:
        """Trains, and chooses what the file holds."""
        self.train(report)
        # Before the last word on a target, which is met by latents alone.
        self._weights = self._chosen_weights()
        self._prefixes, target = self._prefix_psnr(), self.options.target_bytes(self.layout)
        for _ in range(_MAX_CUTS):
            self.compressor.finish()
            self._prefixes = self._prefix_psnr()
            packed = without_empty_levels(self.pack())
            # The qualities of what has just been cut may take a byte more than those before.
            if not target or len(encode_scene(packed)) <= target:
                break
        return packed

    def train(self, report: Report = silent) -> None:
        """All steps."""
        self.field.encoding.backend.prepare_training()
        self.compressor.attach(self.num_steps, pack=self.pack, batches=self._colors, psnr=self.psnr)
        self.field.train()
        for step in range(self.num_steps):
            self._step(step)
            report(step + 1, self.num_steps)

    def _step(self, step: int) -> None:
        compressor = self.compressor
        compressor.before_step(step)
        factor = compressor.schedule.lr_factor(step)
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._rates[name] * factor
        positions, colors, weights = self.batches.next()
        errors = (self.field(positions) - colors).square()
        loss = errors.mean() if weights is None else (errors * weights).mean()
        loss.backward()
        # The rate of what this part of the picture is made of.
        bits = compressor.latent_bits(from_touched=True)
        if bits is not None and bits.requires_grad:
            compressor.rate_loss(bits).backward()
        for optimizer in self._optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if step % 100 == 0 and not torch.isfinite(loss):
            raise RuntimeError(f"expected a finite loss, got {float(loss)} at step {step}")
        compressor.after_step(step)

    def pack(self) -> PackedScene:
        """What the file would hold now."""
        packed = pack_image(
            self.field,
            kind=self.layout.kind,
            architecture=self.layout.architecture(),
            weights=self._weights,
        )
        return dataclasses.replace(packed, prefix_psnr=self._prefixes)

    def _colors(self) -> Tensor:
        positions, _, weights = self.batches.next()
        colors = self.field(positions)
        return colors if weights is None else colors * weights.sqrt()

    @torch.no_grad()
    def psnr(self) -> float:
        """Of the rounded field on some of the pixels, in dB."""
        training = self.field.training
        self.field.eval()
        try:
            found = self.field(self._probe[0])
        finally:
            self.field.train(training)
        return psnr_of(float(_error(found, self.layout, self._probe)))

    @torch.no_grad()
    def _chosen_weights(self) -> dict[str, QuantizedTensor]:
        """Bits of each tensor of the network by what they cost."""
        field = self.field.eval()
        latents = field.encoding(self._probe[0])
        few = tuple(None if v is None else v[::_FEW] for v in self._probe)
        named = {name: tensor.detach().clone() for name, tensor in field.named_weights().items()}
        chosen = choose_weights(
            named,
            field.bits_of,
            lambda weights: self._loss(weights, latents, self._probe),
            max_loss_db=MAX_LOSS_DB,
            trial_loss_of=lambda weights: self._loss(weights, latents[::_FEW], few),
        )
        field.train()
        return chosen

    @torch.no_grad()
    def _prefix_psnr(self) -> tuple[int, ...]:
        """Of the first levels alone, in 0.01 dB, on some of the pixels."""
        assert self._weights is not None
        field, found = self.field.eval(), []
        latents = field.encoding(self._probe[0])
        for level in range(field.encoding.grid.num_levels):
            shown = torch.zeros_like(latents)
            shown[:, : level + 1] = latents[:, : level + 1]
            found.append(round(100 * psnr_of(self._loss(self._weights, shown, self._probe))))
        field.train()
        return tuple(found)

    def _loss(self, weights: Weights, latents: Tensor, probe: Any) -> float:
        tensors = [
            torch.from_numpy(w.dequantize()) if isinstance(w, QuantizedTensor) else w
            for w in (weights[name] for name in self.field.named_weights())
        ]
        layers = tuple(zip(tensors[::2], tensors[1::2], strict=True))
        found = self.field.encoding.backend.pixel_network(latents, layers)
        return float(_error(found, self.layout, probe))


def _error(found: Tensor, layout: PixelLayout, probe: tuple) -> Tensor:
    """Mean squared error of channels as a file shows them, clipped and rounded."""
    shown = (found.clamp(0, 1) * layout.largest).round() / layout.largest
    errors = (shown - probe[1]).double().square()
    return errors.mean() if probe[2] is None else (errors * probe[2]).mean()


def psnr_of(mean_squared_error: float) -> float:
    """In dB; at most 100."""
    return -10 * math.log10(max(mean_squared_error, 1e-10))
