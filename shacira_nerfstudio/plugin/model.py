"""The Nerfstudio model: an adapter around :class:`RadianceField`, nothing of worth lives only
here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import (
    TrainingCallback,
    TrainingCallbackAttributes,
    TrainingCallbackLocation,
)
from nerfstudio.model_components import renderers
from nerfstudio.models.base_model import Model
from torch import Tensor
from torch.nn import Parameter
from torch.nn.modules.module import _IncompatibleKeys

from shacira_nerfstudio.backends import MarchSettings, get_backend
from shacira_nerfstudio.backends.reference import density_of
from shacira_nerfstudio.codec import PackedScene
from shacira_nerfstudio.codec.latents.symbol_costs import code_classes
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.build import build_field
from shacira_nerfstudio.model.occupancy import OccupancyGrid, step_growth
from shacira_nerfstudio.model.quantize import QuantizeSchedule
from shacira_nerfstudio.model.radiance_field import FieldShape
from shacira_nerfstudio.model.volrend import (
    MIN_WEIGHT,
    RenderedRays,
    blend_background,
    render_rays,
    render_train,
)
from shacira_nerfstudio.plugin.bitstream import load_bitstream
from shacira_nerfstudio.plugin.metrics import ImageMetrics, estimated_bytes
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig
from shacira_nerfstudio.compression.rate_steering import FIRST_TRIM, RateSteering
from shacira_nerfstudio.plugin.scene_settings import resolve_scene_settings
from shacira_nerfstudio.compression.schedule import TrainingSchedule
from shacira_nerfstudio.plugin.callbacks import TrainingLoop
from shacira_nerfstudio.plugin.viewer_panel import ViewerPanel
from shacira_nerfstudio.compression.code_lengths import code_lengths

_ENTRIES_PER_LOOK = 1 << 23
"""Up to so many entries the file is looked at as often as configured; a table of twice as many
half as often."""


class ShaciraModel(Model):
    """Compressed radiance field (Girish et al., "SHACIRA", ICCV 2023) over an occupancy grid."""

    config: ShaciraModelConfig

    def populate_modules(self) -> None:
        super().populate_modules()
        config = self.config
        backend = get_backend(config.backend, self.kwargs.get("device", "cpu"))
        self.backend = backend.with_precision(config.mlp_precision)
        self.settings = resolve_scene_settings(
            config, self.scene_box, (self.kwargs.get("metadata") or {}).get("shacira")
        )
        grid = GridSpec.create(
            num_levels=config.num_levels,
            base_res=config.base_res,
            max_res=config.max_res,
            log2_hashmap_size=config.log2_hashmap_size,
        )
        shape = FieldShape(
            hidden_dim=config.hidden_dim,
            geo_feat_dim=config.geo_feat_dim,
            num_color_layers=config.num_color_layers,
            sh_degree=config.sh_degree,
            appearance_dim=config.appearance_dim,
        )
        plain = config.quantizer == "none"
        self.field = build_field(
            grid,
            shape,
            self.backend,
            latent_dim=config.latent_dim,
            features_per_level=config.features_per_level,
            # Signs need no scale of their own, the first layer has one for each.
            identity_decoder=config.quantizer in ("none", "binary")
            and config.latent_dim == config.features_per_level,
            decoder_per_level=config.decoder_per_level,
            entropy_model_layers=config.entropy_model_layers,
            pooled_entropy_model=config.pooled_entropy_model,
            latents_init_std=config.latents_init_std,
            decoder_init_std=config.decoder_init_std,
            weight_bits=0 if plain else config.weight_bits,
            first_layer_bits=config.first_layer_bits,
        )
        self.field.encoding.set_quantizer("none" if plain else config.quantizer, 1.0)
        self.occupancy = OccupancyGrid(
            config.occupancy_resolution, threshold=config.occupancy_threshold
        )
        self.appearance = torch.nn.Parameter(
            torch.zeros(self.num_train_data, config.appearance_dim)
        )
        self.renderer_rgb = renderers.RGBRenderer(background_color=self.settings.train_background)
        self.image_metrics = ImageMetrics(use_lpips=config.use_lpips)
        self.loop = TrainingLoop(config)
        self.rate_steering = RateSteering(config)
        self.file_bytes: dict[str, int] = {}
        """Bytes by part of the decoded file this model was loaded from; empty for a float
        checkpoint."""
        self.file_scene: PackedScene | None = None
        """That file's content; None for a float checkpoint."""
        self.viewer_panel = ViewerPanel(self)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """A checkpoint's weights, or, under the key ``bitstream``, a file to decode and render."""
        if "bitstream" not in state_dict:
            # Runs from before there was steering, or a look at weights, have no state of it.
            state = {
                "rate_steering.state": self.rate_steering.state,
                "occupancy.weight": self.occupancy.weight,
                **state_dict,
            }
            return super().load_state_dict(state, strict=strict, assign=assign)
        load_bitstream(self, state_dict)
        return _IncompatibleKeys([], [])

    @property
    def charges_by_tables(self) -> bool:
        """Whether latents cost what the file's tables say; signs have no such tables."""
        return self.config.rate_model == "tables" and self.config.quantizer not in (
            "none",
            "binary",
        )

    @property
    def march_settings(self) -> MarchSettings:
        """Of training."""
        return self.settings.march

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        encoding = self.field.encoding
        fields = [*self.field.density_mlp.parameters(), *self.field.color_mlp.parameters()]
        if self.config.appearance_dim:
            fields.append(self.appearance)
        groups = {
            "latents": [encoding.latents],
            "latent_decoder": list(encoding.latent_decoder.parameters()),
            "entropy_model": list(encoding.entropy_model.parameters()),
            "fields": fields,
        }
        if not encoding.is_quantized or self.charges_by_tables:
            del groups["entropy_model"]
        return {name: parameters for name, parameters in groups.items() if parameters}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        before, after = (
            TrainingCallbackLocation.BEFORE_TRAIN_ITERATION,
            TrainingCallbackLocation.AFTER_TRAIN_ITERATION,
        )
        attributes = training_callback_attributes
        self.loop.bind(self, attributes)
        return [
            TrainingCallback([before], self.loop.before_step),
            TrainingCallback([after], self.loop.after_step),
        ]

    def make_schedule(self, num_steps: int) -> TrainingSchedule:
        """The schedule of a run of so many steps."""
        config = self.config
        return TrainingSchedule(
            num_steps,
            QuantizeSchedule(
                self.field.encoding.mode if config.quantizer == "none" else config.quantizer,
                num_steps,
                config.anneal_fraction,
                config.final_temperature,
            ),
            warmup_steps=config.warmup_steps,
            decay_start=config.decay_start,
            final_lr_factor=config.final_lr_factor,
            weight_qat_start=config.weight_qat_start,
            level_dropout=config.level_dropout,
            tables_every=config.tables_every * self._looks_apart,
            visibility_start=config.visibility_start,
            rdo_start=config.rdo_start if self._can_optimise else 1.0,
            first_trim=FIRST_TRIM if config.target_size_kb and not self._can_optimise else 1.0,
        )

    @property
    def _looks_apart(self) -> int:
        """A look at the file makes a pass over the table: what looks cost per step does not grow
        with it."""
        return -(-self.field.encoding.grid.num_entries // _ENTRIES_PER_LOOK)

    @property
    def _can_optimise(self) -> bool:
        """Whether latents are moved towards 0 at the end of training."""
        config = self.config
        is_wanted = config.rdo_strength > 0 and config.rdo_start < 1
        # Signs have no 0 to move to.
        return is_wanted and config.rate_lambda > 0 and config.quantizer not in ("none", "binary")

    @torch.no_grad()
    def step_opacity(self, x: Tensor) -> Tensor:
        """Opacity of one march step at positions of the unit cube, [N, 3] -> [N]."""
        encoding = self.field.encoding
        # Rounded latents would all be 0 at the start, when training already sees structure.
        latents = encoding(x, encoding.mean_table())
        sigma = density_of(self.backend.raw_density(latents, self.field.effective_layers()))
        return -torch.expm1(
            -sigma * self.march_settings.step_size * step_growth(x, self.march_settings)
        )

    @torch.no_grad()
    def update_tables(self) -> None:
        """Looks again at what the file would charge for each latent, see rate_tables.py."""
        encoding = self.field.encoding
        symbols = encoding.rounded().cpu().numpy()
        occupied = self.occupancy.occupied.cpu().numpy()
        classes = code_classes(encoding.grid, symbols, occupied)
        lengths = code_lengths(
            encoding.latents.detach().cpu().numpy(),
            classes,
            encoding.grid,
            is_soft=encoding.mode in ("noise", "sga", "sga_tanh"),
        )
        tables = lengths.bits, classes.index, classes.first[:-1]
        encoding.install_tables(
            *map(torch.from_numpy, tables), letters_per_unit=lengths.letters_per_unit
        )

    def _appearance_codes(self, ray_bundle: RayBundle) -> Tensor | None:
        if not self.config.appearance_dim or ray_bundle.camera_indices is None:
            return None
        return self.appearance[ray_bundle.camera_indices.flatten()]

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        origins, directions = ray_bundle.origins, F.normalize(ray_bundle.directions, dim=-1)
        occupied = self.occupancy.occupied
        if self.training:
            rendered, cut = render_train(
                self.field,
                occupied,
                self.march_settings,
                origins,
                directions,
                early_stop=self.config.early_stop,
                max_samples=self.config.max_samples_per_ray,
                appearance=self._appearance_codes(ray_bundle),
                observe=self.occupancy.observe if self.loop.observes_weights else None,
            )
            outputs = self._as_outputs(rendered)
            outputs["cut"] = cut
            self.loop.observe(len(origins), rendered.num_samples, rendered.num_marched)
            return outputs
        mean = self.appearance.mean(0) if self.config.appearance_dim else None
        rendered = render_rays(
            self.field,
            occupied,
            self.settings.render,
            origins,
            directions,
            early_stop=self.config.early_stop,
            min_weight=MIN_WEIGHT,
            appearance=mean,
        )
        return self._as_outputs(rendered)

    def _as_outputs(self, rendered: RenderedRays) -> dict[str, Tensor]:
        background = self.settings.background_for(training=self.training)
        if renderers.BACKGROUND_COLOR_OVERRIDE is not None:  # ns-render to images with alpha
            background = renderers.BACKGROUND_COLOR_OVERRIDE
        if isinstance(background, Tensor):
            background = background.to(rendered.color)
        color = rendered.color if background is None else blend_background(rendered, background)
        if not self.training:
            color = color.clamp(0, 1)
        return {
            "rgb": color,
            "accumulation": rendered.accumulation[:, None],
            "depth": rendered.depth[:, None],
        }

    def rgb_and_truth(self, outputs: Mapping[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
        """Colours of a batch as the loss compares them, on the same background."""
        return self.renderer_rgb.blend_background_for_loss_computation(
            pred_image=outputs["rgb"],
            pred_accumulation=outputs["accumulation"],
            gt_image=image.to(self.device),
        )

    def get_metrics_dict(self, outputs: Any, batch: Any) -> dict[str, Any]:
        image = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        error = F.mse_loss(outputs["rgb"].detach().clamp(0, 1), image)
        metrics: dict[str, Any] = {
            "psnr": -10 * torch.log10(error.clamp_min(1e-10)),
            "occupied_fraction": self.occupancy.occupied_fraction,
        }
        if self.training:
            metrics.update({**self.loop.metrics(), **self.rate_steering.metrics()})
        return metrics

    def get_loss_dict(
        self, outputs: Any, batch: Any, metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        predicted, truth = self.rgb_and_truth(outputs, batch["image"])
        functions = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
        options = {"delta": 0.1} if self.config.rgb_loss == "huber" else {}
        loss = functions[self.config.rgb_loss](predicted, truth, reduction="none", **options)
        if "cut" in outputs:
            loss = loss * (1 - outputs["cut"])[:, None]
        losses = {"rgb_loss": loss.mean()}
        encoding = self.field.encoding
        # A step that leaves fine levels out leaves the rate out, too: it would pull them towards 0
        # with nothing to hold against it.
        is_whole = encoding.trained_levels == encoding.grid.num_levels
        if self.training and encoding.is_quantized and is_whole:
            # Under mixed precision the differences of the density would vanish in half floats.
            with torch.autocast(self.device.type, enabled=False):
                most = self.config.rate_max_entries / encoding.grid.num_entries
                bits = encoding.bits(fraction=min(self.config.rate_sample_fraction, most))
            losses["rate_loss"] = self.rate_steering.rate_lambda * bits / encoding.grid.num_entries
            if metrics_dict is not None:
                latent_bits = bits.item()
                metrics_dict["bits_per_latent"] = latent_bits / encoding.latents.numel()
                metrics_dict.update(estimated_bytes(self, latent_bits))
        return losses

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        predicted, truth = (
            outputs["rgb"],
            self.renderer_rgb.blend_background(batch["image"].to(self.device)),
        )
        metrics = self.image_metrics(predicted, truth)
        if self.file_bytes:
            metrics["bytes"] = float(sum(self.file_bytes.values()))
        elif self.field.encoding.is_quantized:
            with torch.no_grad():
                metrics.update(estimated_bytes(self, self.field.encoding.bits().item()))
        images = {
            "img": torch.cat([truth, predicted, (truth - predicted).abs()], 1),
            "accumulation": outputs["accumulation"],
            "depth": outputs["depth"] / outputs["depth"].max().clamp_min(1e-6),
        }
        return metrics, images
