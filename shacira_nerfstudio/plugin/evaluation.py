"""Nerfstudio's own evaluation of a run or an export folder, as a function."""

from __future__ import annotations

import json
from pathlib import Path

from nerfstudio.utils.eval_utils import eval_setup


def evaluate_run(
    load_config: Path, *, output_path: Path | None = None, render_output_path: Path | None = None
) -> dict[str, float]:
    """Means and standard deviations over the test images, under the names that ns-eval uses.

    Args:
        output_path: Where to write them as ns-eval does, JSON; None for nowhere.
        render_output_path: Folder for the rendered images.
    """
    if not load_config.is_file():
        raise FileNotFoundError(f"expected a config YAML file at {load_config}")
    config, pipeline, checkpoint, _ = eval_setup(load_config)
    results = pipeline.get_average_eval_image_metrics(output_path=render_output_path, get_std=True)
    if output_path is not None:
        content = {
            "experiment_name": config.experiment_name,
            "method_name": config.method_name,
            "checkpoint": str(checkpoint),
            "results": results,
        }
        output_path.parent.mkdir(parents=True, exist_ok=True)
        output_path.write_text(json.dumps(content, indent=2), "utf8")
    return results
