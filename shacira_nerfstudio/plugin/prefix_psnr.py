"""How good each prefix of a file is: the table that an export stores when asked to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shacira_nerfstudio.codec import decode_scene, truncate
from shacira_nerfstudio.compression.probe import evenly_spaced
from shacira_nerfstudio.plugin.stored_cameras import StoredCamerasPipeline

MAX_PSNR = 0xFFFF
"""Largest value of a file, in 0.01 dB: no two 8-bit images come near it but equal ones."""


def measure_prefixes(pipeline: Any, data: bytes, *, num_views: int) -> tuple[int, ...]:
    """PSNR in 0.01 dB of the levels 0 … l of a file alone, for each level l of its grid.

    The mean over test images of the decoded, shortened file; a level that is not there adds
    nothing. The pipeline's model renders the whole file afterwards.

    Args:
        num_views: Test images at most, evenly spread over their order.

    Raises:
        ValueError: the run has no test images.
    """
    if isinstance(pipeline, StoredCamerasPipeline):
        raise ValueError("expected test images to measure with, got a run on stored cameras")
    total = len(pipeline.datamanager.eval_dataset)
    views = evenly_spaced(total, num_views)
    scene = decode_scene(data)
    qualities: list[int] = []
    for level in range(scene.num_coded_levels):
        if (
            qualities
            and not scene.level_symbols(level).any()
            and level < scene.num_coded_levels - 1
        ):
            qualities.append(qualities[-1])  # nothing new to see
            continue
        pipeline.model.show_file(truncate(data, max_level=level))
        qualities.append(min(max(round(100 * _mean_psnr(pipeline, views)), 0), MAX_PSNR))
    return tuple(qualities + [qualities[-1]] * (scene.grid.num_levels - len(qualities)))


@torch.no_grad()
def _mean_psnr(pipeline: Any, views: list[int]) -> float:
    pipeline.eval()
    dataset, model = pipeline.datamanager.eval_dataset, pipeline.model
    values = []
    for index in views:
        camera = dataset.cameras[index : index + 1].to(model.device)
        outputs = model.get_outputs_for_camera(camera)
        metrics, _ = model.get_image_metrics_and_images(outputs, dataset[index])
        values.append(float(metrics["psnr"]))
    return float(np.mean(values))
