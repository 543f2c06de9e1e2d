"""The Nerfstudio model: an adapter around :class:`RadianceScene` and :class:`Compressor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.model_components import renderers
from nerfstudio.models.base_model import Model
from torch import Tensor
from torch.nn import Parameter
from torch.nn.modules.module import _IncompatibleKeys

from shacira_nerfstudio.backends import get_backend
from shacira_nerfstudio.backends.geometry import constant
from shacira_nerfstudio.codec import PackedScene, decode_scene
from shacira_nerfstudio.codec.file_tools import bytes_by_part
from shacira_nerfstudio.compression.compressor import Compressor
from shacira_nerfstudio.compression.pack import pack_scene, repack_scene, unpack_scene
from shacira_nerfstudio.compression.probe import psnr
from shacira_nerfstudio.compression.time_budget import TimeBudget
from shacira_nerfstudio.model.sampling import AdaptiveSampling
from shacira_nerfstudio.model.scene import RadianceScene
from shacira_nerfstudio.model.volrend import RenderedRays, blend_background
from shacira_nerfstudio.option_ranges import settled
from shacira_nerfstudio.plugin import bitstream
from shacira_nerfstudio.plugin.callbacks import TrainingCallbacks
from shacira_nerfstudio.plugin.capture_kind import choose_settings
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.export_options import MAX_CAMERAS
from shacira_nerfstudio.plugin.host_cameras import cameras_to_store, thin_cameras
from shacira_nerfstudio.plugin.loss_watch import LossWatch
from shacira_nerfstudio.plugin.metrics import ImageMetrics
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig
from shacira_nerfstudio.plugin.scene_settings import (
    build_scene,
    scene_settings,
    trains_on_random_background,
)
from shacira_nerfstudio.plugin.surface_outputs import OutputsWithNormals, cut_out
from shacira_nerfstudio.plugin.viewer_panel import ViewerPanel

_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


class ShaciraModel(Model):
    """Compressed radiance field (Girish et al., "SHACIRA", ICCV 2023) over an occupancy grid."""

    config: ShaciraModelConfig

    def populate_modules(self) -> None:
        super().populate_modules()
        config = self.config
        self.dataset = DatasetMetadata.of(self.kwargs.get("metadata"))
        device = torch.device(self.kwargs.get("device", "cpu"))
        self.choice = choose_settings(config, self.dataset, device_type=device.type)
        config.check()
        settings = scene_settings(config, self.scene_box, self.dataset)
        backend = get_backend(config.backend, device)
        scene = build_scene(config, settings, backend, num_images=self.num_train_data)
        self._show(scene, is_random=trains_on_random_background(config, self.dataset))
        self.sampling = AdaptiveSampling(config.sampling)
        self.loss_watch = LossWatch()
        self.time_budget = TimeBudget(60 * config.max_minutes)
        self.planned_num_steps = 0
        """Of the run that is resumed; 0 for a new one."""
        self.callbacks: TrainingCallbacks | None = None
        self.image_metrics = ImageMetrics(use_lpips=config.use_lpips)
        self.file_bytes: dict[str, int] = {}
        """Bytes by part of the decoded file this model was loaded from; empty for a float
        checkpoint."""
        self.file_scene: PackedScene | None = None
        """That file's content; None for a float checkpoint."""
        self.on_view: Callable[[Tensor, Tensor, Mapping[str, float]], None] | None = None
        """Gets truth and picture, [H, W, 3] each, and metrics of each view that is evaluated."""
        self.viewer_panel = ViewerPanel(self)

    def _show(self, scene: RadianceScene, *, is_random: bool = False) -> None:
        """Renders a scene from now on.

        Args:
            is_random: Train on random backgrounds, which the host adds in the loss.
        """
        self.scene, self._is_random = scene, is_random
        self.compressor = Compressor(
            self.config.compression_options(),
            scene.field,
            self.pack,
            occupied=lambda: scene.occupancy.occupied,
        )
        self.renderer_rgb = renderers.RGBRenderer("random" if is_random else self._fill())

    def _fill(self) -> Any:
        """The background as the host takes it, a colour where the model is: the host would send it
        there in each step, and wait."""
        color, device = self.scene.settings.background.fill_color, self.kwargs.get("device", "cpu")
        if color is None:
            return "last_sample"
        return constant(color, torch.float32, torch.device(device))

    # ── checkpoints ──

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """A checkpoint's weights, or, under the key ``bitstream``, a file to decode and render."""
        if bitstream.KEY not in state_dict:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.show_file(bitstream.from_state_dict(state_dict))
        return _IncompatibleKeys([], [])

    def show_file(self, data: bytes) -> None:
        """Renders what a file says from now on; shapes come from the file, too. There are no float
        latents then, so it cannot be trained."""
        packed = decode_scene(data)
        backend = self.scene.encoding.backend
        self._show(unpack_scene(packed, backend, device=str(self.device)))
        self.file_scene, self.file_bytes = packed, bytes_by_part(data)
        self.viewer_panel = ViewerPanel(self)

    def get_extra_state(self) -> Tensor:
        """What steering remembers, then the seconds of training and the number of steps that is
        planned, 0 where there is no plan."""
        num_steps = self.planned_num_steps
        if self.callbacks is not None:
            num_steps = self.compressor.schedule.num_steps
        clock = torch.tensor([self.time_budget.seconds, float(num_steps)])
        return torch.cat([self.compressor.steering.state, clock])

    def set_extra_state(self, state: Tensor) -> None:
        self.compressor.steering.state = state[:-2]
        self.time_budget.resume(state[-2].item())
        self.planned_num_steps = int(state[-1])

    def pack(
        self,
        occupied: Tensor | None = None,
        *,
        meta: Mapping[str, str | int] | None = None,
        max_cameras: int | None = None,
        with_latents: bool = True,
    ) -> PackedScene:
        """What the file of this model holds; of one from a file, what that holds, and ``meta``.

        Args:
            occupied: Occupied cells; by default the scene's own.
            max_cameras: By default :data:`MAX_CAMERAS`, or as many as the file has.
            with_latents: See :func:`pack_scene`; of a file, they are there in any case.
        """
        packed = self.file_scene
        if packed is None:
            count = MAX_CAMERAS if max_cameras is None else max_cameras
            cameras = cameras_to_store(self.dataset.cameras, count)
            return pack_scene(
                self.scene,
                occupied=occupied,
                cameras=cameras,
                meta=meta,
                with_latents=with_latents,
            )
        cameras = packed.cameras
        if max_cameras is not None:
            cameras = thin_cameras(cameras, max_cameras)
        return repack_scene(packed, cameras=cameras, meta=meta)

    # ── training ──

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        return self.scene.parameter_groups()

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        self.callbacks = TrainingCallbacks(self, training_callback_attributes)
        return self.callbacks.as_list()

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        origins, directions = ray_bundle.origins, F.normalize(ray_bundle.directions, dim=-1)
        limits = None  # a crop box, or a collider
        if ray_bundle.nears is not None and ray_bundle.fars is not None:
            limits = torch.cat([ray_bundle.nears, ray_bundle.fars], -1)
        if not self.training:
            return self._outputs_to_look_at(origins, directions, limits)
        rendered, cut = self.scene.train_rays(
            origins,
            directions,
            image_indices=ray_bundle.camera_indices,
            observe_weights=self.sampling.observes_weights,
            limits=limits,
            with_distortion=settled(self.config.distortion_loss_mult) > 0,
        )
        self.sampling.note_batch(len(origins), rendered)
        outputs = {**self._as_outputs(rendered), "cut": cut}
        if rendered.distortion is not None:
            outputs["distortion"] = rendered.distortion
        return outputs

    def _outputs_to_look_at(
        self, origins: Tensor, directions: Tensor, limits: Tensor | None
    ) -> dict[str, Tensor]:
        look = self.viewer_panel.look()
        if look is None:
            outputs = self._as_outputs(self.scene.render_rays(origins, directions, limits=limits))
            return OutputsWithNormals(outputs, self.scene, origins, directions)
        view = self.viewer_panel.view(look)
        outputs = self._as_outputs(view.render_rays(origins, directions, limits=limits))
        bits = self.viewer_panel.bits(look, origins, directions, limits=limits)
        return outputs if bits is None else {"rgb": outputs["rgb"], "bits": bits, **outputs}

    def _as_outputs(self, rendered: RenderedRays) -> dict[str, Tensor]:
        override, color = renderers.BACKGROUND_COLOR_OVERRIDE, rendered.color
        if override is not None:  # ns-render to images with alpha
            color = blend_background(rendered, override.to(color))
        elif not (self.training and self._is_random):
            color = self.scene.settings.background.behind(rendered)
        return {
            "rgb": color if self.training else color.clamp(0, 1),
            "accumulation": rendered.accumulation[:, None],
            "depth": rendered.depth[:, None],
        }

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colours without background, and opacity."""
        return cut_out(outputs, output_name, self.scene.settings.background.fill)

    def get_metrics_dict(self, outputs: Any, batch: Any) -> dict[str, Any]:
        image = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        metrics: dict[str, Any] = {
            "psnr": psnr(outputs["rgb"].detach().clamp(0, 1), image),
            "occupied_fraction": self.scene.occupancy.occupied_fraction,
        }
        if self.training and self.callbacks is not None:
            rates = self.callbacks.learning_rates
            metrics.update({f"lr_{name}": rate for name, rate in rates.items()})
            metrics.update({**self.sampling.metrics(), **self.compressor.metrics()})
            if self.time_budget.is_limited:
                metrics["num_steps"] = self.compressor.schedule.num_steps
        return metrics

    def get_loss_dict(
        self, outputs: Any, batch: Any, metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        predicted, truth = self.renderer_rgb.blend_background_for_loss_computation(
            pred_image=outputs["rgb"],
            pred_accumulation=outputs["accumulation"],
            gt_image=batch["image"].to(self.device),
        )
        options = {"delta": 0.1} if self.config.rgb_loss == "huber" else {}
        loss = _LOSSES[self.config.rgb_loss](predicted, truth, reduction="none", **options)
        if "cut" in outputs:
            loss = loss * (1 - outputs["cut"])[:, None]
        losses = {"rgb_loss": loss.mean()}
        if "distortion" in outputs:
            losses["distortion_loss"] = (
                settled(self.config.distortion_loss_mult) * outputs["distortion"]
            )
        bits = self.compressor.latent_bits() if self.training else None
        if bits is not None:
            losses["rate_loss"] = self.compressor.rate_loss(bits)
            if metrics_dict is not None:
                metrics_dict.update(self.compressor.rate_metrics(bits))
        if self.training:
            self.loss_watch.note(losses)
            if metrics_dict is not None:
                self.viewer_panel.note(metrics_dict)
        return losses

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        predicted = outputs["rgb"]
        truth = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        metrics = self.image_metrics(predicted, truth, batch.get("mask"))
        if self.on_view is not None:
            self.on_view(truth, predicted, metrics)
        if self.file_bytes:
            metrics["bytes"] = float(sum(self.file_bytes.values()))
        elif self.scene.encoding.is_quantized:
            with torch.no_grad():
                estimate = self.compressor.size_meter.estimate(self.scene.encoding.bits())
            metrics.update({name: float(value) for name, value in estimate.items()})
        images = {
            "img": torch.cat([truth, predicted, (truth - predicted).abs()], 1),
            "accumulation": outputs["accumulation"],
            "depth": outputs["depth"] / outputs["depth"].max().clamp_min(1e-6),
        }
        return metrics, images
