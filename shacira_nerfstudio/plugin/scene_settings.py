"""From a configuration, in which all is chosen, and a data set to a scene."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras

from shacira_nerfstudio.backends import Backend, MarchSettings
from shacira_nerfstudio.grid import GridSpec
from shacira_nerfstudio.model.occupancy import OccupancyGrid, seen_cells
from shacira_nerfstudio.model.quantize import get_quantizer
from shacira_nerfstudio.model.radiance_field import FieldShape, RadianceField
from shacira_nerfstudio.model.scene import Background, RadianceScene, SceneSettings
from shacira_nerfstudio.option_ranges import settled
from shacira_nerfstudio.plugin.dataset_metadata import DatasetMetadata
from shacira_nerfstudio.plugin.host_cameras import pinholes
from shacira_nerfstudio.plugin.model_config import ShaciraModelConfig


def scene_settings(
    config: ShaciraModelConfig, scene_box: Any, dataset: DatasetMetadata
) -> SceneSettings:
    """Where rays are marched, and what lies behind.

    Args:
        scene_box: The host's, in scene units.
    """
    sampling, contraction = config.sampling, config.contraction
    if contraction == "auto":
        raise ValueError("expected a contraction to be chosen by now, got auto")
    low, high = (tuple(float(v) for v in corner) for corner in scene_box.aabb.tolist())
    if config.box != "auto":
        low, high = config.box[:3], config.box[3:]
    half = max(b - a for a, b in zip(low, high, strict=True)) / 2
    # The diagonal of the cube that is marched through: Instant-NGP takes 1024 steps across it. Of
    # contracted space that cube is twice as wide as the box.
    width = 2 * half * (2 if contraction == "contracted" else 1)
    num_steps = settled(sampling.steps_across_box)
    march = MarchSettings(
        contraction=contraction,
        box=(low, high),  # pyright: ignore[reportArgumentType]
        near=sampling.near_plane,
        far=sampling.far_plane,
        step_size=width * math.sqrt(3) / num_steps,
        # Steps grow from where a camera at the border of the box has passed its centre.
        knee=0.0 if contraction == "affine" else 2 * half,
    )
    finer = settled(sampling.render_steps_across_box) or num_steps
    return SceneSettings(
        train_march=march,
        render_march=replace(march, step_size=width * math.sqrt(3) / finer),
        background=_background(config, dataset),
        early_stop=settled(sampling.early_stop),
        max_samples_per_ray=sampling.max_samples_per_ray,
        max_stride=settled(sampling.max_stride),
        stride_opacity=sampling.stride_opacity,
    )


def trains_on_random_background(config: ShaciraModelConfig, dataset: DatasetMetadata) -> bool:
    """Whether each training ray has a background of its own, of which nothing remains."""
    is_unknown = config.background_color == "auto" and dataset.alpha_color is None
    return is_unknown or config.background_color == "random"


def _background(config: ShaciraModelConfig, dataset: DatasetMetadata) -> Background:
    if trains_on_random_background(config, dataset):
        return Background.named("black")
    if config.background_color == "auto":
        assert dataset.alpha_color is not None
        return Background.of_color(dataset.alpha_color)
    return Background.named(config.background_color)


def build_scene(
    config: ShaciraModelConfig, settings: SceneSettings, backend: Backend, *, num_images: int
) -> RadianceScene:
    """The scene that training starts from."""
    grid, networks, rate = config.grid, config.networks, config.rate
    latent_dim = settled(grid.latent_dim)
    backend = backend.with_precision(networks.precision)
    quantizer = get_quantizer(config.quantizer.mode)
    field = RadianceField.create(
        GridSpec.create(
            num_levels=settled(grid.num_levels),
            base_res=grid.base_res,
            max_res=settled(grid.max_res),
            log2_hashmap_size=settled(grid.log2_hashmap_size),
        ),
        FieldShape(
            hidden_dim=networks.hidden_dim,
            geo_feat_dim=networks.geo_feat_dim,
            num_color_layers=settled(networks.num_color_layers),
            sh_degree=networks.sh_degree,
            appearance_dim=networks.appearance_dim,
        ),
        backend.with_fused_networks() if networks.fused else backend,
        latent_dim=latent_dim,
        features_per_level=grid.features_per_level,
        # Signs need no scale of their own, the first layer has one for each.
        identity_decoder=not quantizer.codes_integers and latent_dim == grid.features_per_level,
        decoder_per_level=grid.decoder_per_level,
        quantizer=config.quantizer.mode,
        rate_model=rate.model,
        entropy_model_layers=rate.entropy_model_layers,
        shared_entropy_model=rate.shared_entropy_model,
        latents_init_std=grid.latents_init_std,
        decoder_init_std=grid.decoder_init_std,
        weight_bits=networks.weight_bits if quantizer.is_quantized else 0,
        first_layer_bits=networks.first_layer_bits,
        initial_log_density=settled(networks.initial_log_density),
    )
    sampling = config.sampling
    occupancy = OccupancyGrid(sampling.occupancy_resolution, threshold=sampling.occupancy_threshold)
    return RadianceScene(field, occupancy, settings, num_images=num_images)


def mark_unseen_cells(scene: RadianceScene, cameras: Cameras | None) -> None:
    """In an unbounded capture most of space is behind all cameras: it stays empty."""
    settings, (poses, optics, sizes) = scene.settings.train_march, pinholes(cameras)
    if settings.contraction != "contracted" or cameras is None:
        return
    if not len(sizes) or len(sizes) < len(cameras):
        return  # a fisheye or a panorama sees what a pinhole does not
    arrays = poses, optics, sizes.astype(np.float32)
    seen = seen_cells(scene.occupancy.resolution, settings, *map(torch.from_numpy, arrays))
    scene.occupancy.mark_unseen(seen.to(scene.device))
